"""Learning curves as SVG files, from the recorded lines alone; the same lines give the same bytes."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.tables.comparison import REFERENCE, Line, by_algorithm
from steppo_gym.baselines.tables.estimates import bounds_told, estimate

COLUMNS = 4
TITLE_WIDTH = 30
"""Letters that fit above a panel."""


def draw_curves(protocol: Protocol, lines: Sequence[Line], path: Path) -> None:
    """Draw greedy success on the watched tasks over iterations, a panel for each algorithm.

    Each run is a thin line, their mean a thick one with its 95 % t interval or, with few runs, their range; the
    reference algorithm's mean is dashed in the panels of the others. A legend says so below the panels.
    """
    groups = by_algorithm(protocol, [line for line in lines if line["curve"]])
    rows = math.ceil(len(groups) / COLUMNS)
    # A fixed salt and no date, so that the file changes only with the numbers.
    with rc_context({"svg.hashsalt": "steppo-gym", "font.size": 8}):
        figure = Figure(figsize=(max(2.4 * min(COLUMNS, len(groups)), 5.2), 2.1 * rows + 0.7), layout="constrained")
        axes = figure.subplots(rows, min(COLUMNS, len(groups)), sharex=True, sharey=True, squeeze=False)
        panels = list(axes.flat)
        for panel, (key, group) in zip(panels, groups.items(), strict=False):
            x, heights = _curves(group)
            if key != REFERENCE and REFERENCE in groups:
                reference_x, reference = _curves(groups[REFERENCE])
                panel.plot(reference_x, reference.mean(axis=0), color="0.5", linestyle="--", linewidth=1)
            for run in heights:
                panel.plot(x, run, color="C0", alpha=0.35, linewidth=0.6)
            estimates = [estimate(column) for column in heights.T.tolist()]
            panel.fill_between(x, [e.low for e in estimates], [e.high for e in estimates], color="C0", alpha=0.2)
            panel.plot(x, [e.mean for e in estimates], color="C0", linewidth=1.5)
            panel.set(title=textwrap.fill(group[0]["title"], TITLE_WIDTH), ylim=(-0.02, 1.02))
            panel.grid(alpha=0.3)
            panel.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
        for panel in panels[: len(groups)][-axes.shape[1] :]:
            panel.set_xlabel("iteration")
            panel.xaxis.set_tick_params(labelbottom=True)
        for panel in panels[len(groups) :]:
            panel.set_visible(False)
        figure.suptitle(protocol.title.partition(": ")[0])
        figure.supylabel(
            "greedy success" if protocol.watched == "test" else f"greedy success, {protocol.watched} tasks"
        )
        figure.legend(handles=_legend(groups), loc="outside lower center", ncols=4, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _legend(groups: Mapping[str, Sequence[Line]]) -> list[Line2D | Patch]:
    """What the lines and the area of all panels are."""
    handles = [
        Line2D([], [], color="C0", linewidth=1.5, label="mean"),
        Line2D([], [], color="C0", alpha=0.35, linewidth=0.6, label="one run"),
        Patch(color="C0", alpha=0.2, label=bounds_told(map(len, groups.values()))),
    ]
    if REFERENCE in groups and len(groups) > 1:
        title = groups[REFERENCE][0]["title"]
        handles.append(Line2D([], [], color="0.5", linestyle="--", linewidth=1, label=f"mean of {title}"))
    return handles


def _curves(group: Sequence[Line]) -> tuple[np.ndarray, np.ndarray]:
    """Iterations (P,), and the success of each run (N, P)."""
    points = np.array([[point[:2] for point in line["curve"]] for line in group], np.float64)
    return points[0, :, 0], points[:, :, 1]
