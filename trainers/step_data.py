"""What an iteration hands to its updates: rows, credit, and the log-probabilities the ratios start from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.records import Credit
from steppo_gym.credit.rows import ABSENT, Row
from steppo_gym.credit.whitening import Moments
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.rollout import Assignment
from steppo_gym.trainers.credit_file import TokenTrace

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Slice:
    """The rows of some of the episodes: what one call of `training_step` works on."""

    rows: tuple[Row, ...]
    """May be empty: every episode of the slice has failed."""
    num_episodes: int
    """Those with steps."""
    num_steps: int
    num_tokens: int
    """Response tokens."""


@dataclass(frozen=True)
class Iteration:
    """Everything the updates of one iteration need. Arrays are numbered as in `steppo_gym.credit.rows`."""

    slices: tuple[Slice, ...]
    credit: Credit
    """With advantages as they enter the loss."""
    raw_advantages: Moments
    """Count, mean and spread of the advantages as the formula gave them, over all processes."""
    weighted_advantages: Array
    """(M,) the advantage of each response token times the weight of its term in the policy loss."""
    kl_weights: Array
    """(M,) the weight of each response token in the KL term."""
    old_log_probs: Array
    """(M,) of each response token under the policy before the updates, which the ratios start from."""
    reference_log_probs: Array | None = None
    """(M,) under the reference model, when there is a KL term."""
    trains_policy: bool = True
    """False while only the critic learns."""
    trace: TokenTrace | None = None
    """Where the losses leave what they find, when it is recorded."""
    reward_scale: float = 1.0
    """The largest absolute reward of a step, over all processes, at least 1: the unit of `value_clip_range`."""


def assignments(task_ids: Sequence[str], group_size: int, seed: int) -> list[Assignment]:
    """Episodes of one task, `group_size` each, stand side by side and start from the same state."""
    return [
        Assignment(task, (seed + position // group_size) % 2**31, position // group_size)
        for position, task in enumerate(task_ids)
    ]


def split_rows(episodes: Sequence[Episode], rows: Sequence[Row], num_slices: int, seed: int) -> tuple[Slice, ...]:
    """Deal whole episodes, with their rows, to slices in random order; sizes differ by at most one episode.

    Rows without trained tokens are left out.
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
            num_episodes=len({int(episode_of_step[row.step_index.max()]) for row in part}),
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


def largest_reward(episodes: Sequence[Episode]) -> float:
    """The largest absolute reward of a step, 0 if there are none."""
    return max((abs(step.reward) for episode in episodes for step in episode.steps), default=0.0)


def padding_row(pad_token_id: int) -> Row:
    """A row on which nothing is trained, for a process without episodes: the others wait for its backward pass."""
    nothing = np.full(2, ABSENT, np.int64)
    return Row(np.full(2, pad_token_id, np.int64), nothing, nothing, nothing, None)
