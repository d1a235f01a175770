"""Rows: from episodes to the tensors of a forward pass.

A row is one token sequence for the models. In an append-only context each prompt extends the one before it with its
response, so a whole episode is one row and every token is read once; where prompts are rebuilt, each step is a row of
its own. Attention is causal, so both give the same log-probabilities and values.

Numbering. Steps are numbered over all episodes, response tokens over all steps, in order: per-step and per-token arrays
of `steppo_gym.credit.advantages` are indexed with these numbers. Values are numbered likewise: the value of step k is
k, that of the state in which episode e was truncated is num_steps + e; terminated episodes leave theirs unused, and
`scatter_to` fills it with 0, which is what it is.

Alignment. Everything stands where its token stands. The logits at a position predict the next token, so
log-probabilities of `input_ids[:, 1:]` go with `step_index[:, 1:]`, `token_index[:, 1:]` and `old_log_probs[:, 1:]`.
The value of a state is the critic's output at the last token of its prompt, so `values` go with `value_index`, and
values before each response token are `values[:, :-1]` with `token_index[:, 1:]`.

    rows = build_rows(episodes)
    batches = [collate(batch, pad_id) for batch in token_budget_batches(rows, 8192)]
    values = scatter_to(((critic(batch), batch["value_index"]) for batch in batches), num_steps + len(episodes))
    advantages, returns = step_advantages(rewards, values[:num_steps], values[num_steps:], ...)
    policy_loss(..., advantages=gather_from(advantages, batch["step_index"])[:, 1:], ...)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from steppo_gym.rollouts.episode import Episode

ABSENT = -1
"""Where an index does not apply."""


@dataclass(frozen=True, eq=False)
class Row:
    """One token sequence of T tokens and what its tokens are."""

    token_ids: npt.NDArray[np.int64]
    """(T,)"""
    step_index: npt.NDArray[np.int64]
    """(T,) number of the step whose response the token belongs to, -1 for tokens of the prompt and the environment."""
    token_index: npt.NDArray[np.int64]
    """(T,) number of the response token, -1 for all others."""
    value_index: npt.NDArray[np.int64]
    """(T,) at the last prompt token of a state, the number of its value; -1 elsewhere."""
    old_log_probs: npt.NDArray[np.float32] | None
    """(T,) log-probability of response tokens when they were sampled, 0 elsewhere; None if it is not known."""

    def __len__(self) -> int:
        return len(self.token_ids)


class _Piece(NamedTuple):
    """A prompt and its response; the final state of a truncated episode has no response."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    log_probs: tuple[float, ...] | None
    value_number: int
    step_number: int
    first_token_number: int


@dataclass
class _Draft:
    """A row that may still grow."""

    ids: tuple[int, ...] = ()
    step_index: list[int] = field(default_factory=list)
    token_index: list[int] = field(default_factory=list)
    value_index: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)

    def add(self, piece: _Piece) -> None:
        """Append what of the piece is new."""
        num_new, num_response = len(piece.prompt_ids) - len(self.ids), len(piece.response_ids)
        self.ids = piece.prompt_ids + piece.response_ids
        self.step_index += [ABSENT] * num_new + [piece.step_number] * num_response
        first = piece.first_token_number
        self.token_index += [ABSENT] * num_new + list(range(first, first + num_response))
        self.value_index += [ABSENT] * (num_new + num_response)
        self.value_index[len(piece.prompt_ids) - 1] = piece.value_number
        self.log_probs += [0.0] * num_new + list(piece.log_probs or [0.0] * num_response)

    def row(self, has_log_probs: bool) -> Row:
        """The finished row."""
        return Row(
            token_ids=np.array(self.ids, np.int64),
            step_index=np.array(self.step_index, np.int64),
            token_index=np.array(self.token_index, np.int64),
            value_index=np.array(self.value_index, np.int64),
            old_log_probs=np.array(self.log_probs, np.float32) if has_log_probs else None,
        )


def build_rows(episodes: Iterable[Episode], *, max_tokens: int | None = None, final_prompts: bool = True) -> list[Row]:
    """Rows of all steps, in order, merging a step into the row before it if its prompt starts with all of that row.

    The prompt of the state in which an episode was truncated extends the last row in the same way; if it does not fit
    there, it is a row of its own without trained tokens. It alone may be longer than `max_tokens` (that may be why the
    episode was truncated) and then loses its first tokens.

    Args:
        episodes: terminated or truncated.
        max_tokens: the most tokens a step may have, and with it a row; None for no limit.
        final_prompts: whether the prompts of the states in which episodes were truncated are needed, which only a
            critic reads.

    Returns:
        The rows. Every step is in exactly one of them.

    Raises:
        ValueError: an episode failed, a prompt or response is empty, a step is longer than `max_tokens`, or only some
            of the steps have log-probabilities.
    """
    episodes = tuple(episodes)
    has_log_probs = {step.log_probs is not None for episode in episodes for step in episode.steps}
    if len(has_log_probs) > 1:
        raise ValueError("Either all steps or none must have log_probs, got some of both.")
    rows = []
    first_step, first_token = 0, 0
    final_value = sum(episode.num_steps for episode in episodes)
    for number, episode in enumerate(episodes):
        if episode.ended == "failed":
            raise ValueError(f"Episode {number} failed; leave failed episodes out.")
        pieces = _pieces(episode, first_step, first_token, final_value + number, max_tokens)
        kept = (piece for piece in pieces if final_prompts or piece.response_ids)
        rows += [draft.row(has_log_probs == {True}) for draft in _merge(kept)]
        first_step += episode.num_steps
        first_token += sum(len(step.response_ids) for step in episode.steps)
    return rows


