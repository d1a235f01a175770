"""The short block of the project's README: one small table of the comparisons and what their seeds can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.tables.comparison import REFERENCE, Row, compare
from steppo_gym.baselines.tables.summary import bounds
from steppo_gym.baselines.tables.text_table import MISSING, markdown, p_value, percent, percent_interval

README_MARKERS = "<!-- results: written by baselines/table.py -->", "<!-- end of results -->"
SHOWN = (REFERENCE, "capo", "ppo", "grpo", "gigpo")
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class _Comparison:
    protocol: Protocol
    rows: Sequence[Row]
    tasks: int


def short_block(results: Path, protocols: Sequence[Protocol]) -> str:
    """Greedy success of the algorithms in `SHOWN`, a column for each protocol; below it what its seeds can carry."""
    found = [
        _Comparison(protocol, compare(protocol, lines), lines[0]["evaluation_tasks"])
        for protocol in protocols
        if (lines := read_results(results, protocol, "matrix"))
    ]
    titles = {algorithm.key: algorithm.title for protocol in protocols for algorithm in protocol.algorithms}
    header = ["greedy success, %", *(comparison.protocol.task for comparison in found)]
    body = [
        [titles[key], *(_cell(comparison.rows, titles[key]) for comparison in found)] for key in SHOWN if key in titles
    ]
    body += [
        [f"p below {SIGNIFICANT} against StepPO", *(_different(comparison.rows) for comparison in found)],
        ["smallest p", *(_smallest(comparison.rows) for comparison in found)],
        ["seeds, test tasks", *(f"{_seeds(comparison.rows)}, {comparison.tasks}" for comparison in found)],
    ]
    counts = {len(row.seeds) for comparison in found for row in comparison.rows}
    return (
        f"{markdown(header, body)}\n\n{bounds(counts)}. p: paired t test of the difference to StepPO at the same seed, "
        "corrected by Holm for all rules that the task was run with, those not shown here included.\n"
    )


def _cell(rows: Sequence[Row], title: str) -> str:
    return next((percent_interval(row.greedy) for row in rows if row.title == title), MISSING)


def _different(rows: Sequence[Row]) -> str:
    """The rules whose difference to StepPO the corrected tests carry, with their means."""
    found = [row for row in rows if row.p_value is not None and row.p_value < SIGNIFICANT]
    return ", ".join(f"{row.title} ({percent(row.greedy.mean)})" for row in found) or "none"


def _smallest(rows: Sequence[Row]) -> str:
    tests = [row.p_value for row in rows if row.p_value is not None]
    return f"{p_value(min(tests))} of {len(tests)}" if tests else MISSING


def _seeds(rows: Sequence[Row]) -> str:
    numbers = sorted({len(row.seeds) for row in rows})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
