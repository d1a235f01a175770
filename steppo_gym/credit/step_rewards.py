"""Credit from rewards that come with every step, compared at equal places of the episodes. Pure numpy, float64."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.groups import group_advantages
from steppo_gym.credit.ragged import (
    Array,
    checked_lengths,
    episode_of,
    index_in_episode,
    last_decisions,
    numbered,
    one_per,
    ragged_returns,
    same_shape,
)


def mt_grpo_advantages(
    rewards: npt.ArrayLike,
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    alpha: float = 1.0,
    unbiased: bool = False,
    normalize_std: bool = True,
) -> Array:
    """MT-GRPO: intermediate rewards and the outcome, each relative to the group (arXiv:2505.11821).

    The reward of an episode's last step K is its outcome O, those of the steps before are intermediate rewards r_k. As
    published, A_k = sum over l = k .. K-1 of alpha^(l-k) A_l + alpha^(K-k) A_O, where A_l compares r_l with all
    intermediate rewards at step l of the group, and A_O compares outcomes. The paper's episodes all
    have the same K.

    Where the policy chooses when to stop, that is biased (github.com/verl-project/verl/issues/7244): every further step
    takes off one more mean, so that going on is credited with its reward minus the average, when it should be credited
    with the reward. `unbiased` compares what is still to come: with S_k = sum over l = k .. K-1 of alpha^(l-k) r_l, A_k
    is S_k relative to the S_k of all episodes of the group that have a step k, plus alpha^(K-k) O likewise. What is
    taken off at step k then does not depend on what the episode does from there on (but for its own share in the mean,
    as in GRPO). This is our own correction; the one that the issue announces could not be read.

    Args:
        rewards: (N,) float, reward of each step.
        group_ids: (E,) hashable, the group of each episode.
        steps_per_episode: (E,) int, sums to N.
        alpha: weight of a step further on, per step.
        unbiased: the correction; False is as published.
        normalize_std: divide by the standard deviations of what is compared.

    Returns:
        (N,) float. A term is 0 where there is nothing to compare with.

    Raises:
        ValueError: the shapes do not fit together.
    """
    (rewards,) = same_shape(rewards=rewards)
    lengths = checked_lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    one_per("episode", len(lengths), group_ids=group_ids)
    group = numbered(group_ids)[episode_of(lengths)].tolist()
    lasts = last_decisions(lengths)
    is_last = np.zeros(len(rewards), bool)
    is_last[lasts] = True
    intermediate, outcome = np.where(is_last, 0.0, rewards), np.where(is_last, rewards, 0.0)

    def relative(x: Array, groups: Sequence[Hashable]) -> Array:
        return group_advantages(x, groups, normalize_std=normalize_std)

    if unbiased:
        place = list(zip(group, index_in_episode(lengths).tolist(), strict=True))
        to_come = (ragged_returns(part, lengths, alpha) for part in (intermediate, outcome))
        return sum((relative(part, place) for part in to_come), np.zeros(len(rewards)))
    # Outcomes are compared with outcomes, wherever they stand; an intermediate reward with those of the same step.
    place = [
        (g, -1 if last else k) for g, k, last in zip(group, index_in_episode(lengths).tolist(), is_last, strict=True)
    ]
    return ragged_returns(relative(rewards, place), lengths, alpha)
