"""Credit without a critic: episodes and steps compared with others of their group. Pure numpy, float64.

A group is the episodes of one task that started in the same state. Arrays are flat as in
`steppo_gym.credit.advantages`. Where there is nothing to compare with, credit is 0: in a group of one, and in a state
that was met once.

    advantages = gigpo_advantages(
        rewards, state_keys, group_ids=[0, 0, 1, 1], steps_per_episode=[3, 2, 5, 4], gamma=0.95
    )
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.ragged import (
    Array,
    Integers,
    checked_lengths,
    checked_steps,
    episode_of,
    mean_of_group,
    numbered,
    one_per,
    ragged_gae,
    ragged_returns,
    same_shape,
    sum_per_episode,
)


def group_advantages(
    returns: npt.ArrayLike, group_ids: Sequence[Hashable], *, normalize_std: bool = True, eps: float = 1e-6
) -> Array:
    """GRPO: return minus the group's mean, over the group's standard deviation (arXiv:2402.03300, section 4.1.2).

    The standard deviation is the unbiased one, as in common implementations. Deviation from those: a group of one has
    nothing to be compared with and gets 0, not its raw return.

    Args:
        returns: (E,) float.
        group_ids: (E,) hashable; equal ids are one group.
        normalize_std: divide by (standard deviation + eps); False is Dr. GRPO (arXiv:2503.20783).
        eps: keeps groups of nearly equal returns finite.

    Returns:
        (E,) float; exactly 0 in groups of one and in groups whose returns are all equal.

    Raises:
        ValueError: returns and group_ids differ in length.
    """
    (returns,) = same_shape(returns=returns)
    one_per("return", len(returns), group_ids=group_ids)
    group = numbered(group_ids)
    counts = np.bincount(group)
    centered = returns - mean_of_group(returns, group)
    centered[counts[group] == 1] = 0.0
    if not normalize_std:
        return centered
    variances = np.bincount(group, centered**2, len(counts)) / np.maximum(counts - 1, 1)
    return centered / (np.sqrt(variances) + eps)[group]


def rloo_advantages(returns: npt.ArrayLike, group_ids: Sequence[Hashable]) -> Array:
    """RLOO: return minus the mean of the others in the group (arXiv:2402.14740, section 3.3).

    Args:
        returns: (E,) float.
        group_ids: (E,) hashable; equal ids are one group.

    Returns:
        (E,) float; exactly 0 in groups of one and in groups whose returns are all equal.

    Raises:
        ValueError: returns and group_ids differ in length.
    """
    centered = group_advantages(returns, group_ids, normalize_std=False)
    group = numbered(group_ids)
    sizes = np.bincount(group)[group]
    # R - (sum - R) / (n - 1) = (R - mean) n / (n - 1)
    return centered * sizes / np.maximum(sizes - 1, 1)


def gigpo_advantages(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    omega: float = 1.0,
    normalize_std: bool = True,
) -> Array:
    """GiGPO: A = A_episode + omega * A_step (arXiv:2505.10978, episode and step relative advantages).

    A_episode compares the undiscounted return of the episode with those of its group, A_step the discounted return
    from a step on with those of all steps of the group that were taken in the same state, in any episode and at any
    time.

    Args:
        rewards: (N,) float, reward of each step.
        state_keys: (N,) hashable, equal exactly for equal states.
        group_ids: (E,) hashable, the group of each episode.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per step within A_step (0.95 in the paper).
        omega: weight of A_step (1 in the paper).
        normalize_std: divide both terms by their group's standard deviation; False is the paper's F_norm = 1.

    Returns:
        (N,) float. A term is 0 where its group has a single member.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rewards, lengths = checked_steps(rewards, state_keys, group_ids, steps_per_episode)
    totals = sum_per_episode(rewards, lengths)
    episode_term = group_advantages(totals, group_ids, normalize_std=normalize_std)
    (anchors,) = state_groups(state_keys, group_ids, steps_per_episode=steps_per_episode)
    step_returns = ragged_returns(rewards, lengths, gamma)
    step_term = group_advantages(step_returns, anchors.tolist(), normalize_std=normalize_std)
    return episode_term[episode_of(lengths)] + omega * step_term


