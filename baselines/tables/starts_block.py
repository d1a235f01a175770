"""Tables of runs from the shipped starts: what they reach beside ceiling, chance and expert, and what is invalid."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.tables.comparison import Line
from steppo_gym.baselines.tables.estimates import estimate
from steppo_gym.baselines.tables.text_table import MISSING, decimal, markdown, percent, percent_interval

STARTS_MARKERS = "<!-- starts: written by baselines/table.py -->", "<!-- end of starts -->"
HEADER = (
    "greedy success, %", "ceiling", "random", "start", "after StepPO, by seed", "mean", "of the ceiling",
    "its curve", "invalid after", "minutes", "expert",
)  # fmt: skip
INVALID_MARKERS = "<!-- invalid: written by baselines/table.py -->", "<!-- end of invalid -->"
INVALID_HEADER = (
    "invalid actions, % of all steps", "greedy, start", "after StepPO", "sampled, start", "after StepPO"
)  # fmt: skip


def starts_block(results: Path, cards: Path, jobs: Mapping[str, Protocol]) -> str:
    """A row for each job that has lines.

    Args:
        results: folder of the recorded lines.
        cards: folder of the starts, each with its card.
        jobs: default jobs by the name of the start they begin with.
    """
    rows = [
        _row(protocol, lines, read_results(results, protocol, "control"), _card(cards / name))
        for name, protocol in jobs.items()
        if (lines := read_results(results, protocol, "matrix"))
    ]
    return _block(HEADER, rows)


def invalid_block(results: Path, jobs: Iterable[Protocol]) -> str:
    """A row for each job that has lines: its test tasks before and after, the least and the most of its seeds."""
    rows = [
        (
            _task(protocol),
            *(
                _range([_invalid(line, when, mode) for line in lines])
                for mode in ("greedy", "sampled")
                for when in ("before", "after")
            ),
        )
        for protocol in jobs
        if (lines := read_results(results, protocol, "matrix"))
    ]
    return _block(INVALID_HEADER, rows)


def _block(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    # Without an empty line, Markdown takes the table for a part of the comment before it.
    return f"\n{markdown(header, rows)}\n\n"


def _task(protocol: Protocol) -> str:
    return protocol.title.removeprefix("StepPO on ").partition(":")[0]


def _invalid(line: Line, when: str, mode: str) -> float:
    return fmean(split["invalid_rate"] for split in line[when][mode].values())


def _range(shares: Sequence[float]) -> str:
    return " to ".join(dict.fromkeys((percent(min(shares)), percent(max(shares)))))


def _card(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def _row(protocol: Protocol, lines: Sequence[Line], controls: Sequence[Line], card: Mapping[str, Any]) -> Sequence[str]:
    ceiling = fmean(split["success"] for split in card["figures"]["ceiling, greedy"].values())
    after = [line["success_after"] for line in sorted(lines, key=lambda line: line["seed"])]
    curves = np.array([[point[1] for point in line["curve"]] for line in lines])
    invalid = [_invalid(line, "after", "greedy") for line in lines]
    minutes = [line["wall_seconds"] / 60 for line in lines]
    return (
        _task(protocol),
        percent(ceiling),
        _control(controls, "random"),
        percent(lines[0]["success_before"]),
        ", ".join(percent(share) for share in after),
        percent_interval(estimate(after)),
        decimal(fmean(after) / ceiling),
        ", ".join(f"{100 * height:.0f}" for height in curves.mean(axis=0)),
        _range(invalid),
        f"{min(minutes):.1f} to {max(minutes):.1f}",
        _control(controls, "expert"),
    )


def _control(controls: Sequence[Line], key: str) -> str:
    found = [line["success_after"] for line in controls if line["algorithm"] == key]
    return percent(fmean(found)) if found else MISSING
