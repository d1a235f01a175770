"""From the recorded runs of one protocol to the numbers of its table, and the checks that they belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from steppo_gym.baselines.compared.protocol import GridPoint, Protocol
from steppo_gym.baselines.records import MixedProtocolsError
from steppo_gym.baselines.tables.estimates import (
    Estimate,
    area_under_curve,
    estimate,
    holm,
    interquartile_mean,
    paired_t_test,
)

REFERENCE = "steppo"
"""Key of the algorithm that the others are compared with."""

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """Results of one algorithm over its seeds; shares, not percent. None where the lines do not have it."""

    title: str
    point: GridPoint
    seeds: tuple[int, ...]
    greedy: Estimate
    greedy_iqm: float
    sampled: Estimate
    area: Estimate | None
    """Mean height of the greedy test curve."""
    difference: Estimate | None
    """Greedy success minus that of the reference algorithm, over the seeds that both have."""
    behind: int | None
    """How many of these seeds ended below the reference algorithm."""
    p_value: float | None
    """Paired t test of the difference, corrected by Holm over all rows of the table."""
    seconds_per_update: float | None


def compare(protocol: Protocol, lines: Sequence[Line]) -> list[Row]:
    """A row for each algorithm that has runs, in the order of the protocol, then those it no longer lists.

    Raises:
        MixedProtocolsError: the lines do not belong in one table.
    """
    check(lines)
    if protocol.one_code:
        _same("code", f"the runs of {protocol.name}", lines)
    groups = by_algorithm(protocol, lines)
    reference = {line["seed"]: line["success_after"] for line in groups.get(REFERENCE, ())}
    rows = [_row(key, group, reference) for key, group in groups.items()]
    corrected = holm([row.p_value for row in rows])
    return [replace(row, p_value=p_value) for row, p_value in zip(rows, corrected, strict=True)]


def by_algorithm(protocol: Protocol, lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each algorithm, sorted by seed; none is left out."""
    known = [algorithm.key for algorithm in protocol.algorithms]
    keys = known + sorted({line["algorithm"] for line in lines} - set(known))
    groups = {
        key: sorted((line for line in lines if line["algorithm"] == key), key=lambda line: line["seed"]) for key in keys
    }
    return {key: group for key, group in groups.items() if group}


def check(lines: Sequence[Line]) -> None:
    """See that protocol, stage and budget of all lines are the same, and that each run is there once.

    Algorithms with a budget among the flags of their own, because they play more than their episodes, may have another.

    Raises:
        MixedProtocolsError: they are not; the message says in what they differ.
    """
    for name in ("protocol", "protocol_hash", "stage", "iterations", "evaluation_tasks"):
        _same(name, "the runs", lines)
    for name in ("episodes", "updates"):
        _same(name, "the runs", [line for line in lines if not has_own_budget(line)])
    for key in {line["algorithm"] for line in lines}:
        own = [line for line in lines if line["algorithm"] == key]
        for name in ("script", "arguments", "learning_rate", "epsilon", "episodes", "updates"):
            _same(name, f"the runs of {key}", own)
        # Lines are older than options.
        _same("option", f"the runs of {key}", [{"option": [], **line} for line in own])
        seeds = [line["seed"] for line in own]
        twice = {seed for seed in seeds if seeds.count(seed) > 1}
        if twice:
            raise MixedProtocolsError(f"{key}: seeds {sorted(twice)} are recorded more than once.")
    for seed in {line["seed"] for line in lines}:
        own = [line for line in lines if line["seed"] == seed]
        for name in ("success_before", "sampled_success_before"):
            _same(name, f"the runs of seed {seed}, which should start from the same policy,", own)
        # Lines are older than this.
        known = [{"start": line.get("start")} for line in own]
        _same("start", f"the runs of seed {seed}, which should start from the same policy,", known)


def has_own_budget(line: Line) -> bool:
    """Whether the algorithm's own flags say how many episodes or updates an iteration has."""
    return bool({"--episodes_per_iteration", "--updates_per_iteration"} & set(line["arguments"]))


def warm_starts(lines: Sequence[Line]) -> dict[int | str, Line]:
    """One line for each policy that runs began with: one a seed, unless seeds share one that was made before."""
    return {
        line["start"]["sha256"] if line.get("start") else line["seed"]: line
        for line in sorted(lines, key=lambda line: line["seed"])
    }


def metric(line: Line, when: str, name: str) -> float:
    """A score of the environment, taken greedily "before" or "after" training: the mean over the test splits.

    Raises:
        KeyError: the environment has no such score.
    """
    return fmean(scores[name] for scores in line[when]["greedy"].values())


def _row(key: str, group: Sequence[Line], reference: Mapping[int, float]) -> Row:
    greedy = [line["success_after"] for line in group]
    areas = [area_under_curve(line["curve"]) for line in group if line["curve"]]
    updates = [line["seconds_per_update"] for line in group if line["seconds_per_update"] is not None]
    shared = [line for line in group if line["seed"] in reference and key != REFERENCE]
    differences = [line["success_after"] - reference[line["seed"]] for line in shared]
    return Row(
        title=group[0]["title"],
        point=GridPoint(group[0]["learning_rate"], group[0]["epsilon"], tuple(group[0].get("option", ()))),
        seeds=tuple(line["seed"] for line in group),
        greedy=estimate(greedy),
        greedy_iqm=float(interquartile_mean(greedy)),
        sampled=estimate([line["sampled_success_after"] for line in group]),
        area=estimate(areas) if areas else None,
        difference=estimate(differences) if differences else None,
        behind=sum(difference < 0 for difference in differences) if differences else None,
        p_value=paired_t_test(differences),
        seconds_per_update=fmean(updates) if updates else None,
    )


def _same(name: str, whose: str, lines: Sequence[Line]) -> None:
    found = sorted({str(line[name]) for line in lines})
    if len(found) > 1:
        raise MixedProtocolsError(f"{whose.capitalize()} differ in {name!r}: {', '.join(found)}. They are not mixed.")
