"""The responses under way: a token at a time for all of them, in adjacent rows of the cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steppo_gym.trainers.policy.slots import SlotRows

Sampled = tuple[list[int], list[float]]
"""Token ids and their log-probabilities."""


class Decoding:
    """Which responses are under way, how far they are, and what the model said last.

    Args:
        rows: of the cache.
        stops: (vocabulary,) bool, tokens that end a response.
        max_tokens: a response is cut here.
        temperature: of the softmax; 0 takes the likeliest token.
    """

    def __init__(self, rows: SlotRows, stops: Tensor, max_tokens: int, temperature: float) -> None:
        self._rows, self._stops, self._max_tokens, self._temperature = rows, stops, max_tokens, temperature
        self.first = 0
        """Row of the first response; the others follow without a gap."""
        self.slots: list[int] = []
        """In the order of the rows."""
        device = stops.device
        self.logits = torch.zeros(0, len(stops), device=device)
        """(B, vocabulary) float32, of the next token."""
        self.tokens = torch.zeros(0, dtype=torch.long, device=device)
        """(B,) sampled last."""
        self.lengths = torch.zeros(0, dtype=torch.long, device=device)
        """(B,) of the context, with what was sampled."""
        self._longest = dict[int, int]()
        """By slot, the same."""
        self._slot_of = torch.zeros(0, dtype=torch.long, device=device)
        self._counts = torch.zeros(0, 1, dtype=torch.long, device=device)
        self._draws = torch.zeros(0, max_tokens, dtype=torch.float64, device=device)
        # By slot, read when a response is done: each reading waits for the device.
        self._token_ids = torch.zeros(rows.cache.num_rows, max_tokens, dtype=torch.long, device=device)
        self._log_probs = torch.zeros(rows.cache.num_rows, max_tokens, device=device)

    @property
    def width(self) -> int:
        """Columns of the longest context, with what was sampled."""
        return max(self._longest.values())

    def place(self, slots: Sequence[int]) -> int:
        """Make room for the prompts of slots behind what is under way, and return the first of their rows."""
        if not self.slots:
            self.first = self._rows.gather(slots)
            return self.first
        self._note_lengths()
        if self.first + len(self.slots) + len(slots) > len(self._rows.slot_at):
            # One group a slot keeps their order.
            self._rows.arrange(0, [[slot] for slot in self.slots])
            self.first = 0
        first = self.first + len(self.slots)
        self._rows.arrange(first, [slots])
        return first

    def add(self, slots: Sequence[int], logits: Tensor, draws: Tensor) -> None:
        """Begin responses in the rows behind those under way.

        Args:
            slots: N, in the order of the rows; their prompts have been read.
            logits: (N, vocabulary) float32 after the prompts.
            draws: (N, max_tokens) float64 in [0, 1), one for every token that may be sampled; (N, 0) if greedy.
        """
        device = self.logits.device
        lengths = [self._rows.lengths[slot] for slot in slots]
        self._longest |= zip(slots, lengths, strict=True)
        fresh = torch.zeros(len(slots), dtype=torch.long, device=device)
        if self.slots:
            self.logits = torch.cat([self.logits, logits])
            self.tokens = torch.cat([self.tokens, fresh])
            self.lengths = torch.cat([self.lengths, torch.tensor(lengths, device=device)])
            self._counts = torch.cat([self._counts, fresh[:, None]])
            self._draws = torch.cat([self._draws, draws])
            self._slot_of = torch.cat([self._slot_of, torch.tensor(slots, device=device)])
        else:
            self.logits, self.tokens, self.lengths = logits, fresh, torch.tensor(lengths, device=device)
            self._counts, self._draws, self._slot_of = fresh[:, None], draws, torch.tensor(slots, device=device)
        self.slots = [*self.slots, *slots]

    def sample(self) -> dict[int, Sampled]:
        """Sample a token of every response; those that are done leave, by slot."""
        if not self.slots:
            return {}
        tokens, log_probs = self._sample()
        at = self._slot_of, self._counts[:, 0]
        self._token_ids[at], self._log_probs[at] = tokens, log_probs
        self._counts = self._counts + 1
        self.tokens, self.lengths = tokens, self.lengths + 1
        for slot in self.slots:
            self._longest[slot] += 1
        over = (self._stops[tokens] | (self._counts[:, 0] == self._max_tokens)).tolist()
        return self._leave(over) if any(over) else {}

    def _leave(self, over: Sequence[bool]) -> dict[int, Sampled]:
        gone = [place for place, is_over in enumerate(over) if is_over]
        slots = [self.slots[place] for place in gone]
        counts = self._counts[gone, 0].tolist()
        token_ids, log_probs = self._token_ids[slots].tolist(), self._log_probs[slots].tolist()
        self._note_lengths()
        kept = self._rows.drop(self.first, over)
        self.slots = [self.slots[place] for place in kept]
        self.tokens, self.lengths = self.tokens[kept], self.lengths[kept]
        self._counts, self._draws, self._slot_of = self._counts[kept], self._draws[kept], self._slot_of[kept]
        for slot in slots:
            del self._longest[slot]
        return {
            slot: (ids[:count], logs[:count])
            for slot, ids, logs, count in zip(slots, token_ids, log_probs, counts, strict=True)
        }

    def _note_lengths(self) -> None:
        """Say how many columns of each row move with it."""
        for slot in self.slots:
            self._rows.lengths[slot] = self._longest[slot]

    def _sample(self) -> tuple[Tensor, Tensor]:
        """Tokens (B,) and their log-probabilities, by inverting the cumulative distribution at the draws."""
        log_probs = torch.log_softmax(self.logits / (self._temperature or 1.0), dim=-1)
        if self._temperature == 0:
            tokens = log_probs.argmax(dim=-1, keepdim=True)
        else:
            # In float64, in which the many small probabilities of a large vocabulary add up.
            cumulative = log_probs.exp().cumsum(dim=-1, dtype=torch.float64)
            draws = self._draws.gather(1, self._counts)
            # The first token whose sum is above the draw, so never one of probability 0.
            tokens = torch.searchsorted(cumulative, draws * cumulative[:, -1:], right=True)
            tokens = tokens.clamp_(max=self.logits.shape[-1] - 1)
        return tokens.squeeze(1), log_probs.gather(1, tokens).squeeze(1)
