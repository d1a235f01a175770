"""What an iteration hands to its updates: rows, credit, and the log-probabilities the ratios start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steppo_gym.episode import Episode
from steppo_gym.rows import ABSENT, Row
from steppo_gym.trainers.credit import Credit

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """The rows of some of the episodes: what one call of `training_step` works on."""

    rows: tuple[Row, ...]
    """May be empty: every episode of the slice has failed."""
    num_steps: int
    num_tokens: int
    """Response tokens."""


@dataclass(frozen=True)
class Iteration:
    """Everything the updates of one iteration need. Arrays are numbered as in `steppo_gym.rows`."""

    slices: tuple[Slice, ...]
    credit: Credit
    old_log_probs: Array
    """(M,) of each response token under the policy that sampled it."""
    reference_log_probs: Array | None = None
    """(M,) under the reference model, when the loss has a KL term."""


def split_rows(episodes: Sequence[Episode], rows: Sequence[Row], num_slices: int, seed: int) -> tuple[Slice, ...]:
    """Deal whole episodes to slices in random order; sizes differ by at most one episode.

    Args:
        episodes: those the rows were built from.
        rows: of `build_rows`; rows without trained tokens are left out.
        num_slices: how many.
        seed: of the order.
    """
    order = np.random.default_rng(seed).permutation(len(episodes))
    slice_of_episode = np.empty(len(episodes), np.int64)
    slice_of_episode[order] = np.arange(len(episodes)) % num_slices
    episode_of_step = np.repeat(np.arange(len(episodes)), [episode.num_steps for episode in episodes])
    dealt: list[list[Row]] = [[] for _ in range(num_slices)]
    for row in rows:
        steps = row.step_index[row.step_index != ABSENT]
        if len(steps):
            dealt[slice_of_episode[episode_of_step[steps[0]]]].append(row)
    return tuple(
        Slice(
            tuple(part),
            num_steps=sum(len(np.unique(row.step_index[row.step_index != ABSENT])) for row in part),
            num_tokens=sum(int((row.token_index != ABSENT).sum()) for row in part),
        )
        for part in dealt
    )


def sampled_log_probs(episodes: Sequence[Episode]) -> Array | None:
    """(M,) log-probabilities as sampled, None if the policy did not give them."""
    steps = [step for episode in episodes for step in episode.steps]
    if any(step.log_probs is None for step in steps):
        return None
    return np.array([log_prob for step in steps for log_prob in step.log_probs or ()], np.float64)


def padding_row(pad_token_id: int) -> Row:
    """A row on which nothing is trained, for a process without episodes: the others wait for its backward pass."""
    nothing = np.full(2, ABSENT, np.int64)
    return Row(np.full(2, pad_token_id, np.int64), nothing, nothing, nothing, None)
