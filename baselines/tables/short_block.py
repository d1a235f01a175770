"""The short block of the project's README: one small table of two comparisons and what their seeds can carry."""

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
    """Greedy success of the algorithms in `SHOWN`, a column for each protocol, and a sentence on each protocol."""
    found = [
        _Comparison(protocol, compare(protocol, lines), lines[0]["evaluation_tasks"])
        for protocol in protocols
        if (lines := read_results(results, protocol, "matrix"))
    ]
    titles = {algorithm.key: algorithm.title for protocol in protocols for algorithm in protocol.algorithms}
    header = ["greedy success, %", *(comparison.protocol.title for comparison in found)]
    body = [
        [titles[key], *(_cell(comparison.rows, titles[key]) for comparison in found)] for key in SHOWN if key in titles
    ]
    counts = {len(row.seeds) for comparison in found for row in comparison.rows}
    said = [f"{bounds(counts)}.", *(_sentence(comparison) for comparison in found)]
    return f"{markdown(header, body)}\n\n{' '.join(said)}\n"


def _cell(rows: Sequence[Row], title: str) -> str:
    return next((percent_interval(row.greedy) for row in rows if row.title == title), MISSING)


def _sentence(comparison: _Comparison) -> str:
    """What the seeds of one comparison show, by paired t tests corrected for their number."""
    tests = [(row.p_value, row) for row in comparison.rows if row.p_value is not None]
    found = [f"{row.title} {percent(row.greedy.mean)}" for p, row in tests if p < SIGNIFICANT]
    start = f"{comparison.protocol.title} ({comparison.tasks} test tasks, {_seeds(comparison.rows)} seeds): "
    if not tests:
        return f"{start}nothing to compare."
    verdict = f"below {SIGNIFICANT} for {', '.join(found)}" if found else f"none below {SIGNIFICANT}"
    smallest, number = min(p for p, _ in tests), f"{len(tests)} comparison{'' if len(tests) == 1 else 's'}"
    least = p_value(smallest)
    return f"{start}p of paired t tests against StepPO, corrected for {number} (Holm): {verdict}, the smallest {least}."


def _seeds(rows: Sequence[Row]) -> str:
    numbers = sorted({len(row.seeds) for row in rows})
    return str(numbers[0]) if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
