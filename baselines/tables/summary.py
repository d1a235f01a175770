"""The table of a protocol: a row for each algorithm and for what is not trained, and what it takes to repeat it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.tables.by_start import start_table
from steppo_gym.baselines.tables.comparison import (
    REFERENCE,
    Line,
    Row,
    by_algorithm,
    compare,
    has_own_budget,
    metric,
    warm_starts,
)
from steppo_gym.baselines.tables.effort import effort_table
from steppo_gym.baselines.tables.estimates import FEWEST_FOR_AN_INTERVAL, Estimate, estimate
from steppo_gym.baselines.tables.over_tasks import over_tasks
from steppo_gym.baselines.tables.text_table import (
    MISSING,
    decimal_interval,
    markdown,
    p_value,
    percent,
    percent_interval,
)

HEADER = (
    "", "learning rate", "clip", "greedy", "IQM", "sampled", "area", "greedy - StepPO", "below StepPO", "p",
    "s / update", "seeds",
)  # fmt: skip


def summary(results: Path, protocols: Iterable[Protocol]) -> str:
    """Tables over the tasks of comparisons, then those of all protocols that have results, but for superseded ones.

    Raises:
        MixedProtocolsError: lines do not belong together.
    """
    protocols = list(protocols)
    tables = [
        table(protocol, lines, read_results(results, protocol, "control"))
        for protocol in protocols
        if not protocol.superseded and (lines := read_results(results, protocol, "matrix"))
    ]
    return "\n".join([*over_tasks(results, protocols), *tables])


def bounds(counts: Collection[int]) -> str:
    """What stands in the brackets beside means over so many runs."""
    few, many = "(lowest to highest run)", "[95 % t interval over seeds]"
    if min(counts) >= FEWEST_FOR_AN_INTERVAL:
        return f"Mean {many}"
    if max(counts) < FEWEST_FOR_AN_INTERVAL:
        return f"Mean {few}"
    return f"Mean {few} of fewer than {FEWEST_FOR_AN_INTERVAL} runs, {many} of more"


def table(protocol: Protocol, lines: Sequence[Line], controls: Sequence[Line]) -> str:
    """The table of a protocol with what a reader needs to repeat it.

    Raises:
        MixedProtocolsError: lines do not belong together.
    """
    first = next((line for line in lines if not has_own_budget(line)), lines[0])
    rows = [_cells(row) for row in compare(protocol, lines)]
    title = (
        f"**{protocol.title}**: success in percent on {first['evaluation_tasks']} test tasks after "
        f"{first['episodes']} episodes and {first['updates']} updates."
    )
    parts = [title, markdown(HEADER, [*_untrained(lines, controls), *rows, *_expert(controls)])]
    if any(map(has_own_budget, lines)):
        parts += ["Budgets differ, because some rules play more than their episodes:", _budgets(protocol, lines)]
    if protocol.metrics:
        parts += ["Other scores, greedy:", _metrics(protocol, lines)]
    if protocol.score is not None:
        parts += [f"What it took to that score on the {protocol.watched} tasks:", effort_table(protocol, lines)]
    if protocol.starts and any(algorithm.key == REFERENCE for algorithm in protocol.algorithms):
        parts += ["Greedy success minus StepPO's by the start of the runs:", start_table(protocol, lines)]
    if any(line["curve"] for line in lines):
        tasks = "" if protocol.watched == "test" else f" on the {protocol.watched} tasks"
        parts.append(f"[Learning curves](figures/{protocol.name}.svg){tasks} of all runs.")
    return "\n\n".join([*parts, _footer(protocol, lines)]) + "\n"


def _cells(row: Row) -> list[str]:
    seconds = row.seconds_per_update
    return [
        " ".join([row.title, *row.point.option]),
        str(row.point.learning_rate),
        str(row.point.epsilon),
        percent_interval(row.greedy),
        percent(row.greedy_iqm),
        percent_interval(row.sampled),
        percent_interval(row.area),
        percent_interval(row.difference, signed=True),
        MISSING if row.behind is None or row.difference is None else f"{row.behind} of {row.difference.runs}",
        p_value(row.p_value),
        MISSING if seconds is None else f"{seconds:.2f}",
        str(len(row.seeds)),
    ]


def _untrained(lines: Sequence[Line], controls: Sequence[Line]) -> list[list[str]]:
    """Random actions, which have no greedy form, and the policy that every run starts from."""
    random = [line["success_after"] for line in controls if line["algorithm"] == "random"]
    starts = list(warm_starts(lines).values())
    greedy = estimate([line["success_before"] for line in starts])
    sampled = estimate([line["sampled_success_before"] for line in starts])
    return [
        *([_control("random actions", None, estimate(random), len(random))] if random else []),
        _control("start", greedy, sampled, len(starts)),
    ]


def _expert(controls: Sequence[Line]) -> list[list[str]]:
    found = [line["success_after"] for line in controls if line["algorithm"] == "expert"]
    return [_control("expert", estimate(found), None, len(found))] if found else []


def _control(title: str, greedy: Estimate | None, sampled: Estimate | None, seeds: int) -> list[str]:
    empty = [MISSING]
    return [title, *2 * empty, percent_interval(greedy), *empty, percent_interval(sampled), *5 * empty, str(seeds)]


def _budgets(protocol: Protocol, lines: Sequence[Line]) -> str:
    """Episodes and updates of every algorithm, and the mean of what its runs did in environments."""

    def cells(group: Sequence[Line]) -> list[str]:
        steps = [line["environment_steps"] for line in group if "environment_steps" in line]
        played = f"{sum(steps) / len(steps):,.0f}" if steps else MISSING
        return [group[0]["title"], str(group[0]["episodes"]), str(group[0]["updates"]), played]

    rows = [cells(group) for group in by_algorithm(protocol, lines).values()]
    return markdown(["", "episodes", "updates", "environment steps, with those of branches"], rows)


def _metrics(protocol: Protocol, lines: Sequence[Line]) -> str:
    """Scores of the environment, of the warm start and of every algorithm."""

    def cells(title: str, group: Sequence[Line], when: str) -> list[str]:
        return [title] + [
            decimal_interval(estimate([metric(line, when, name) for line in group])) for name in protocol.metrics
        ]

    rows = [cells(group[0]["title"], group, "after") for group in by_algorithm(protocol, lines).values()]
    start = cells("start", list(warm_starts(lines).values()), "before")
    return markdown(["", *protocol.metrics], [start, *rows])


def _footer(protocol: Protocol, lines: Sequence[Line]) -> str:
    def distinct(name: str) -> str:
        return "; ".join(sorted({_said(line[name]) for line in lines}))

    tuned, many = protocol.tuning, len(protocol.points(protocol.algorithms[0])) > 1
    if many:
        rates = ", ".join(str(rate) for rate in sorted({point.learning_rate for point in protocol.grid}))
        clips = ", ".join(str(clip) for clip in sorted({point.epsilon for point in protocol.grid}))
        tuned = (
            f"learning rates {rates} and clip ranges {clips} for every algorithm, chosen on validation tasks with "
            f"{_count(len(protocol.grid_seeds), 'other seed')}"
        )
        if len(protocol.algorithms[0].options) > 1:
            tuned += f", with {len(protocol.algorithms[0].options)} options of its own for each"
        if protocol.grid_arguments:
            tuned += f" and `{' '.join(protocol.grid_arguments)}`"
    if protocol.defaults:
        tuned += f"; with `{' '.join(protocol.defaults)}`, then the default, unless a row says otherwise"
    commands = [f"python baselines/run.py {protocol.name}{flag}" for flag in (" --grid", "")]
    said = " and then ".join(f"`{command}`" for command in (commands if many else commands[1:]))
    counts = {len(group) for group in by_algorithm(protocol, lines).values()}
    return (
        f"{bounds(counts)}; {tuned}. {said}, protocol {lines[0]['protocol_hash']}, commit "
        f"{distinct('commit')}, on {distinct('hardware')}; {distinct('versions')}."
    )


def _said(value: Any) -> str:
    """One value of a line in words."""
    if isinstance(value, str):
        return value
    if "cpu_count" in value:
        machine = value["accelerator"] or _count(value["cpu_count"], value["machine"] + " core")
        return f"{machine}, {_count(value['torch_threads'], 'thread')} a run"
    return ", ".join(f"{name} {number}" for name, number in value.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
