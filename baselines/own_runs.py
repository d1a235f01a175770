"""Compare and draw runs of one's own: `steppo-gym compare` and `steppo-gym plot`.

    steppo-gym compare runs/key_door-steppo-seed* runs/key_door-grpo-seed* --score 0.5
    steppo-gym plot runs/key_door-* --out curves.svg
    steppo-gym compare evaluations/one evaluations/other

Runs that differ in nothing but their seed are one row; the statistics are those of the benchmark. What would not be a
comparison, runs on other tasks, is refused.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from steppo_gym.baselines.tables.estimates import (
    area_under_curve,
    estimate,
    first_time,
    holm,
    paired_t_test,
)
from steppo_gym.baselines.tables.run_curves import Curve, draw
from steppo_gym.baselines.tables.text_table import MISSING, markdown, p_value, percent_interval
from steppo_gym.errors import DataError
from steppo_gym.evaluation import comparing
from steppo_gym.evaluation.results import read_settings
from steppo_gym.evaluation.scores import evaluated_splits
from steppo_gym.trainers.without_effect import WITHOUT_EFFECT
from steppo_gym.view.run_folder import SCORES, UNTOLD, Run, open_runs

OF_A_SEED = (*UNTOLD, "seed", "record_credit", *itertools.chain.from_iterable(WITHOUT_EFFECT.values()))
"""Settings in which the runs of one row may differ."""
TASK = (
    "run.env", "run.difficulty", "run.data", "run.protocol", "run.env_args", "run.test_tasks", "run.validation_tasks",
    "run.watch",
)  # fmt: skip
"""Settings in which no two runs that are compared may differ."""
GREEDY = "greedy"
"""Name of the curve of greedy success on the tasks that were watched, the mean over their splits."""


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    run: Run
    settings: Mapping[str, str]
    summary: Mapping[str, Any]
    """Empty while the run goes on."""
    curves: Mapping[str, Curve]

    @property
    def algorithm(self) -> str:
        """Its title."""
        return self.settings.get("algorithm", self.run.name)

    @property
    def seed(self) -> str:
        """As it was written down."""
        return self.settings.get("config.seed", "")

    @property
    def kind(self) -> tuple[tuple[str, str], ...]:
        """All settings that runs of one row share."""
        return tuple((name, value) for name, value in self.settings.items() if name.rpartition(".")[2] not in OF_A_SEED)

    def seconds_until(self, iteration: float) -> float:
        """Time in rollouts, credit and updates up to an iteration; evaluations are not counted."""
        updates = int(self.settings.get("config.updates_per_iteration", "1"))
        updates *= int(self.settings.get("config.num_iterations", "1"))
        weights = {"rollout_seconds": 1, "credit_seconds": 1, "update_seconds": updates}
        return sum(
            weight * value
            for name, weight in weights.items()
            for at, value in self.curves.get(name, ())
            if at <= iteration
        )


def compare(options: argparse.Namespace) -> int:
    """Print a table of runs, or the difference of two evaluations."""
    if any(read_settings(folder) is not None for folder in options.runs):
        if (options.score, options.reference) != (None, None):
            raise ValueError("--score and --reference are about runs, these are evaluations.")
        return comparing.compare(options.runs)
    score = 0.5 if options.score is None else options.score
    if not 0 <= score <= 1:
        raise ValueError(f"--score is a share from 0 to 1, got {score:g}.")
    groups = grouped(read_runs(options.runs))
    print(table(groups, score=score, reference=options.reference))
    return 0


def plot(options: argparse.Namespace) -> int:
    """Draw a curve of runs into a file."""
    if not options.out.suffix:
        raise ValueError(f"--out needs an ending that says the format, such as .svg or .png, got {options.out}.")
    groups = grouped(read_runs(options.runs))
    curves = {
        label: found
        for label, group in groups.items()
        if (found := [result.curves[options.metric] for result in group if result.curves.get(options.metric)])
    }
    if not curves:
        known = sorted({name for group in groups.values() for result in group for name in result.curves})
        raise DataError(f"None of these runs logged {options.metric!r}. They have: {', '.join(known)}.")
    first = next(iter(groups.values()))[0]
    height = "greedy success, watched tasks" if options.metric == GREEDY else options.metric
    draw(curves, height, first.settings.get("run.env", ""), options.out)
    print(options.out)
    return 0


def read_runs(folders: Sequence[Path]) -> list[RunResult]:
    """What some runs came to.

    Raises:
        DataError: a folder is not that of a run, or the runs are not on the same tasks.
    """
    results = [_read(run) for run in open_runs(folders)]
    for name in TASK:
        found: dict[str, list[str]] = {}
        for result in results:
            found.setdefault(result.settings.get(name, ""), []).append(result.run.name)
        if len(found) > 1:
            told = "; ".join(f"{value or 'nothing'} in {', '.join(names)}" for value, names in found.items())
            raise DataError(f"These runs differ in {name}: {told}. Runs on other tasks are not compared.")
    return results


def grouped(results: Iterable[RunResult]) -> dict[str, list[RunResult]]:
    """Runs that differ only in their seed, by a label that says in what the groups differ.

    Raises:
        DataError: a seed is there twice.
    """
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    for result in results:
        groups.setdefault(result.kind, []).append(result)
    for group in groups.values():
        seeds = [result.seed for result in group]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            names = ", ".join(result.run.name for result in group if result.seed in twice)
            raise DataError(f"These runs have the same settings and the same seed: {names}. Name one of them.")
    return {_label(group[0], [other[0] for other in groups.values()]): group for group in groups.values()}


def table(groups: Mapping[str, Sequence[RunResult]], *, score: float, reference: str | None = None) -> str:
    """The table and what its columns are.

    Raises:
        DataError: there is no such group.
    """
    reference = next(iter(groups)) if reference is None else reference
    if reference not in groups:
        raise DataError(f"There is no row {reference!r} to compare with; there are: {', '.join(groups)}.")
    share = f"{100 * score:g} %"
    header = [
        "", "seeds", "before", "greedy", "sampled", "area", f"greedy - {reference}", "p", f"reach {share}",
        "iterations", "episodes", "minutes",
    ]  # fmt: skip
    differences = {
        label: [] if label == reference else _differences(group, groups[reference]) for label, group in groups.items()
    }
    corrected = holm([paired_t_test(found) for found in differences.values()])
    rows = [
        [
            label,
            *_scores(group),
            percent_interval(estimate(differences[label]) if differences[label] else None, signed=True),
            p_value(p),
            *_times(group, score),
        ]
        for (label, group), p in zip(groups.items(), corrected, strict=True)
    ]
    return "\n\n".join([markdown(header, rows), *_notes(groups, share)])


def _scores(group: Sequence[RunResult]) -> list[str]:
    areas = [area_under_curve(curve) for result in group if (curve := result.curves[GREEDY])]
    columns = [_column(group, name) for name in ("success_before", "success_after", "sampled_success_after")]
    return [str(len(group)), *(_interval(values) for values in (*columns, areas))]


def _notes(groups: Mapping[str, Sequence[RunResult]], share: str) -> list[str]:
    results = [result for group in groups.values() for result in group]
    tasks = sorted({str(result.summary["evaluation_tasks"]) for result in results if result.summary})
    unfinished = sum(not result.summary for result in results)
    notes = [
        f"Success in percent on {' or '.join(tasks) or 'no'} test tasks: the mean with its 95 % t interval "
        "[low, high] or, below five runs, (lowest to highest). Area: mean height of the greedy curve on the watched "
        "tasks. Differences are over the seeds that both have, p is that of a paired t test with Holm's correction. "
        "Iterations, episodes and minutes are those of training until greedy success on the watched tasks first was "
        f"{share}, the mean of the runs that reached it."
    ]
    if unfinished:
        notes.append(f"{unfinished} of {len(results)} runs are not finished: only their curves count.")
    return notes


def _differences(group: Sequence[RunResult], others: Sequence[RunResult]) -> list[float]:
    """Greedy success minus that of the others, over the seeds that both have."""
    own, other = (
        {
            result.seed: result.summary["success_after"]
            for result in part
            if result.summary.get("success_after") is not None
        }
        for part in (group, others)
    )
    return [own[seed] - other[seed] for seed in sorted(own.keys() & other.keys())]


def _times(group: Sequence[RunResult], score: float) -> list[str]:
    reached = [(result, at) for result in group if (at := first_time(result.curves[GREEDY], score)) is not None]
    told = f"{len(reached)} of {len(group)}"
    if not reached:
        return [told, MISSING, MISSING, MISSING]
    episodes = [at * int(result.settings.get("config.episodes_per_iteration", "0")) for result, at in reached]
    minutes = [result.seconds_until(at) / 60 for result, at in reached]
    return [told, f"{fmean(at for _, at in reached):.1f}", f"{fmean(episodes):.0f}", f"{fmean(minutes):.1f}"]


def _column(group: Sequence[RunResult], name: str) -> list[float]:
    return [result.summary[name] for result in group if result.summary.get(name) is not None]


def _interval(values: Sequence[float]) -> str:
    return percent_interval(estimate(values) if values else None)


def _label(result: RunResult, groups: Sequence[RunResult]) -> str:
    """The algorithm, and what tells it from other groups of the same algorithm."""
    rivals = [dict(other.kind) for other in groups if other.algorithm == result.algorithm]
    own = dict(result.kind)
    telling = [
        f"{name.rpartition('.')[2]} {value}"
        for name, value in own.items()
        if any(rival.get(name) != value for rival in rivals)
    ]
    return ", ".join([result.algorithm, *telling])


def _read(run: Run) -> RunResult:
    settings = run.settings()
    if "algorithm" not in settings:
        raise DataError(f"{run.folder} is not the folder of a training run: its config.json names no algorithm.")
    curves: dict[str, Curve] = dict(run.curves())
    curves[GREEDY] = _mean_curve([curves[f"eval_{split}_success"] for split in evaluated_splits(curves)])
    return RunResult(run, settings, _summary(run.folder / SCORES["after"]), curves)


def _summary(path: Path) -> dict[str, Any]:
    """The scores of a run; none while it goes on."""
    if not path.exists():
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        numbers = [read[name] for name in ("success_before", "success_after", "sampled_success_after")]
        if all(number is None or isinstance(number, int | float) for number in (*numbers, read["evaluation_tasks"])):
            return read
        raise TypeError("a score is no number")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the summary of a run ({type(error).__name__}: {error}).") from error


def _mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean over the splits, at the iterations that all have."""
    columns = [dict(curve) for curve in curves]
    shared = sorted(set.intersection(*map(set, columns))) if columns else []
    return [(at, fmean(column[at] for column in columns)) for at in shared]