def _pieces(
    episode: Episode, step_number: int, token_number: int, final_value: int, max_tokens: int | None
) -> Iterator[_Piece]:
    for step in episode.steps:
        size = len(step.prompt_ids) + len(step.response_ids)
        if not step.prompt_ids or not step.response_ids:
            raise ValueError(f"Step {step_number} needs a prompt and a response of at least one token, one is empty.")
        if max_tokens is not None and size > max_tokens:
            raise ValueError(f"Step {step_number} has {size} tokens, max_tokens is {max_tokens}. Shorten the prompts.")
        yield _Piece(step.prompt_ids, step.response_ids, step.log_probs, step_number, step_number, token_number)
        step_number += 1
        token_number += len(step.response_ids)
    if episode.steps and episode.final_prompt_ids is not None:
        if not episode.final_prompt_ids:
            raise ValueError(f"The final prompt after step {step_number - 1} is empty.")
        cut = episode.final_prompt_ids if max_tokens is None else episode.final_prompt_ids[-max_tokens:]
        yield _Piece(cut, (), (), final_value, ABSENT, token_number)


def _merge(pieces: Iterable[_Piece]) -> list[_Draft]:
    drafts: list[_Draft] = []
    for piece in pieces:
        if not drafts or piece.prompt_ids[: len(drafts[-1].ids)] != drafts[-1].ids:
            drafts.append(_Draft())
        drafts[-1].add(piece)
    return drafts


def collate(rows: Sequence[Row], pad_id: int) -> dict[str, Tensor]:
    """Pad rows on the right into tensors.

    Args:
        rows: B rows.
        pad_id: token id of padding.

    Returns:
        "input_ids", "attention_mask" (1 = token, 0 = padding), "step_index", "token_index", "value_index": (B, T)
        int64, the indices -1 on padding. "old_log_probs": (B, T) float32, 0 on padding; missing if the rows have none.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("collate needs at least one row, got none.")
    batch = {
        "input_ids": _pad([row.token_ids for row in rows], pad_id),
        "attention_mask": _pad([np.ones_like(row.token_ids) for row in rows], 0),
        "step_index": _pad([row.step_index for row in rows], ABSENT),
        "token_index": _pad([row.token_index for row in rows], ABSENT),
        "value_index": _pad([row.value_index for row in rows], ABSENT),
    }
    log_probs = [row.old_log_probs for row in rows if row.old_log_probs is not None]
    if len(log_probs) == len(rows):
        batch["old_log_probs"] = _pad(log_probs, 0.0)
    return batch


def _pad(arrays: Sequence[npt.NDArray[Any]], fill: float) -> Tensor:
    padded = np.full((len(arrays), max(len(x) for x in arrays)), fill, arrays[0].dtype)
    for line, x in zip(padded, arrays, strict=True):
        line[: len(x)] = x
    return torch.from_numpy(padded)


def token_budget_batches(rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Micro-batches of rows of similar length whose padded size, rows x longest row, is at most `budget` tokens.

    Longest rows come first, so that too large a budget runs out of memory at once. A row that is longer than the budget
    is alone.

    Args:
        rows: any order; equal lengths keep theirs.
        budget: tokens, at least 1.

    Returns:
        Every row exactly once.

    Raises:
        ValueError: the budget is not positive.
    """
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, got {budget}.")
    batches: list[list[Row]] = []
    for row in sorted(rows, key=len, reverse=True):
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def padding_share(batches: Iterable[Sequence[Row]]) -> float:
    """Share of padding in the tensors that these micro-batches make, from 0.0 to 1.0."""
    sizes = [(sum(len(row) for row in batch), len(batch) * max(len(row) for row in batch)) for batch in batches]
    tokens, slots = (sum(column) for column in zip(*sizes, strict=True)) if sizes else (0, 0)
    return 1.0 - tokens / slots if slots else 0.0


def gather_from(flat: npt.ArrayLike | Tensor, index: Tensor) -> Tensor:
    """Put numbered entries where their index stands: advantages of steps onto tokens, returns onto value positions.

    Args:
        flat: (N,) float.
        index: (B, T) int64 from 0 to N - 1, or -1.

    Returns:
        (B, T) float32 on the device of `index`, 0 where the index is -1.
    """
    table = torch.as_tensor(flat, dtype=torch.float32, device=index.device)
    if not len(table):  # every episode has failed
        return torch.zeros(index.shape, device=index.device)
    return torch.where(index == ABSENT, 0.0, table[index.clamp(min=0)])


def scatter_to(parts: Iterable[tuple[Tensor, Tensor]], size: int) -> npt.NDArray[np.float64]:
    """The inverse of `gather_from`, over micro-batches: read the entry at each index into a flat array.

    Args:
        parts: pairs of (B, T) float and (B, T) int64 index; entries at -1 are not read.
        size: N.

    Returns:
        (N,) float64 on the CPU, 0 for numbers that stand nowhere.

    Raises:
        ValueError: shapes of a pair differ.
    """
    flat = np.zeros(size)
    for x, index in parts:
        if x.shape != index.shape:
            raise ValueError(f"Expected equal shapes, got {tuple(x.shape)} and index {tuple(index.shape)}.")
        chosen = index != ABSENT
        flat[index[chosen].cpu().numpy()] = x.detach()[chosen].cpu().double().numpy()
    return flat
