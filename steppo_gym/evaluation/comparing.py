"""Two evaluations of the same tasks against each other: `steppo-gym compare` on their folders.

Both played every task, so they are compared task by task. What is hard for one is mostly hard for the other, so the
difference is known more precisely than two separate intervals suggest.

>>> paired([[True], [False], [True]], [[False], [False], [True]]).mean
0.3333333333333333
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from steppo_gym.errors import DataError
from steppo_gym.evaluation.results import SUMMARY_FILE, percent, read_settings
from steppo_gym.evaluation.scores import success_interval
from steppo_gym.quoting import terminal_text
from steppo_gym.rollouts.episode import read_episodes

Outcomes = Sequence[Sequence[bool]]
"""By task, whether each of its tries succeeded."""


@dataclass(frozen=True)
class PairedDifference:
    """Success of one evaluation minus that of another, with its 95 % interval, all from -1 to 1."""

    mean: float
    low: float
    high: float
    better: int
    """Tasks on which more tries succeeded."""
    worse: int
    p_value: float
    """Two-sided, exact; of the hypothesis that the sign of each task's difference is as likely to be the other one."""


@dataclass(frozen=True)
class Played:
    """An evaluation on disk."""

    folder: Path
    settings: Mapping[str, Any]
    failed: int
    """Episodes."""
    outcomes: Mapping[str, Sequence[bool]]


def compare(folders: Sequence[Path]) -> int:
    """Print the difference of two evaluations.

    Raises:
        DataError: they are not two, or not of the same tasks and tries.
    """
    if len(folders) != 2:
        raise DataError(f"Evaluations are compared two at a time, got {len(folders)}.")
    first, second = map(read_evaluation, folders)
    _require_same_tasks(first, second)
    outcomes = [[one.outcomes[task] for task in first.outcomes] for one in (first, second)]
    tries = len(outcomes[0][0])
    told = f", {tries} tries each" if tries > 1 else ""
    panel = terminal_text(str(first.settings["panel"]))
    print(f"{panel} ({len(outcomes[0])} tasks{told}), hash {first.settings['panel_hash'][:12]}")
    for one, own in zip((first, second), outcomes, strict=True):
        print(f"  {percent(success_interval(own))}  {one.folder}")
    found = paired(outcomes[1], outcomes[0])
    print(f"  second minus first  {_points(found.mean)}  [{_points(found.low)}, {_points(found.high)}]  95 % interval")
    print(f"  better on {found.better} tasks, worse on {found.worse}; p = {found.p_value:.3g}, exact sign-flip test")
    for name in sorted(first.settings.keys() | second.settings.keys()):
        values = [one.settings.get(name) for one in (first, second)]
        if values[0] != values[1]:
            print(f"  {name}: {json.dumps(values[0])} and {json.dumps(values[1])}")
    for one in (first, second):
        if one.failed:
            print(f"  {one.folder}: {one.failed} episodes failed and count as not solved.")
    return 0


def read_evaluation(folder: Path) -> Played:
    """A finished evaluation.

    Raises:
        DataError: the folder holds none, or one that is not finished.
    """
    settings = read_settings(folder)
    if settings is None:
        raise DataError(f"Expected the folder of an evaluation, got {folder}. Runs are compared with runs alone.")
    files = sorted((folder / "episodes").glob("*.jsonl"))
    if not (folder / SUMMARY_FILE).is_file() or len(files) != 1:
        raise DataError(f"The evaluation in {folder} is not finished. The same command goes on with it.")
    outcomes: dict[str, list[bool]] = {}
    failed = 0
    for episode in read_episodes(files[0]):
        outcomes.setdefault(episode.task_id, []).append(episode.success)
        failed += episode.ended == "failed"
    return Played(folder, settings, failed, outcomes)


def paired(outcomes: Outcomes, others: Outcomes) -> PairedDifference:
    """The difference in success of two evaluations, task by task.

    The interval is Newcombe's (Statistics in Medicine 17, 1998, p. 2635, method 10): the distances of the ends of
    both success intervals from their means, put together with the correlation of the two rates between tasks, whose
    covariance is first brought 1 / 2N nearer to 0. With one try it is his; with more the success intervals are those at
    the effective number of tries. The test flips the signs of the tasks' differences in all ways; with one try it is
    McNemar's exact test.

    Args:
        outcomes: by task, at least one.
        others: of the same tasks in the same order, as many tries.

    Raises:
        TypeError: see `success_interval`.
        ValueError: the tasks, or their tries, are not as many.
    """
    own, other = success_interval(outcomes), success_interval(others)
    if np.shape(outcomes) != np.shape(others):
        found = f"{np.shape(outcomes)} and {np.shape(others)}"
        raise ValueError(f"Expected the same tasks with as many tries (tasks, tries), found {found}.")
    rates, other_rates = np.mean(outcomes, axis=1), np.mean(others, axis=1)
    covariance = float(np.cov(rates, other_rates, bias=True)[0, 1])
    if covariance > 0:
        covariance = max(covariance - 0.5 / len(rates), 0.0)
    spread = float(rates.std() * other_rates.std())
    correlation = covariance / spread if spread else 0.0
    mean = own.mean - other.mean
    below = _together(own.mean - own.low, other.high - other.mean, correlation)
    above = _together(own.high - own.mean, other.mean - other.low, correlation)
    differences = np.sum(outcomes, axis=1) - np.sum(others, axis=1)
    return PairedDifference(
        mean=mean,
        low=max(mean - below, -1.0),
        high=min(mean + above, 1.0),
        better=int((differences > 0).sum()),
        worse=int((differences < 0).sum()),
        p_value=sign_flip_p(differences.tolist()),
    )


def sign_flip_p(differences: Sequence[int]) -> float:
    """Share of all choices of signs for which the sum is at least as far from 0 as it is; exact.

    Args:
        differences: (N,) whole numbers.
    """
    sizes = [abs(difference) for difference in differences if difference]
    total = sum(sizes)
    # Place s holds the probability of the sum s - total.
    chances = np.zeros(2 * total + 1)
    chances[total] = 1.0
    for size in sizes:
        chances = 0.5 * (np.roll(chances, size) + np.roll(chances, -size))
    far = np.abs(np.arange(2 * total + 1) - total) >= abs(sum(differences))
    return min(float(chances[far].sum()), 1.0)


def _together(one: float, other: float, correlation: float) -> float:
    """Length of the sum of two distances, as of vectors with that cosine between one and minus the other."""
    return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))


def _require_same_tasks(first: Played, second: Played) -> None:
    names = [f"{one.settings.get('panel')} ({str(one.settings.get('panel_hash'))[:12]})" for one in (first, second)]
    if first.settings.get("panel_hash") != second.settings.get("panel_hash"):
        raise DataError(
            f"{first.folder} is of the panel {names[0]}, {second.folder} of {names[1]}. "
            "Only evaluations of the same panel are compared."
        )
    tries = [sorted({len(tries) for tries in one.outcomes.values()}) for one in (first, second)]
    if first.outcomes.keys() != second.outcomes.keys() or tries[0] != tries[1] or len(tries[0]) != 1:
        told = ", ".join(
            f"{one.folder} has {len(one.outcomes)} tasks with {' or '.join(map(str, counts))} tries"
            for one, counts in zip((first, second), tries, strict=True)
        )
        raise DataError(f"Only evaluations with the same tasks and as many tries are compared: {told}.")


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
