"""The trainer's own model as a policy: sampling that keeps each slot's key-value cache from one step to the next.

Only tokens the model has not seen yet are run: in the append context the environment's answer, in the rebuilt context
what follows the common beginning of two prompts. Log-probabilities are those of the tempered distribution the tokens
were drawn from; in float32 they equal those of a training forward to about 1e-5.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from steppo_gym.rollouts.policies import Answer, Request, Response
from steppo_gym.trainers.policy.decoding import Decoding
from steppo_gym.trainers.policy.model_limits import base_of, check_model
from steppo_gym.trainers.policy.prefill import Loan, Tokens, find_loans, known_tokens, split_by_length
from steppo_gym.trainers.policy.slot_cache import SlotCache
from steppo_gym.trainers.policy.slots import SlotRows
from steppo_gym.trainers.policy.streams import uniforms

ATTENTION_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which plans anew for every width of the keys, and these widen with every token: with 1.7 billion
parameters in bfloat16 and 64 slots on an H200, a token took 198 ms with it and 32 ms without.
"""

ADMITTED_SHARE = 0.1
"""In streaming, requests that wait per response under way before their prompts are read. A matter of speed alone."""


class ModelPolicy:
    """Samples responses from a causal language model, through the model's own forward pass.

    The keys of a slot's context are kept from call to call. Who calls `respond` and changes the weights in between has
    to `drop` them, as `collect` does before each rollout.

    Args:
        model: the policy; put into evaluation mode for the time of a call.
        num_slots: rollout slots, ids 0 .. num_slots - 1.
        stop_token_ids: tokens that end a response; the sampled one is part of it.
        pad_token_id: any valid id.
        max_response_tokens: a response is cut here.
        temperature: of the softmax; 0 takes the likeliest token (log-probabilities are then those at temperature 1).
        seed: seeds the sampling. A response follows from it, the prompt and the request's stream, whatever else is in
            the batch, but for what rounding does to a draw that falls between two tokens.
        autocast: makes the context in which the trainer runs the model, so that both compute in one precision.

    Raises:
        ValueError: a model that cannot be sampled from here, see `check_model`; or a temperature below 0.
    """

    needs_expert = False
    prefers_streaming = False
    """In lock-step a run repeats to the last bit, whatever the time that environments take."""

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        num_slots: int,
        stop_token_ids: Sequence[int],
        pad_token_id: int,
        max_response_tokens: int,
        temperature: float = 1.0,
        seed: int = 0,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if not temperature >= 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}.")
        # Adapters live inside the base model's layers, so the base model of a PEFT model generates with them.
        self.model: Any = base_of(model)
        check_model(self.model)
        self.pad_token_id, self.max_response_tokens, self.temperature = pad_token_id, max_response_tokens, temperature
        self.device, self.autocast = self.model.device, autocast
        self.seed, self._num_unnamed = seed, 0
        # With entries that no token has, in case the vocabulary is larger than the tokenizer's.
        self._stops = torch.zeros(self.model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        self._stops[list(stop_token_ids)] = True
        self._stops = self._stops.to(self.device)
        config = self.model.config.get_text_config()
        num_layers = config.num_hidden_layers
        # What a router says is for a loss over whole sequences, with a mask of two dimensions.
        self._silenced = {"output_router_logits": False} if getattr(config, "output_router_logits", False) else {}
        self._cache = SlotCache(num_layers, num_slots, self.device, self.model.dtype)
        self._rows = SlotRows(self._cache)
        self._cached: list[Tokens] = [()] * num_slots
        """By slot, the tokens whose keys are in the cache; of responses under way, the prompt."""
        self.prefill_seconds = 0.0
        """Of reading prompts, as far as it has been waited for."""
        self._waiting: list[Request] = []
        self._running = self._new_decoding()

    def _new_decoding(self) -> Decoding:
        return Decoding(self._rows, self._stops, self.max_response_tokens, self.temperature)

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """One sampled response per request, in order; no two of one slot."""
        self._waiting += requests
        answers: dict[int, Response] = {}
        with self._sampling():
            while len(answers) < len(requests):
                answers |= self._advance()
        return [answers[request.slot] for request in requests]

    def submit(self, request: Request) -> None:
        """Hand in a request; its slot has no other one under way."""
        self._waiting.append(request)

    def poll(self, timeout: float) -> list[Answer]:
        """Write one token of every response under way, and return the responses that are done.

        Requests are taken in together once there is one for every `1 / ADMITTED_SHARE` responses under way, because a
        pass that reads prompts costs about as much for one as for several.
        """
        with self._sampling():
            return [Answer(slot, response) for slot, response in self._advance().items()]

    def drop(self) -> None:
        """Give up all that is under way, and all keys."""
        # Half a response may be written in a row, or half a prompt, and rows may have been about to move.
        self._rows = SlotRows(self._cache)
        self._cached = [()] * self._cache.num_rows
        self._waiting, self._running = [], self._new_decoding()

    @contextmanager
    def _sampling(self) -> Iterator[None]:
        """The model in evaluation mode, in the precision of training."""
        training = self.model.training
        try:
            if training:
                self.model.eval()
            with torch.inference_mode(), self.autocast(), sdpa_kernel(ATTENTION_KERNELS):
                yield
        except BaseException:
            self.drop()
            raise
        finally:
            if training:
                self.model.train()

    def _advance(self) -> dict[int, Response]:
        """One token for every response under way; those that are done, by slot."""
        running = self._running
        if self._waiting and len(self._waiting) >= ADMITTED_SHARE * len(running.slots):
            self._admit()
        done = running.sample()
        answers = {}
        for slot, (token_ids, log_probs) in done.items():
            # The last sampled token has not been run through the model.
            self._cached[slot] += tuple(token_ids[:-1])
            self._rows.lengths[slot] = len(self._cached[slot])
            answers[slot] = Response(tuple(token_ids), tuple(log_probs))
        if running.slots:
            known = running.lengths - 1
            running.logits = self._forward(
                running.tokens[:, None],
                slice(running.first, running.first + len(running.slots)),
                known,
                width=running.width,
                last=known,
                keep=1,
            )[:, 0].float()
        return answers

    def _admit(self) -> None:
        """Take in all requests that wait."""
        started = time.perf_counter()
        requests, self._waiting = self._waiting, []
        slots = [request.slot for request in requests]
        if max(slots) >= len(self._cached):
            raise ValueError(
                f"The policy has {len(self._cached)} slots and is asked for slot {max(slots)}. Make it with "
                "num_slots=pool.num_slots."
            )
        first = self._running.place(slots)
        logits = self._read_prompts(requests, first)
        for request in requests:
            self._cached[request.slot] = request.prompt_ids
        order = self._rows.slot_at[first : first + len(slots)]
        noise = self._noise(requests)
        draws = torch.from_numpy(np.stack([noise[slot] for slot in order])).to(self.device)
        self._running.add(order, logits, draws)
        self.prefill_seconds += time.perf_counter() - started

    def _read_prompts(self, requests: Sequence[Request], first: int) -> Tensor:
        """Run what is new of the prompts; (B, vocabulary) logits after them, in the order of the rows."""
        slots = [request.slot for request in requests]
        prompts = [request.prompt_ids for request in requests]
        known = [known_tokens(self._cached[slot], prompt) for slot, prompt in zip(slots, prompts, strict=True)]
        loans = find_loans(slots, prompts, known, self._cached)
        known = [loan.length if loan else own for loan, own in zip(loans, known, strict=True)]
        new = {slot: (prompt[own:], own) for slot, prompt, own in zip(slots, prompts, known, strict=True)}
        borrowers = [(loan, slot) for loan, slot in zip(loans, slots, strict=True) if loan]

        passes: list[tuple[int, list[int]]] = []
        depth_of = {slot: loan.depth for loan, slot in borrowers}
        for depth in sorted({depth_of.get(slot, 0) for slot in slots}):
            members = [slot for slot in slots if depth_of.get(slot, 0) == depth]
            passes += [(depth, group) for group in split_by_length(members, [len(new[slot][0]) for slot in members])]
        self._rows.arrange(first, [group for _, group in passes])
        logits, lent, row = [], -1, first
        for depth, group in passes:
            if depth > lent:
                # Before anything is written of this depth: a context in the cache may be cut back by its own prompt.
                self._lend([(loan, slot) for loan, slot in borrowers if loan.depth == depth])
                lent = depth
            logits.append(self._run_new([new[slot] for slot in self._rows.slot_at[row : row + len(group)]], row))
            row += len(group)
        for slot, prompt in zip(slots, prompts, strict=True):
            self._rows.lengths[slot] = len(prompt)
        return torch.cat(logits)

    def _lend(self, loans: Sequence[tuple[Loan, int]]) -> None:
        """Copy beginnings of contexts to the slots that borrow them."""
        if loans:
            row_of = self._rows.row_of
            sources, targets = [row_of[loan.slot] for loan, _ in loans], [row_of[slot] for _, slot in loans]
            # Columns behind a loan's own length are overwritten or never looked at.
            self._cache.move(sources, targets, max(loan.length for loan, _ in loans))

    def _run_new(self, rows: Sequence[tuple[Tokens, int]], first: int) -> Tensor:
        """(B, vocabulary) logits after the new tokens of adjacent rows, each behind as many as its row knows."""
        counts = [len(tokens) for tokens, _ in rows]
        new, known = max(counts), [own for _, own in rows]
        inputs = torch.tensor([[*tokens, *[self.pad_token_id] * (new - len(tokens))] for tokens, _ in rows])
        # Only at these places does the model compute logits.
        places = sorted({count - 1 for count in counts})
        logits = self._forward(
            inputs.to(self.device),
            slice(first, first + len(rows)),
            torch.tensor(known, device=self.device),
            width=max(known) + new,
            last=torch.tensor([own + count - 1 for count, own in zip(counts, known, strict=True)], device=self.device),
            keep=torch.tensor(places, device=self.device),
        )
        chosen = torch.tensor([places.index(count - 1) for count in counts], device=self.device)
        return logits[torch.arange(len(rows), device=self.device), chosen].float()

    def _forward(
        self, inputs: Tensor, rows: slice, lengths: Tensor, *, width: int, last: Tensor, keep: Tensor | int
    ) -> Tensor:
        """Run (B, n) tokens; positions after `last` (B,) are padding's. (B, kept, vocabulary) logits."""
        columns, mask = self._cache.address(rows, lengths, inputs.shape[1], width)
        return self.model(
            input_ids=inputs,
            attention_mask=mask,
            # A table of learned positions ends where the longest context does.
            position_ids=torch.minimum(columns, last[:, None]),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
            **self._silenced,
        ).logits

    def _noise(self, requests: Sequence[Request]) -> dict[int, npt.NDArray[np.float64]]:
        """By slot, a uniform number for every token that may be sampled; greedy responses need none."""
        streams = []
        for request in requests:
            # Requests that name no stream get one of their own, each another.
            self._num_unnamed += request.stream is None
            streams.append(request.stream or (-1, self._num_unnamed))
        count = self.max_response_tokens if self.temperature else 0
        noise = uniforms(self.seed, streams, count)
        return {request.slot: numbers for request, numbers in zip(requests, noise, strict=True)}


class BackendPolicy:
    """A back-end that samples for whole prompts, such as TRL's vLLM engine.

    Its log-probabilities are those of another engine: the trainer computes them with its own weights and precision,
    where ratios must start at 1, and corrects the difference with these where it is asked to.

    Args:
        generate: from prompts to sampled ids, both lists of token id lists, and the log-probability of each token or
            None.
        stop_token_ids: tokens that end a response. The engine need not know them: what it has written behind the first
            is cut off, which leaves what it would have sampled if it had stopped there.
    """

    needs_expert = False

    def __init__(
        self,
        generate: Callable[[list[list[int]]], tuple[list[list[int]], list[list[float]] | None]],
        stop_token_ids: Sequence[int],
    ) -> None:
        self.generate, self._stops = generate, frozenset(stop_token_ids)

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """One sampled response per request, in order."""
        sampled, log_probs = self.generate([list(request.prompt_ids) for request in requests])
        lengths = [next((n for n, token in enumerate(ids, 1) if token in self._stops), len(ids)) for ids in sampled]
        if log_probs is None:
            return [Response(tuple(ids[:n])) for ids, n in zip(sampled, lengths, strict=True)]
        return [
            Response(tuple(ids[:n]), tuple(found[:n]))
            for ids, found, n in zip(sampled, log_probs, lengths, strict=True)
        ]
