"""Curves of runs in one figure, a color for each group of runs that differ only in their seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from steppo_gym.baselines.tables.estimates import bounds_told, estimate

Curve = Sequence[tuple[float, float]]
"""Iterations and values, iterations rising."""


def draw(groups: Mapping[str, Sequence[Curve]], height: str, task: str, path: Path) -> None:
    """Draw each run as a thin line, and each group's mean as a thick one with its bounds.

    The bounds are a 95 % t interval or, with few runs, their range. A group's mean is drawn at the iterations
    that all of its runs have.

    Args:
        groups: the runs of each row.
        height: what the curves are, beside the axis.
        task: above the figure.
        path: its ending is the format.
    """
    # A fixed salt and no date, so that the file changes only with the numbers.
    with rc_context({"svg.hashsalt": "steppo-gym", "font.size": 9}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for number, (label, curves) in enumerate(groups.items()):
            color = f"C{number % 10}"
            for curve in curves:
                axes.plot(*zip(*curve, strict=True), color=color, alpha=0.35, linewidth=0.7)
            x, heights = _shared(curves)
            estimates = [estimate(column) for column in heights.T.tolist()]
            axes.fill_between(x, [e.low for e in estimates], [e.high for e in estimates], color=color, alpha=0.2)
            axes.plot(x, [e.mean for e in estimates], color=color, linewidth=1.8, label=f"{label}, {_runs(curves)}")
        axes.set(xlabel="iteration", ylabel=height, title=task)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        told = f"thick: mean; thin: one run; shade: {bounds_told(map(len, groups.values()))}"
        figure.legend(title=told, loc="outside lower center", ncols=2, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _runs(curves: Sequence[Curve]) -> str:
    return f"{len(curves)} run{'' if len(curves) == 1 else 's'}"


def _shared(curves: Sequence[Curve]) -> tuple[list[float], np.ndarray]:
    """Iterations (P,) that all curves have, and the values there (N, P)."""
    columns = [dict(curve) for curve in curves]
    x = sorted(set.intersection(*map(set, columns)))
    return x, np.array([[column[at] for at in x] for column in columns], np.float64).reshape(len(curves), len(x))
