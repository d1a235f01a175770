"""Credit from continuations: what else the policy makes of the states an episode went through. Pure numpy, float64.

An environment that can be put back into an earlier state lets the policy play on from there again. `vine_advantages`
takes the mean return of such continuations as the value of each state; `bpo_advantages` compares a step's episode with
its siblings, the continuations from the state of the step. The environment steps of continuations belong to the budget
of the rules that ask for them.

Arrays are flat as in `steppo_gym.credit.advantages`.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.advantages import step_advantages
from steppo_gym.credit.groups import rloo_advantages
from steppo_gym.credit.ragged import (
    Array,
    Integers,
    checked_lengths,
    episode_of,
    one_per,
    ragged_returns,
    same_shape,
    sum_per_episode,
)


def vine_advantages(
    rewards: npt.ArrayLike,
    continuation_returns: npt.ArrayLike,
    final_values: npt.ArrayLike,
    *,
    continuations_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
    gamma: float = 1.0,
) -> Array:
    """VinePPO over steps: A_t = r_t + gamma V(s_t+1) - V(s_t), V the mean of continuations (arXiv:2410.01679, eq. 5).

    The paper's states are the beginnings of the lines of a text; here they are the states steps are taken in, and a
    continuation is played in the environment.

    Args:
        rewards: (N,) float, reward of each step.
        continuation_returns: (C,) float, discounted returns of the episodes played from the state of each step on;
            those of the first step, then those of the second, and so on.
        final_values: (E,) float, for each episode 0.0 if it terminated, the mean return of continuations of the state
            it stopped in, or 0.0, if it was truncated.
        continuations_per_step: (N,) int, each at least 1, sums to C (9 each in the paper).
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per step (1 in the paper).

    Returns:
        (N,) float, not normalized.

    Raises:
        ValueError: the shapes do not fit together, or a step has no continuation.
    """
    (returns,) = same_shape(continuation_returns=continuation_returns)
    numbers = checked_lengths(continuations_per_step, len(returns), "continuations_per_step", "continuations")
    if (numbers < 1).any():
        raise ValueError(f"Every step needs at least one continuation, step {int(numbers.argmin())} has none.")
    advantages, _ = step_advantages(
        rewards,
        sum_per_episode(returns, numbers) / numbers,
        final_values,
        steps_per_episode=steps_per_episode,
        gamma=gamma,
        lam=0.0,
    )
    return advantages


def bpo_advantages(
    rewards: npt.ArrayLike,
    group_ids: Sequence[Hashable],
    forked_at: Sequence[int],
    *,
    steps_per_episode: Sequence[int],
    gamma: float = 1.0,
) -> Array:
    """BPO: the return from a fork on, minus the mean of its siblings there (arXiv:2607.14171).

    An episode is played from the task's start, or from the state of a step of another episode: then it holds the steps
    from there on, and it is a sibling of that episode from that step on, as are all that were forked at the same step.
    Every step is credited at the last fork that is not after it, the start of the episode if there is none: with the
    discounted return from that place on, minus the mean of the siblings' returns from there. Siblings of an episode
    from the start are those of its task group from the start, so that steps before the first fork have RLOO's credit.

    Deviation: as public reimplementations have it, the paper also hands a fork's credit back to the steps before it,
    weakened by a power of the distance. All siblings share those steps and their credits sum to 0, so that this adds
    nothing to the gradient at all on policy; it is left out. The paper itself was not at hand.

    Args:
        rewards: (N,) float, reward of each step.
        group_ids: (E,) hashable, the task group of each episode; that of a fork is the one of its origin.
        forked_at: (E,) int, the number (0 to N - 1) of the step that the episode's first step is an alternative to, -1
            for an episode from the start.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per step.

    Returns:
        (N,) float; exactly 0 for a step without siblings and where all siblings are equally good.

    Raises:
        ValueError: the shapes do not fit together, or a step is said to be an alternative to itself or to none.
    """
    (rewards,) = same_shape(rewards=rewards)
    lengths = checked_lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    one_per("episode", len(lengths), group_ids=group_ids, forked_at=forked_at)
    origins = _checked_forks(forked_at, lengths)
    to_go = ragged_returns(rewards, lengths, gamma)

    # A member of a comparison is an episode at a place. Each episode is one at its start, and each step where others
    # were forked is one more.
    firsts = np.cumsum(lengths) - lengths
    members: list[int] = []  # the step from which the member's return counts
    places: list[Hashable] = []
    for e in range(len(lengths)):
        if lengths[e]:
            members.append(int(firsts[e]))
            places.append(("start", group_ids[e]) if origins[e] < 0 else ("fork", int(origins[e])))
    forks = sorted(set(origins[(origins >= 0) & (lengths > 0)].tolist()))
    members += forks
    places += [("fork", step) for step in forks]
    credit = rloo_advantages(to_go[members], places)

    advantages = np.zeros(len(rewards))
    advantages[members] = credit  # a fork at the first step of an episode comes later in the list, and counts
    is_member = np.zeros(len(rewards), bool)
    is_member[members] = True
    latest = np.maximum.accumulate(np.where(is_member, np.arange(len(rewards)), 0))
    return advantages[latest]


def highest_entropy_steps(entropies: npt.ArrayLike, *, steps_per_episode: Sequence[int], number: int) -> list[int]:
    """Where to fork: the steps of each episode at which the policy was least sure.

    Args:
        entropies: (N,) float, such as `steppo_gym.credit.modulation.step_entropies`.
        steps_per_episode: (E,) int, sums to N.
        number: how many steps of each episode, all if it has fewer.

    Returns:
        Numbers of steps (0 to N - 1) in order; of equal steps the earlier is taken.

    Raises:
        ValueError: the shapes do not fit together, or the number is negative.
    """
    (entropies,) = same_shape(entropies=entropies)
    lengths = checked_lengths(steps_per_episode, len(entropies), "steps_per_episode", "steps")
    if number < 0:
        raise ValueError(f"number must be at least 0, got {number}.")
    order = np.lexsort((np.arange(len(entropies)), -entropies, episode_of(lengths)))
    firsts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    return sorted(order[np.arange(len(order)) - firsts < number].tolist())


def _checked_forks(forked_at: Sequence[int], lengths: Integers) -> Integers:
    origins = np.asarray(forked_at, np.int64)
    number = int(lengths.sum())
    own = episode_of(lengths)
    for e, step in enumerate(origins.tolist()):
        if not -1 <= step < number:
            raise ValueError(f"forked_at must be the number of one of the {number} steps or -1, got {step}.")
        if step >= 0 and own[step] == e:
            raise ValueError(f"forked_at must be a step of another episode, episode {e} names its own step {step}.")
    return origins
