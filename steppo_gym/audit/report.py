"""What an audit says: how many decisions matter and where, and a table of rules; as text, JSON and a figure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from steppo_gym.audit.intervals import share_interval
from steppo_gym.audit.points import AuditedPoint
from steppo_gym.audit.scores import Scores

THIRDS = ("first third", "second third", "last third")
CHANCE = (
    "Credit equal to A* has sign, rank and cosine 1, bias and variance 0; credit that knows nothing has 0.5, 0, 0, 1 "
    "and 0. docs/audit.md defines them."
)
"""What stands under the table of scores."""
COLUMNS = 4
"""Panels beside each other in the figure."""


def third(point: AuditedPoint) -> str:
    """The part of its episode in which a point lies."""
    return THIRDS[min(3 * point.place // point.num_steps, 2)]


def decisions(points: Sequence[AuditedPoint], threshold: float, *, reach: float) -> dict[str, Any]:
    """Shares of verdicts, rho with its interval, and value and rho along episodes.

    Args:
        points: audited.
        threshold: by how much two supported responses must differ in value for the choice to matter.
        reach: largest difference of two returns.

    Returns:
        JSON-serializable. `rho` is the share of points at which a difference was shown, a lower bound of the true share
        for as long as there are `open` ones.
    """
    verdicts = [point.verdict(threshold, reach=reach) for point in points]
    rho = share_interval(verdicts.count("matters"), len(points))
    along = {}
    for name in THIRDS:
        here = [i for i, point in enumerate(points) if third(point) == name]
        if here:
            along[name] = {
                "points": len(here),
                "rho": sum(verdicts[i] == "matters" for i in here) / len(here),
                "value": float(np.nanmean([points[i].value() for i in here])),
            }
    return {
        "points": len(points),
        "threshold": threshold,
        "verdicts": dict(Counter(verdicts)),
        "rho": rho.estimate,
        "rho_interval": [rho.low, rho.high],
        "along": along,
    }


def text_report(found: Mapping[str, Any], rules: Mapping[str, Scores], skipped: Mapping[str, str]) -> str:
    """The report as markdown."""
    low, high = found["rho_interval"]
    lines = [
        f"{found['points']} decision points; the choice matters by more than {found['threshold']:g} at "
        f"{100 * found['rho']:.0f} % ({100 * low:.0f} to {100 * high:.0f} %).",
        "Verdicts: " + ", ".join(f"{name} {count}" for name, count in sorted(found["verdicts"].items())) + ".",
        "",
        "| where | points | matter | V* |",
        "|---|---|---|---|",
    ]
    lines += [f"| {n} | {x['points']} | {100 * x['rho']:.0f} % | {x['value']:.2f} |" for n, x in found["along"].items()]
    if rules:
        lines += ["", "| rule | sign | rank | cosine | bias | variance | dose |", "|---|---|---|---|---|---|---|"]
        for name, s in rules.items():
            numbers = (s.sign, s.rank, s.cosine, s.error.bias, s.error.variance, s.dose)
            lines.append(f"| {name} | " + " | ".join("-" if np.isnan(x) else f"{x:.2f}" for x in numbers) + " |")
        lines += ["", CHANCE]
        if any(np.isnan(s.sign) or np.isnan(s.rank) for s in rules.values()):
            lines.append("-: nothing to score by. Sign needs points that matter, the others values of A* that differ.")
    by_reason: dict[str, list[str]] = {}
    for name, reason in skipped.items():
        by_reason.setdefault(reason.rstrip("."), []).append(name)
    if by_reason:
        lines += ["", *(f"Left out because {reason}: {', '.join(names)}." for reason, names in by_reason.items())]
    return "\n".join(lines) + "\n"


def draw_figure(
    points: Sequence[AuditedPoint],
    credit: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    file: Path,
    reach: float,
) -> None:
    """Mean credit of each rule against the true advantage, and value along episodes.

    Args:
        points: audited.
        credit: by rule, samples as `sampled_credit` returns them.
        file: where to, its ending names the format.
        reach: largest difference of two returns.
    """
    # Only a figure needs matplotlib.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    truth = np.array([point.advantage(reach=reach).estimate for point in points])
    rows = math.ceil((len(credit) + 1) / COLUMNS)
    figure = Figure(figsize=(2.9 * COLUMNS, 2.4 * rows), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    for unused in axes[len(credit) + 1 :]:
        unused.set_visible(False)
    axes[0].scatter([p.place / p.num_steps for p in points], [p.value() for p in points], s=8)
    axes[0].set(xlabel="place in the episode", ylabel="V*", title="values")
    for axis, (name, (steps, given)) in zip(axes[1:], credit.items(), strict=False):
        numbers = np.asarray(steps, np.int64)
        counts = np.bincount(numbers, minlength=len(points))
        means = np.bincount(numbers, given, len(points)) / np.maximum(counts, 1)
        axis.axhline(0, color="0.8")
        axis.axvline(0, color="0.8")
        axis.scatter(truth[counts > 0], means[counts > 0], s=8)
        axis.set(xlabel="A*", ylabel="mean credit", title=name)
    figure.savefig(file)
