"""`RESULTS.md`: a table for each comparison that counts, then every recorded run. No number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from steppo_gym.baselines.compared.protocol import Algorithm, Protocol
from steppo_gym.baselines.jobs import grid_jobs, missing
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.selection import choose, grid_scores
from steppo_gym.baselines.tables.comparison import Line, by_algorithm, metric
from steppo_gym.baselines.tables.estimates import area_under_curve, estimate
from steppo_gym.baselines.tables.summary import summary
from steppo_gym.baselines.tables.text_table import MISSING, decimal, markdown, percent, percent_interval

INTRODUCTION = """# Results

Written by `python baselines/table.py --write` from the lines in `baselines/results/`, on built-in data, which is not
the official benchmark. Success in percent. [README.md](README.md) explains the protocols, the columns and what such
numbers can carry. First the table of each comparison that counts, then [every run](#every-run), those of superseded
protocols included.

## Summary
"""
EVERY_RUN = """## Every run

"area" is the mean height of the greedy curve over training.
"""


def listing(results: Path, protocols: Iterable[Protocol]) -> str:
    """The whole page."""
    protocols = list(protocols)
    parts = [INTRODUCTION, summary(results, protocols), EVERY_RUN]
    for protocol in protocols:
        matrix, grid, controls = (read_results(results, protocol, stage) for stage in ("matrix", "grid", "control"))
        if not (matrix or grid or controls):
            continue
        parts.append(f"### {protocol.title} (`{protocol.name}`, protocol {protocol.hash})\n")
        if protocol.superseded:
            parts.append(protocol.superseded + "\n")
        if controls:
            parts += ["Without training, on the test tasks:\n", _controls(controls)]
        if matrix:
            parts += ["On the test tasks, after the last update unless it says before:\n", _matrix(protocol, matrix)]
        if matrix and protocol.metrics:
            parts += ["Other scores, greedy:\n", _metrics(protocol, matrix)]
        if matrix and len(matrix[0]["after"]["greedy"]) > 1:
            parts += ["Greedy success by split:\n", _by_split(protocol, matrix)]
        if grid:
            parts += ["What the grid chose, by the mean over its seeds on validation tasks:\n", _points(protocol, grid)]
            parts += ["Its runs:\n", _grid(protocol, grid)]
    return "\n".join(parts)


def _matrix(protocol: Protocol, lines: Sequence[Line]) -> str:
    header = [
        "run", "learning rate", "clip", "seed", "greedy before", "greedy", "sampled before", "sampled", "area",
        "failed episodes", "tokens", "s / update", "s", "commit",
    ]  # fmt: skip
    rows = [
        [
            *_what(line),
            *(percent(line[f"{mode}success_{when}"]) for mode in ("", "sampled_") for when in ("before", "after")),
            percent(_area(line)),
            percent(line["failed_rate"]),
            MISSING if line["tokens"] is None else f"{line['tokens']:.0f}",
            MISSING if line["seconds_per_update"] is None else f"{line['seconds_per_update']:.3f}",
            _seconds(line),
            line["commit"],
        ]
        for group in by_algorithm(protocol, lines).values()
        for line in group
    ]
    return markdown(header, rows) + "\n"


def _controls(lines: Sequence[Line]) -> str:
    rows = [
        [line["title"], str(line["seed"]), percent(line["success_after"]), _seconds(line), line["commit"]]
        for line in lines
    ]
    return markdown(["run", "seed", "success", "s", "commit"], rows) + "\n"


def _metrics(protocol: Protocol, lines: Sequence[Line]) -> str:
    header = ["run", "seed", *(f"{name}{when}" for name in protocol.metrics for when in (" before", ""))]
    rows = [
        [line["title"], str(line["seed"])]
        + [decimal(metric(line, when, name)) for name in protocol.metrics for when in ("before", "after")]
        for group in by_algorithm(protocol, lines).values()
        for line in group
    ]
    return markdown(header, rows) + "\n"


def _by_split(protocol: Protocol, lines: Sequence[Line]) -> str:
    splits = list(lines[0]["after"]["greedy"])
    rows = [
        [group[0]["title"]]
        + [
            percent_interval(estimate([line["after"]["greedy"][split]["success"] for line in group]))
            for split in splits
        ]
        for group in by_algorithm(protocol, lines).values()
    ]
    return markdown(["", *splits], rows) + "\n"


def _points(protocol: Protocol, lines: Sequence[Line]) -> str:
    shared = len({algorithm.options for algorithm in protocol.algorithms}) == 1
    points = protocol.points(protocol.algorithms[0])
    header = ["", *((str(point) for point in points) if shared else [""] * len(points)), "chosen"]
    rows = [
        [algorithm.title, *_scores(protocol, algorithm, lines, named=not shared)]
        for algorithm in protocol.algorithms
        if any(line["algorithm"] == algorithm.key for line in lines)
    ]
    return markdown(header, rows) + "\n"


def _scores(protocol: Protocol, algorithm: Algorithm, lines: Sequence[Line], *, named: bool) -> list[str]:
    """Success and area at every point, with the point's name where no header can have it, and what was chosen."""
    points = protocol.points(algorithm)
    if any(missing(grid_jobs(protocol, [algorithm], protocol.grid_seeds), lines)):
        return [MISSING] * len(points) + ["not complete"]
    scores = [(point, *grid_scores(protocol, algorithm, point, lines)) for point in points]
    cells = [f"{f'{point}: ' if named else ''}{percent(final)} (area {percent(area)})" for point, final, area in scores]
    return [*cells, str(choose(protocol, algorithm, lines))]


def _grid(protocol: Protocol, lines: Sequence[Line]) -> str:
    header = ["run", "learning rate", "clip", "seed", "validation", "area", "failed episodes", "s", "commit"]
    rows = [
        [
            *_what(line),
            percent(line["curve"][-1][1]),
            percent(_area(line)),
            percent(line["failed_rate"]),
            _seconds(line),
            line["commit"],
        ]
        for group in by_algorithm(protocol, lines).values()
        for line in sorted(
            group, key=lambda line: (line.get("option", []), line["learning_rate"], line["epsilon"], line["seed"])
        )
    ]
    return markdown(header, rows) + "\n"


def _what(line: Line) -> list[str]:
    title = " ".join([line["title"], *line.get("option", ())])
    return [title, str(line["learning_rate"]), str(line["epsilon"]), str(line["seed"])]


def _area(line: Line) -> float | None:
    return area_under_curve(line["curve"]) if line["curve"] else None


def _seconds(line: Line) -> str:
    """Wall time, marked if an interruption hides part of it."""
    return f"{line['wall_seconds']:.0f}" + (" (resumed)" if line.get("resumed") else "")
