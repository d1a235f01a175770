"""The page of recorded audits: what matters, which rules see it, and whether that is how well they learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steppo_gym.audit.scores import rank_correlation
from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.tables.estimates import area_under_curve
from steppo_gym.baselines.tables.text_table import MISSING, markdown, p_value

Array = npt.NDArray[np.float64]
FEWEST_RULES = 4
"""Below that a rank correlation says nothing: of three orders of things one is always nearly right."""
_RESAMPLES = 2000


@dataclass(frozen=True)
class Agreement:
    """How far the order of rules in an audit is that in which they learned."""

    rules: int
    spearman: float
    low: float
    high: float
    """95 % percentile bootstrap over points of the audit and seeds of the runs."""
    p_value: float
    """Share of random orders of the rules that agree at least as much, in either direction."""


def alignment(means: npt.ArrayLike, spreads: npt.ArrayLike, truth: npt.ArrayLike) -> Array:
    """Cosine between a rule's credit in single batches and the true advantages: E[cA] / sqrt(E[c^2] E[A^2]).

    Both bias and noise lower it: 1 minus its square is the total error of docs/audit.md.

    Args:
        means: (..., D) mean credit of each point over batches.
        spreads: (..., D) its standard deviation.
        truth: (D,) true advantages.

    Returns:
        (...) -1 to 1; 0 for a rule that gives nothing.
    """
    c, s, a = (np.asarray(x, np.float64) for x in (means, spreads, truth))
    size = np.sqrt(np.mean(c**2 + s**2, axis=-1) * np.mean(a**2))
    return np.where(size > 0, np.mean(c * a, axis=-1) / np.where(size > 0, size, 1.0), 0.0)


def agreement(
    points: Sequence[Mapping[str, Any]], learned: Mapping[str, Sequence[float]], *, seed: int = 0
) -> Agreement:
    """Spearman's correlation between alignment in an audit and how well rules learned.

    Raises:
        ValueError: fewer than `FEWEST_RULES` rules are in both.
    """
    kept = [point for point in points if point["advantage"] is not None]
    rules = [name for name in learned if kept and all(name in point["credit"] for point in kept)]
    if len(rules) < FEWEST_RULES:
        raise ValueError(f"{len(rules)} rules are in both, at least {FEWEST_RULES} are needed.")
    truth = np.array([point["advantage"][0] for point in kept])
    credit = np.array([[point["credit"][name] for point in kept] for name in rules])
    means, spreads = credit[..., 0], credit[..., 1]
    scores = [np.array(learned[name]) for name in rules]
    rng = np.random.default_rng(seed)

    def drawn() -> float:
        places = rng.integers(len(kept), size=len(kept))
        again = [own[rng.integers(len(own), size=len(own))].mean() for own in scores]
        return rank_correlation(alignment(means[:, places], spreads[:, places], truth[places]), again)

    aligned, learned_means = alignment(means, spreads, truth), np.array([own.mean() for own in scores])
    found = rank_correlation(aligned, learned_means)
    low, high = np.nanquantile([drawn() for _ in range(_RESAMPLES)], [0.025, 0.975])
    chance = [abs(rank_correlation(aligned, rng.permutation(learned_means))) for _ in range(_RESAMPLES)]
    p = (1 + sum(x >= abs(found) - 1e-9 for x in chance)) / (1 + _RESAMPLES)
    return Agreement(len(rules), found, float(low), float(high), p)


def audits_page(audits: Sequence[Mapping[str, Any]], tasks: Mapping[str, Protocol], results: Path) -> str:
    """The page: the audits of each task, and whether they order rules as training does."""
    parts = [
        "# Audits",
        "Made by `python baselines/audits.py report --write` from `results/audits/`. [docs/audit.md](../docs/audit.md) "
        "defines all terms. `aligned` is the cosine between credit in single batches and the true advantages.",
    ]
    for name, protocol in tasks.items():
        own = [one for one in audits if one["task"] == name]
        if own:
            parts += [f"## {protocol.title}", _points_table(own), _rules_table(own)]
    parts += ["## Does the audit order rules as training does?", _agreement_table(audits, tasks, results)]
    return "\n\n".join(parts) + "\n"


def _points_table(audits: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for one in audits:
        report, (low, high) = one["report"], one["report"]["rho_interval"]
        verdicts = ", ".join(f"{name} {count}" for name, count in sorted(report["verdicts"].items()))
        along = [f"{part['value']:.2f}" for part in report["along"].values()]
        share = f"{100 * report['rho']:.0f} [{100 * low:.0f}, {100 * high:.0f}]"
        rows.append([_of(one), str(report["points"]), share, verdicts, " / ".join(along), one["commit"]])
    return markdown(["policy", "points", "matter, %", "verdicts", "V* by thirds", "commit"], rows)


def _rules_table(audits: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for one in audits for name in one["report"]["rules"]))
    rows = []
    for name in names:
        cells = [name]
        for one in audits:
            scores = one["report"]["rules"].get(name)
            cells += (
                [MISSING] * 3
                if scores is None
                else [_score(scores["sign"]), _score(scores["cosine"]), _score(_aligned(one, name))]
            )
        rows.append(cells)
    return markdown(
        ["rule", *(f"{_of(one)}: {what}" for one in audits for what in ("sign", "cosine", "aligned"))], rows
    )


def _agreement_table(audits: Sequence[Mapping[str, Any]], tasks: Mapping[str, Protocol], results: Path) -> str:
    rows = []
    for one in audits:
        protocol = tasks[one["task"]]
        if len(protocol.algorithms) == 1:
            continue
        try:
            found = agreement(one["points"], learned_by(protocol, results))
        except ValueError as error:
            rows.append([protocol.title, _of(one), str(error), MISSING, MISSING])
            continue
        shown = f"{found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}]"
        rows.append([protocol.title, _of(one), str(found.rules), shown, p_value(found.p_value)])
    said = (
        "Rules that are both in the audit and in recorded runs of the same protocol: Spearman's correlation between "
        "`aligned` and the mean height of the greedy curve over seeds, a 95 % bootstrap interval over points and "
        "seeds, and p by permuting rules. Tasks of which one rule was run have no order."
    )
    return f"{said}\n\n{markdown(['task', 'policy', 'rules', 'Spearman', 'p'], rows)}"


def learned_by(protocol: Protocol, results: Path) -> dict[str, list[float]]:
    """By rule, the mean height of each recorded run's greedy curve; rows that vary a rule are left out."""
    found: dict[str, list[float]] = {}
    for line in read_results(results, protocol, "matrix"):
        if line["algorithm"] == line["script"]:
            found.setdefault(line["script"], []).append(area_under_curve(line["curve"]))
    return found


def _aligned(one: Mapping[str, Any], name: str) -> float | None:
    kept = [p for p in one["points"] if p["advantage"] is not None and name in p["credit"]]
    if not kept:
        return None
    means, spreads = np.array([p["credit"][name] for p in kept]).T
    return float(alignment(means, spreads, [p["advantage"][0] for p in kept]))


def _of(one: Mapping[str, Any]) -> str:
    return one["where"] if one["seed"] == 0 else f"{one['where']}, seed {one['seed']}"


def _score(value: float | None) -> str:
    return MISSING if value is None else f"{value:.2f}"
