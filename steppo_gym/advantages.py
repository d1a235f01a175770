"""Credit rules: from rewards and values to one advantage for every step, token or episode. Pure numpy, float64.

Episodes have different lengths, so arrays are flat: the steps of the first episode, then those of the second, and so
on, with the length of each beside them. That is the order of the step and token numbers in `steppo_gym.rows`, so a
result is used by indexing.

Normalising over the batch (`steppo_gym.whitening`) is left to the caller; so is leaving out failed episodes.

    advantages, returns = step_advantages(
        rewards, values, final_values, steps_per_episode=[3, 2], gamma=0.99, lam=1.0
    )
    advantages = whiten(advantages)
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def gae(
    rewards: npt.ArrayLike, values: npt.ArrayLike, *, final_value: float, gamma: float, lam: float
) -> tuple[Array, Array]:
    """Generalized advantage estimation over one episode (arXiv:1506.02438, eq. 16).

    T counts decisions: environment steps for StepPO, tokens for token PPO.

    Args:
        rewards: (T,) float, reward received after decision t.
        values: (T,) float, V(s_t) before decision t.
        final_value: V(s_T): 0.0 if the episode terminated, the critic's value if it was truncated.
        gamma: discount per decision.
        lam: the lambda of GAE.

    Returns:
        advantages: (T,) float, not normalised.
        returns: (T,) float, advantages + values.

    Raises:
        ValueError: rewards and values differ in shape or have more than one axis.
    """
    rewards, values = _same_shape(rewards=rewards, values=values)
    return _ragged_gae(rewards, values, np.array([final_value], np.float64), np.array([len(rewards)]), gamma, lam)


def discounted_returns(rewards: npt.ArrayLike, gamma: float) -> Array:
    """Discounted reward-to-go of each decision of one episode: R_t = sum over k >= t of gamma^(k-t) r_k.

    Args:
        rewards: (T,) float.
        gamma: discount per decision.

    Returns:
        (T,) float.

    Raises:
        ValueError: rewards have more than one axis.
    """
    (rewards,) = _same_shape(rewards=rewards)
    return _ragged_returns(rewards, np.array([len(rewards)]), gamma)


def step_advantages(
    rewards: npt.ArrayLike,
    values: npt.ArrayLike,
    final_values: npt.ArrayLike,
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    lam: float,
) -> tuple[Array, Array]:
    """StepPO: GAE whose decisions are whole responses, over several episodes (arXiv:2604.18401, step-level GAE).

    Deviation from the released code: truncated episodes bootstrap with the value of the state they stopped in, where
    that code takes 0 for every ending.

    Args:
        rewards: (N,) float, reward of each step.
        values: (N,) float, V at the last prompt token of each step.
        final_values: (E,) float, for each episode 0.0 if it terminated, the critic's value of the state it stopped in
            if it was truncated.
        steps_per_episode: (E,) int, sums to N; an episode may have no steps.
        gamma: discount per step.
        lam: the lambda of GAE.

    Returns:
        advantages: (N,) float, not normalised.
        returns: (N,) float, advantages + values: the critic's targets.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rewards, values = _same_shape(rewards=rewards, values=values)
    lengths = _lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    return _ragged_gae(rewards, values, _per_episode(final_values, len(lengths)), lengths, gamma, lam)


def token_advantages(
    rewards: npt.ArrayLike,
    values: npt.ArrayLike,
    final_values: npt.ArrayLike,
    *,
    tokens_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
    gamma: float,
    lam: float,
) -> tuple[Array, Array]:
    """Token PPO: GAE over all response tokens of an episode, across step boundaries.

    The equation is that of `gae` with tokens as decisions (arXiv:1506.02438, eq. 16). Tokens of the environment are no
    decisions: the token after the last one of a step is the first one of the next step. The reward of a step sits on
    its last token.

    Args:
        rewards: (N,) float, reward of each step.
        values: (M,) float, V before each response token.
        final_values: (E,) float, as in `step_advantages`.
        tokens_per_step: (N,) int, each at least 1, sums to M.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per token.
        lam: the lambda of GAE.

    Returns:
        advantages: (M,) float, not normalised.
        returns: (M,) float, advantages + values: the critic's targets.

    Raises:
        ValueError: the shapes do not fit together, or a step has no tokens.
    """
    (rewards,) = _same_shape(rewards=rewards)
    (values,) = _same_shape(values=values)
    steps = _lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    tokens = _lengths(tokens_per_step, len(values), "tokens_per_step", "token values")
    if len(tokens) != len(rewards):
        raise ValueError(f"tokens_per_step must have one entry per step, got {len(tokens)} for {len(rewards)} rewards.")
    if (tokens < 1).any():
        raise ValueError(
            f"Every step needs at least one response token to carry its reward, step {int(tokens.argmin())} has none."
        )
    token_rewards = np.zeros_like(values)
    token_rewards[np.cumsum(tokens) - 1] = rewards
    lengths = _sum_per_episode(tokens, steps).astype(np.int64)
    return _ragged_gae(token_rewards, values, _per_episode(final_values, len(steps)), lengths, gamma, lam)