def hgpo_advantages(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    history: int = 2,
    alpha: float = 1.0,
    normalize_std: bool = True,
) -> Array:
    """HGPO: step returns compared within nested groups of equal recent states (arXiv:2602.22817, eq. 3-8).

    Group k of a step holds the steps of its task group whose last k + 1 states are the same; group 0 is GiGPO's.
    A = sum over k of w_k A_k with w_k = (k + 1)^alpha / sum over l of (l + 1)^alpha. At level k, a step with fewer than
    k steps before it is compared with those whose history from the start of the episode on is the same. Levels at which
    a step is alone add nothing, and the weights of the others are not raised for it.

    Args:
        rewards: (N,) float, reward of each step.
        state_keys: (N,) hashable, equal exactly for equal states.
        group_ids: (E,) hashable, the group of each episode.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per step.
        history: K, the number of earlier states in the narrowest group (2 and 4 in the paper).
        alpha: how much more narrow groups count; 0 for all the same (1 in the paper).
        normalize_std: divide by the groups' standard deviations.

    Returns:
        (N,) float.

    Raises:
        ValueError: the shapes do not fit together, or history is negative.
    """
    rewards, lengths = checked_steps(rewards, state_keys, group_ids, steps_per_episode)
    step_returns = ragged_returns(rewards, lengths, gamma)
    weights = np.arange(1.0, history + 2.0) ** alpha
    levels = state_groups(state_keys, group_ids, steps_per_episode=steps_per_episode, history=history)
    advantages = np.zeros_like(rewards)
    for weight, level in zip(weights / weights.sum(), levels, strict=True):
        advantages += weight * group_advantages(step_returns, level.tolist(), normalize_std=normalize_std)
    return advantages


def gagpo_advantages(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    lam: float,
    normalize_std: bool = True,
) -> Array:
    """GAGPO: GAE over steps with the mean return of all visits of a state as its value (arXiv:2605.13217).

    V(s) is the mean discounted return of all steps of the task group that were taken in s; that of the final state is
    0, also in a truncated episode. The advantages are then normalized over all steps of the task group.

    Args:
        rewards: (N,) float, reward of each step.
        state_keys: (N,) hashable, equal exactly for equal states.
        group_ids: (E,) hashable, the group of each episode.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per step.
        lam: the lambda of GAE.
        normalize_std: divide by the standard deviation over the task group's steps; the mean is always taken off.

    Returns:
        (N,) float; exactly 0 in task groups of one episode, whose value proxies are its own returns.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rewards, lengths = checked_steps(rewards, state_keys, group_ids, steps_per_episode)
    (states,) = state_groups(state_keys, group_ids, steps_per_episode=steps_per_episode)
    values = mean_of_group(ragged_returns(rewards, lengths, gamma), states)
    advantages, _ = ragged_gae(rewards, values, np.zeros(len(lengths)), lengths, gamma, lam)
    group = numbered(group_ids)
    advantages[(np.bincount(group)[group] == 1)[episode_of(lengths)]] = 0.0
    return group_advantages(advantages, group[episode_of(lengths)].tolist(), normalize_std=normalize_std)


def state_groups(
    state_keys: Sequence[Hashable],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    history: int = 0,
) -> list[Integers]:
    """Which steps are compared with each other: those of a task group with equal states, and equal states before.

    Args:
        state_keys: (N,) hashable.
        group_ids: (E,) hashable.
        steps_per_episode: (E,) int, sums to N.
        history: how many earlier states are looked at in the last entry of the result.

    Returns:
        history + 1 arrays (N,) int64; at level k, steps with equal numbers have the last k + 1 states in common, or all
        states since the start of their episodes if there are fewer.

    Raises:
        ValueError: the shapes do not fit together, or history is negative.
    """
    if history < 0:
        raise ValueError(f"history must be at least 0, got {history}.")
    lengths = checked_lengths(steps_per_episode, len(state_keys), "steps_per_episode", "steps")
    one_per("step", len(state_keys), state_keys=state_keys)
    one_per("episode", len(lengths), group_ids=group_ids)
    group = numbered(group_ids)[episode_of(lengths)]
    states = numbered(zip(group.tolist(), state_keys, strict=True))
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    levels = [states]
    for _ in range(history):
        before = np.roll(levels[-1], 1)
        before[starts] = -1
        levels.append(numbered(zip(before.tolist(), states.tolist(), strict=True)))
    return levels
