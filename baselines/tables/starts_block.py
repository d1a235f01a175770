"""The table of docs/starts.md: what runs from the shipped starts reach, beside their ceiling, chance and the expert."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
    # Without an empty line, Markdown takes the table for a part of the comment before it.
    return f"\n{markdown(HEADER, rows)}\n\n"


def _card(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "card.json").read_text(encoding="utf-8"))


def _row(protocol: Protocol, lines: Sequence[Line], controls: Sequence[Line], card: Mapping[str, Any]) -> Sequence[str]:
    ceiling = fmean(split["success"] for split in card["figures"]["ceiling, greedy"].values())
    after = [line["success_after"] for line in sorted(lines, key=lambda line: line["seed"])]
    curves = np.array([[point[1] for point in line["curve"]] for line in lines])
    invalid = [fmean(split["invalid_rate"] for split in line["after"]["greedy"].values()) for line in lines]
    minutes = [line["wall_seconds"] / 60 for line in lines]
    return (
        protocol.title.removeprefix("StepPO on ").partition(":")[0],
        percent(ceiling),
        _control(controls, "random"),
        percent(lines[0]["success_before"]),
        ", ".join(percent(share) for share in after),
        percent_interval(estimate(after)),
        decimal(fmean(after) / ceiling),
        ", ".join(f"{100 * height:.0f}" for height in curves.mean(axis=0)),
        f"{percent(min(invalid))} to {percent(max(invalid))}",
        f"{min(minutes):.1f} to {max(minutes):.1f}",
        _control(controls, "expert"),
    )


def _control(controls: Sequence[Line], key: str) -> str:
    found = [line["success_after"] for line in controls if line["algorithm"] == key]
    return percent(fmean(found)) if found else MISSING
