"""One comparison over its tasks: the measures of arXiv:2108.13264, with a bootstrap that is stratified by task.

Success rates are scores between 0 and 1 on every task, so nothing is normalized, and the paper's optimality gap would
be one minus the mean. What `rliable` computes of the same numbers stands in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.tables.comparison import REFERENCE, Line, by_algorithm, check
from steppo_gym.baselines.tables.estimates import Estimate, interquartile_mean, probability_of_improvement
from steppo_gym.baselines.tables.text_table import MISSING, decimal_interval, markdown, percent, percent_interval

RESAMPLES = 10_000
FEWEST_TASKS = 2

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Aggregate:
    """One rule over all tasks, each measure with its 95 % percentile interval; None for the rule compared with."""

    mean: Estimate
    iqm: Estimate
    """Over the runs of all tasks together, without the lowest and the highest quarter of them."""
    difference: Estimate | None
    """To the reference at the same seed, mean over seeds and tasks."""
    above: Estimate | None
    """Probability of ending above the reference, mean over tasks."""


def aggregate(scores: Mapping[str, Sequence[Sequence[float]]], reference: str = REFERENCE) -> dict[str, Aggregate]:
    """The measures of every rule.

    Resampled are the runs of each rule within each task, with `default_rng([*key.encode(), k])` for the rule of that
    key and task k, so that anybody can repeat it.

    Args:
        scores: by rule (K, N) float, K tasks of N seeds each, the same seeds for all rules.
        reference: key of the rule that the others are compared with.

    Raises:
        ValueError: rules or tasks have different numbers of runs.
    """
    sizes = {key: tuple(len(task) for task in values) for key, values in scores.items()}
    if len(set(sizes.values())) != 1 or len(set(next(iter(sizes.values())))) != 1:
        raise ValueError(f"Rules need the same tasks and seeds, got runs by task of {sizes}.")
    arrays = {key: np.asarray(values, np.float64) for key, values in scores.items()}
    drawn = {key: _draws(key, array) for key, array in arrays.items()}
    found = {}
    for key, array in arrays.items():
        own, runs = _resampled(array, drawn[key]), array.size
        difference = above = None
        if key != reference and reference in arrays:
            other, shifts = arrays[reference], array - arrays[reference]
            others = _resampled(other, drawn[reference])
            difference = _interval(_mean(shifts[None]), _mean(_resampled(shifts, drawn[key])), runs)
            above = _interval(_above(array[None], other[None]), _above(own, others), runs)
        mean, iqm = (_interval(measure(array[None]), measure(own), runs) for measure in (_mean, _iqm))
        found[key] = Aggregate(mean, iqm, difference, above)
    return found


def over_tasks(results: Path, protocols: Sequence[Protocol]) -> list[str]:
    """A table for each comparison of which at least two tasks are complete.

    Raises:
        MixedProtocolsError: lines do not belong together.
    """
    names = dict.fromkeys(protocol.comparison for protocol in protocols if protocol.comparison)
    tables = (_table([protocol for protocol in protocols if protocol.comparison == name], results) for name in names)
    return [text for text in tables if text]


def _table(protocols: Sequence[Protocol], results: Path) -> str:
    lines = {protocol.name: read_results(results, protocol, "matrix") for protocol in protocols}
    for own in lines.values():
        check(own)
    done = [protocol for protocol in protocols if _complete(protocol, lines[protocol.name])]
    if len(done) < FEWEST_TASKS:
        return ""
    groups = [by_algorithm(protocol, lines[protocol.name]) for protocol in done]
    keys = [key for key in groups[0] if all(key in group for group in groups)]
    scores = {key: [[line["success_after"] for line in group[key]] for group in groups] for key in keys}
    rows = [
        [
            groups[0][key][0]["title"],
            *(percent(float(np.mean(task))) for task in scores[key]),
            percent_interval(found.mean),
            percent_interval(found.iqm),
            percent_interval(found.difference, signed=True),
            MISSING if found.above is None else decimal_interval(found.above),
        ]
        for key, found in aggregate(scores).items()
    ]
    tasks = [protocol.task for protocol in done]
    open_tasks = [protocol.task for protocol in protocols if protocol not in done]
    header = ["", *tasks, "mean", "IQM", "greedy - StepPO", "P(above StepPO)"]
    name = protocols[0].comparison
    said = (
        f"**{name[0].upper()}{name[1:]}, over {len(done)} tasks**: greedy success in percent after training, of the "
        f"rules that all of these tasks have."
    )
    footer = (
        f"[95 % percentile interval, {RESAMPLES:,} resamples of the runs within each task]; seeds, not other tasks."
    )
    footer += f" Not complete and left out: {', '.join(open_tasks)}." if open_tasks else ""
    return "\n\n".join([said, markdown(header, rows), footer]) + "\n"


def _complete(protocol: Protocol, lines: Sequence[Line]) -> bool:
    """Whether every run of the protocol has its line."""
    recorded = {(line["algorithm"], line["seed"]) for line in lines}
    return all((rule.key, seed) in recorded for rule in protocol.algorithms for seed in protocol.seeds)


def _draws(key: str, array: Array) -> npt.NDArray[np.int64]:
    """(RESAMPLES, K, N) places."""
    tasks, runs = array.shape
    generators = [np.random.default_rng([*key.encode(), task]) for task in range(tasks)]
    return np.stack([rng.integers(runs, size=(RESAMPLES, runs)) for rng in generators], axis=1)


def _resampled(array: Array, draws: npt.NDArray[np.int64]) -> Array:
    """(RESAMPLES, K, N) scores, each from its own task."""
    return np.take_along_axis(np.broadcast_to(array, draws.shape), draws, axis=2)


def _mean(scores: Array) -> Array:
    return scores.mean(axis=(1, 2))


def _iqm(scores: Array) -> Array:
    return interquartile_mean(scores.reshape(len(scores), -1))


def _above(own: Array, other: Array) -> Array:
    return probability_of_improvement(own, other).mean(axis=1)


def _interval(value: Array, resampled: Array, runs: int) -> Estimate:
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(value[0]), float(low), float(high), runs)
