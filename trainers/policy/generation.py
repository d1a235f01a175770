"""The trainer's own model as a policy: sampling that keeps each slot's key-value cache from one step to the next.

Only tokens the model has not seen yet are run: in the append context the environment's answer, in the rebuilt context
what follows the common beginning of two prompts. Log-probabilities are those of the tempered distribution the tokens
were drawn from; in float32 they equal those of a training forward to about 1e-5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.trainers.policy.model_limits import check_model
from steppo_gym.trainers.policy.prefill import Loan, Tokens, find_loans, known_tokens, split_by_length
from steppo_gym.trainers.policy.slot_cache import SlotCache
from steppo_gym.trainers.policy.slots import SlotRows
from steppo_gym.trainers.policy.streams import uniforms

ATTENTION_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which plans anew for every width of the keys, and these widen with every token: with 1.7 billion
parameters in bfloat16 and 64 slots on an H200, a token took 198 ms with it and 32 ms without.
"""


class ModelPolicy:
    """Samples responses from a causal language model, through the model's own forward pass.

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
        if temperature < 0:
            raise ValueError(f"temperature must be at least 0, got {temperature}.")
        # Adapters live inside the base model's layers, so the base model of a PEFT model generates with them.
        self.model: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
        check_model(self.model)
        self.pad_token_id, self.max_response_tokens, self.temperature = pad_token_id, max_response_tokens, temperature
        self.device, self.autocast = self.model.device, autocast
        self.seed, self._num_unnamed = seed, 0
        # With entries that no token has, in case the vocabulary is larger than the tokenizer's.
        self._stops = torch.zeros(self.model.get_output_embeddings().weight.shape[0], dtype=torch.bool)
        self._stops[list(stop_token_ids)] = True
        self._stops = self._stops.to(self.device)
        num_layers = self.model.config.get_text_config().num_hidden_layers
        self._cache = SlotCache(num_layers, num_slots, self.device, self.model.dtype)
        self._rows = SlotRows(self._cache)
        self._cached: list[Tokens] = [()] * num_slots

    @torch.inference_mode()
    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """One sampled response per request, in order; no two of one slot."""
        training = self.model.training
        self.model.eval()
        try:
            with self.autocast(), sdpa_kernel(ATTENTION_KERNELS):
                return self._respond(requests)
        finally:
            self.model.train(training)

    def _respond(self, requests: Sequence[Request]) -> list[Response]:
        first = self._rows.gather([request.slot for request in requests])
        logits = self._read_prompts(requests, first)
        sampled = self._sample_responses(first, logits, self._noise(requests))
        responses = []
        for request in requests:
            token_ids, log_probs = sampled[request.slot]
            # The last sampled token has not been run through the model.
            self._cached[request.slot] = request.prompt_ids + tuple(token_ids[:-1])
            self._rows.lengths[request.slot] = len(self._cached[request.slot])
            responses.append(Response(tuple(token_ids), tuple(log_probs)))
        return responses

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

    def _sample_responses(
        self, first: int, logits: Tensor, noise: Mapping[int, npt.NDArray[np.float64]]
    ) -> dict[int, tuple[list[int], list[float]]]:
        """By slot, the tokens sampled and their log-probabilities; the logits are those of the rows from `first` on."""
        slots = self._rows.slot_at[first : first + len(logits)]
        draws = torch.from_numpy(np.stack([noise[slot] for slot in slots])).to(self.device)
        prompt_lengths = {slot: self._rows.lengths[slot] for slot in slots}
        lengths = torch.tensor([prompt_lengths[slot] for slot in slots], device=self.device)
        longest = max(prompt_lengths.values())
        # Read once, at the end: each reading would wait for the device.
        written: list[tuple[list[int], Tensor, Tensor]] = []
        for number in range(self.max_response_tokens):
            tokens, log_probs = self._sample(logits, draws[:, number : number + 1])
            written.append((slots, tokens, log_probs))
            stopped = self._stops[tokens].tolist()
            if any(stopped):
                for slot in slots:
                    self._rows.lengths[slot] = prompt_lengths[slot] + number
                kept = self._rows.drop(first, stopped)
                tokens, lengths, draws = tokens[kept], lengths[kept], draws[kept]
                slots = self._rows.slot_at[first : first + len(kept)]
                longest = max((prompt_lengths[slot] for slot in slots), default=0)
            if not slots or number + 1 == self.max_response_tokens:
                break
            rows, width = slice(first, first + len(slots)), longest + number + 1
            logits = self._forward(tokens[:, None], rows, lengths, width=width, last=lengths, keep=1)[:, 0].float()
            lengths = lengths + 1
        return _by_slot(written)

    def _sample(self, logits: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B,) and their log-probabilities, by inverting the cumulative distribution at `draws` (B, 1)."""
        log_probs = torch.log_softmax(logits / (self.temperature or 1.0), dim=-1)
        if self.temperature == 0:
            tokens = log_probs.argmax(dim=-1, keepdim=True)
        else:
            # In float64, in which the many small probabilities of a large vocabulary add up.
            cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
            # The first token whose sum is above the draw, so never one of probability 0.
            tokens = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
            tokens = tokens.clamp_(max=logits.shape[-1] - 1)
        return tokens.squeeze(1), log_probs.gather(1, tokens).squeeze(1)


class BackendPolicy:
    """A back-end that samples for whole prompts, such as TRL's vLLM engine.

    Its log-probabilities are those of another engine: the trainer computes them with its own weights and precision,
    where ratios must start at 1, and corrects the difference with these where it is asked to.

    Args:
        generate: from prompts to sampled ids, both lists of token id lists, and the log-probability of each token or
            None.
    """

    needs_expert = False

    def __init__(self, generate: Callable[[list[list[int]]], tuple[list[list[int]], list[list[float]] | None]]) -> None:
        self.generate = generate

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """One sampled response per request, in order."""
        sampled, log_probs = self.generate([list(request.prompt_ids) for request in requests])
        if log_probs is None:
            return [Response(tuple(ids)) for ids in sampled]
        return [Response(tuple(ids), tuple(found)) for ids, found in zip(sampled, log_probs, strict=True)]


def _by_slot(written: Sequence[tuple[list[int], Tensor, Tensor]]) -> dict[int, tuple[list[int], list[float]]]:
    tokens = torch.cat([tokens for _, tokens, _ in written]).tolist()
    log_probs = torch.cat([log_probs for _, _, log_probs in written]).tolist()
    slots = [slot for slots, _, _ in written for slot in slots]
    sampled: dict[int, tuple[list[int], list[float]]] = {slot: ([], []) for slot in slots}
    for slot, token, log_prob in zip(slots, tokens, log_probs, strict=True):
        sampled[slot][0].append(token)
        sampled[slot][1].append(log_prob)
    return sampled
