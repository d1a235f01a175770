"""Arithmetic on many episodes of different lengths at once, shared by the credit rules. Pure numpy, float64.

Arrays are flat: the decisions of the first episode, then those of the second, and so on, with the length of each beside
them. Decisions are steps or tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def ragged_gae(
    rewards: Array, values: Array, final_values: Array, lengths: Integers, gamma: float, lam: float
) -> tuple[Array, Array]:
    """GAE of all episodes at once, in time and memory linear in the decisions (arXiv:1506.02438, eq. 16).

    The recursion goes back from the ends of the episodes: one vector operation over the episodes that are still running
    for each decision of the longest one.

    Args:
        rewards: (N,) float, reward after each decision.
        values: (N,) float, value before each decision.
        final_values: (E,) float, value of the state each episode ended in.
        lengths: (E,) int, decisions of each episode, sums to N.
        gamma: discount per decision.
        lam: the lambda of GAE.

    Returns:
        advantages and returns, (N,) float each.
    """
    ends = np.cumsum(lengths)
    # The temporal differences; the sums over them replace them in place.
    advantages = rewards.copy()
    advantages[:-1] += gamma * values[1:]
    lasts = (ends - 1)[lengths > 0]
    advantages[lasts] = rewards[lasts] + gamma * final_values[lengths > 0]
    advantages -= values

    # Longest episodes first: those that still have a decision at distance d from their end are then the first ones.
    position = ends[np.argsort(-lengths, kind="stable")]
    later = np.zeros(len(lengths))
    for count in (len(lengths) - np.cumsum(np.bincount(lengths, minlength=1))).tolist():
        position, later = position[:count], later[:count]
        position -= 1
        later *= gamma * lam
        later += advantages.take(position)
        advantages[position] = later
    return advantages, advantages + values


def ragged_returns(rewards: Array, lengths: Integers, gamma: float) -> Array:
    """Discounted rewards-to-go, (N,): GAE with lambda 1 against a critic that says 0."""
    return ragged_gae(rewards, np.zeros_like(rewards), np.zeros(len(lengths)), lengths, gamma, 1.0)[0]


def sum_per_episode(x: npt.NDArray[np.float64] | Integers, lengths: Integers) -> Array:
    """(E,) sums of the entries of each episode."""
    return np.bincount(episode_of(lengths), x.astype(np.float64), len(lengths)).astype(np.float64)


def episode_of(lengths: Integers) -> Integers:
    """(N,) the number of the episode each decision belongs to."""
    return np.repeat(np.arange(len(lengths)), lengths)


def index_in_episode(lengths: Integers) -> Integers:
    """(N,) how many decisions of its episode come before each decision."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def last_decisions(lengths: Integers) -> Integers:
    """The numbers of the last decisions of the episodes that have any, in order."""
    return (np.cumsum(lengths) - 1)[lengths > 0]


def numbered(names: Iterable[Hashable]) -> Integers:
    """Equal names become equal numbers, counted from 0 in order of appearance."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)


def mean_of_group(x: Array, group: Integers) -> Array:
    """(N,) for each entry the mean of its group; where all entries of a group are equal, exactly that number."""
    _, first = np.unique(group, return_index=True)
    reference = x[first][group]
    return reference + (np.bincount(group, x - reference) / np.bincount(group))[group]


def same_shape(**arrays: npt.ArrayLike) -> list[Array]:
    """The arrays as float64 with one axis.

    Raises:
        ValueError: they have more than one axis or differ in length.
    """
    converted = [np.asarray(x, np.float64) for x in arrays.values()]
    shapes = [x.shape for x in converted]
    if len(shapes[0]) != 1 or len(set(shapes)) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in zip(arrays, shapes, strict=True))
        raise ValueError(f"Expected one axis and equal shapes, got {found}.")
    return converted


def one_per(unit: str, number: int, **arrays: Sequence[object] | npt.NDArray[np.float64]) -> None:
    """Check that each array has an entry for every episode or step, and that equal entries are equal in a dictionary.

    Raises:
        ValueError: one has not.
        TypeError: its entries are tensors, no two of which are equal there.
    """
    for name, array in arrays.items():
        if len(array) != number:
            raise ValueError(f"{name} must have one entry per {unit}, got {len(array)} for {number}.")
        for entry in array[:1]:
            if hasattr(entry, "tolist") and not isinstance(entry, np.generic):
                found = type(entry).__name__
                raise TypeError(f"{name} must have numbers or texts as entries, found {found}. Use {name}.tolist().")


def checked_lengths(lengths: Sequence[int], total: int, name: str, what: str) -> Integers:
    """Lengths as an array.

    Raises:
        ValueError: they are negative or do not sum to `total`.
    """
    found = np.asarray(lengths, np.int64)
    if found.ndim != 1 or (found < 0).any() or found.sum() != total:
        raise ValueError(f"{name} must be non-negative and sum to the {total} {what} given, got {list(lengths)}.")
    return found


def checked_steps(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    group_ids: Sequence[Hashable],
    steps_per_episode: Sequence[int],
) -> tuple[Array, Integers]:
    """Rewards (N,) and lengths (E,) as arrays, for rules that compare states within groups.

    Raises:
        ValueError: something has not one entry for every step or episode.
    """
    (rewards,) = same_shape(rewards=rewards)
    lengths = checked_lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    one_per("step", len(rewards), state_keys=state_keys)
    one_per("episode", len(lengths), group_ids=group_ids)
    return rewards, lengths