def group_advantages(
    returns: npt.ArrayLike, group_ids: Sequence[Hashable], *, normalize_std: bool = True, eps: float = 1e-6
) -> Array:
    """GRPO: return minus the group's mean, over the group's standard deviation (arXiv:2402.03300, section 4.1.2).

    The standard deviation is the unbiased one, as in common implementations. Deviation from those: a group of one has
    nothing to be compared with and gets 0, not its raw return.

    Args:
        returns: (E,) float.
        group_ids: (E,) hashable; equal ids are one group.
        normalize_std: divide by (standard deviation + eps).
        eps: keeps groups of nearly equal returns finite.

    Returns:
        (E,) float; exactly 0 in groups of one and in groups whose returns are all equal.

    Raises:
        ValueError: returns and group_ids differ in length.
    """
    (returns,) = _same_shape(returns=returns)
    if len(group_ids) != len(returns):
        raise ValueError(f"group_ids must have one entry per return, got {len(group_ids)} for {len(returns)}.")
    numbers: dict[Hashable, int] = {}
    group = np.array([numbers.setdefault(name, len(numbers)) for name in group_ids], np.int64)
    counts = np.bincount(group, minlength=len(numbers))
    _, first = np.unique(group, return_index=True)
    shifted = returns - returns[first][group]  # equal returns become exactly 0, whatever their size
    centered = shifted - (np.bincount(group, shifted, len(numbers)) / counts)[group]
    centered[counts[group] == 1] = 0.0
    if not normalize_std:
        return centered
    variances = np.bincount(group, centered**2, len(numbers)) / np.maximum(counts - 1, 1)
    return centered / (np.sqrt(variances) + eps)[group]


def gigpo_advantages(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    omega: float = 1.0,
    normalize_std: bool = True,
    eps: float = 1e-6,
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
        eps: added to the standard deviations.

    Returns:
        (N,) float. A term is 0 where its group has a single member.

    Raises:
        ValueError: the shapes do not fit together.
    """
    (rewards,) = _same_shape(rewards=rewards)
    lengths = _lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    if len(state_keys) != len(rewards):
        raise ValueError(f"state_keys must have one entry per step, got {len(state_keys)} for {len(rewards)} rewards.")
    if len(group_ids) != len(lengths):
        raise ValueError(f"group_ids must have one entry per episode, got {len(group_ids)} for {len(lengths)}.")
    episode_of_step = np.repeat(np.arange(len(lengths)), lengths)
    totals = _sum_per_episode(rewards, lengths)
    episode_term = group_advantages(totals, group_ids, normalize_std=normalize_std, eps=eps)
    anchors = [(group_ids[episode], key) for episode, key in zip(episode_of_step.tolist(), state_keys, strict=True)]
    step_returns = _ragged_returns(rewards, lengths, gamma)
    step_term = group_advantages(step_returns, anchors, normalize_std=normalize_std, eps=eps)
    return episode_term[episode_of_step] + omega * step_term


def _ragged_gae(
    rewards: Array, values: Array, final_values: Array, lengths: npt.NDArray[np.int64], gamma: float, lam: float
) -> tuple[Array, Array]:
    """GAE of many episodes at once: one vector operation over the episodes for each decision of the longest one."""
    ends = np.cumsum(lengths)
    next_values = np.append(values[1:], 0.0)[: len(values)]
    next_values[ends[lengths > 0] - 1] = final_values[lengths > 0]
    deltas = rewards + gamma * next_values - values

    # All episodes end in the last line of the table, so what is above the start of a short one is never read.
    longest = int(lengths.max(initial=0))
    line = longest - (np.repeat(ends, lengths) - np.arange(len(rewards)))
    episode = np.repeat(np.arange(len(lengths)), lengths)
    table = np.zeros((longest, len(lengths)))
    table[line, episode] = deltas
    for i in range(longest - 2, -1, -1):
        table[i] += gamma * lam * table[i + 1]
    advantages = table[line, episode]
    return advantages, advantages + values


def _ragged_returns(rewards: Array, lengths: npt.NDArray[np.int64], gamma: float) -> Array:
    """Discounted returns: GAE with lambda 1 against a critic that says 0."""
    return _ragged_gae(rewards, np.zeros_like(rewards), np.zeros(len(lengths)), lengths, gamma, 1.0)[0]


def _sum_per_episode(x: npt.NDArray[np.float64] | npt.NDArray[np.int64], steps: npt.NDArray[np.int64]) -> Array:
    return np.bincount(np.repeat(np.arange(len(steps)), steps), x.astype(np.float64), len(steps)).astype(np.float64)


def _same_shape(**arrays: npt.ArrayLike) -> list[Array]:
    converted = [np.asarray(x, np.float64) for x in arrays.values()]
    shapes = [x.shape for x in converted]
    if len(shapes[0]) != 1 or len(set(shapes)) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in zip(arrays, shapes, strict=True))
        raise ValueError(f"Expected one axis and equal shapes, got {found}.")
    return converted


def _per_episode(final_values: npt.ArrayLike, num_episodes: int) -> Array:
    (final_values,) = _same_shape(final_values=final_values)
    if len(final_values) != num_episodes:
        raise ValueError(f"final_values must have one entry per episode, got {len(final_values)} for {num_episodes}.")
    return final_values


def _lengths(lengths: Sequence[int], total: int, name: str, what: str) -> npt.NDArray[np.int64]:
    found = np.asarray(lengths, np.int64)
    if found.ndim != 1 or (found < 0).any() or found.sum() != total:
        raise ValueError(f"{name} must be non-negative and sum to the {total} {what} given, got {list(lengths)}.")
    return found
