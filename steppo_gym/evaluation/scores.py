"""Scores of episodes, and how far the success of an evaluation may be from that on all tasks of its kind.

interval = success_interval([[True, False], [True, True], [False, False]])  # three tasks, two tries of each
print(f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]")
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from steppo_gym.rollouts.episode import Episode

Z = 1.959963984540054
"""The 97.5 % point of the standard normal distribution."""


@dataclass(frozen=True)
class SuccessInterval:
    """A success rate with its 95 % interval, all from 0 to 1."""

    mean: float
    low: float
    high: float
    effective_size: float
    """How many independent tries would say as much; with one try of each task, the number of tasks."""
    method: str
    """What the interval is, in words."""


def success_interval(outcomes: Sequence[Sequence[bool]]) -> SuccessInterval:
    """Wilson's score interval (JASA 22, 1927), at the effective number of tries where tasks are tried more than once.

    Tries of one task resemble each other, so N tasks with K tries are less than N * K tries. The effective number is
    p (1 - p) / v with v the variance of the mean between tasks, at most N * K, as proposed by Korn and Graubard (Survey
    Methodology 24, 1998) and found to hold its level with Wilson's interval by Dean and Pagano (J. Survey Statistics
    and Methodology 3, 2015). With one try it is N, and the interval is Wilson's own. Where all or none of the tries
    succeeded the tasks say nothing of how alike tries are, and it is N as well.

    Args:
        outcomes: by task, whether each of its tries succeeded; as many tries for each task, at least one of both.

    Raises:
        TypeError: a task has one outcome instead of a list of its tries.
        ValueError: there is nothing, or tasks have different numbers of tries.
    """
    if any(np.ndim(task) == 0 for task in outcomes):
        raise TypeError("outcomes must have a list of tries for each task: [[True], [False]], not [True, False].")
    tries = {len(task) for task in outcomes}
    if len(tries) != 1 or 0 in tries:
        raise ValueError(f"Expected the same number of tries for every task, at least one, found {sorted(tries)}.")
    rates = np.asarray(outcomes, np.float64).mean(axis=1)
    number, most, mean = len(rates), np.asarray(outcomes).size, float(rates.mean())
    spread, variance = mean * (1 - mean), float(np.square(rates - mean).mean()) / len(rates)
    size = float(number) if spread == 0 else min(spread / variance, most) if variance else float(most)
    center = (mean + Z**2 / (2 * size)) / (1 + Z**2 / size)
    half = Z / (1 + Z**2 / size) * math.sqrt(spread / size + Z**2 / (4 * size**2))
    method = (
        "Wilson's 95 % interval"
        if tries == {1}
        else f"Wilson's 95 % interval at an effective number of {size:.0f} tries, from the variance between tasks"
    )
    return SuccessInterval(mean, max(center - half, 0.0), min(center + half, 1.0), size, method)


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Scores of episodes; failed ones count in `failed_rate` alone."""
    played = [episode for episode in episodes if episode.ended != "failed"]
    steps = [step for episode in played for step in episode.steps]
    logged = {"failed_rate": 1.0 - len(played) / len(episodes) if episodes else 0.0}
    if not played:
        return logged
    return logged | {
        "success": _mean([episode.success for episode in played]),
        "return": _mean([episode.total_reward for episode in played]),
        "episode_steps": _mean([episode.num_steps for episode in played]),
        "truncated_rate": _mean([episode.ended == "truncated" for episode in played]),
        "invalid_rate": _mean([step.invalid_action is not None for step in steps]),
        "response_tokens": _mean([len(step.response_ids) for step in steps]),
    }


def task_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Means of the task's own metrics, each over the episodes that have it."""
    columns: dict[str, list[float]] = {}
    for episode in episodes:
        for name, value in episode.metrics.items():
            columns.setdefault(name, []).append(value)
    return {name: _mean(values) for name, values in sorted(columns.items())}


def evaluation_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Scores of an evaluation: those of the episodes and the task's own.

    `success` is a share of all tasks that were asked for, so that a failed episode counts as not solved: a score that
    leaves failures out rewards a policy, or a machine, for failing at hard tasks. `failed_rate` stands beside it. All
    other scores are of the episodes that were played, since nothing is known of the others.
    """
    scores = task_metrics(episodes) | episode_metrics(episodes)
    if episodes:
        scores["success"] = sum(episode.success for episode in episodes) / len(episodes)
    return scores


def evaluated_splits(names: Iterable[str]) -> list[str]:
    """The splits of an evaluation that was logged as `eval_<split>_<metric>`: those with a `success` among some names.

    A metric of the task's own may end in "_success" too: it belongs to a split that is there as well.
    """
    found = [
        name.removeprefix("eval_").removesuffix("_success")
        for name in names
        if name.startswith("eval_") and name.endswith("_success")
    ]
    return [split for split in found if not any(split.startswith(f"{other}_") for other in found)]


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))
