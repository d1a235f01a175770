"""Another reader's recomputation of a table from its recorded lines: numpy alone, nothing of this package.

    python baselines/recompute.py key_door
    python baselines/recompute.py my/lines.jsonl

Means with Student's 95 % interval, differences to StepPO at the same seed, p of the paired t test and Holm's, the
interquartile mean, the area under the curve and the probability of ending above StepPO. A test holds it against
`table.py`; it shares no code with that.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np


def t_density_area(t: float, freedom: int) -> float:
    """P(|T| <= t) by Simpson's rule."""
    x = np.linspace(0.0, t, 20_001)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    y = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    return 2 * (t / 20_000 / 3) * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())


def t_quantile(freedom: int) -> float:
    """The t with P(|T| <= t) = 0.95, by halving."""
    low, high = 0.0, 1000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_density_area(middle, freedom) < 0.95 else (low, middle)
    return high


def interval(x: np.ndarray) -> list[float]:
    """Mean, low, high; of fewer than five the lowest and the highest."""
    if len(x) < 5:
        return [x.mean(), x.min(), x.max()]
    half = t_quantile(len(x) - 1) * x.std(ddof=1) / math.sqrt(len(x))
    return [x.mean(), x.mean() - half, x.mean() + half]


def paired_p(d: np.ndarray) -> float | None:
    """Two-sided; None where all differences are one."""
    if len(d) < 2 or np.ptp(d) < 1e-12:
        return None
    return 1 - t_density_area(abs(d.mean()) / (d.std(ddof=1) / math.sqrt(len(d))), len(d) - 1)


def holm(p: dict[str, Any]) -> dict[str, Any]:
    """Sorted, each times the number of those not smaller, never falling."""
    order = sorted((key for key in p if p[key] is not None), key=lambda key: p[key])
    corrected, worst = dict(p), 0.0
    for place, key in enumerate(order):
        worst = max(worst, min(1.0, p[key] * (len(order) - place)))
        corrected[key] = worst
    return corrected


def recompute(lines: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By title of the algorithm, the numbers of its row; shares, not percent."""
    rules: dict[str, dict[int, Any]] = {}
    for line in lines:
        rules.setdefault(line["algorithm"], {})[line["seed"]] = line
    reference = {seed: line["success_after"] for seed, line in rules.get("steppo", {}).items()}
    rows: dict[str, dict[str, Any]] = {}
    p: dict[str, float | None] = {}
    for key, runs in rules.items():
        title = next(iter(runs.values()))["title"]
        greedy = np.array([runs[seed]["success_after"] for seed in sorted(runs)])
        inner = np.sort(greedy)[len(greedy) // 4 : len(greedy) - len(greedy) // 4]
        rows[title] = {"greedy": interval(greedy), "iqm": inner.mean()}
        curves = [np.array(runs[seed]["curve"])[:, :2].T for seed in sorted(runs) if runs[seed]["curve"]]
        if curves:
            areas = [((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2 / (x[-1] - x[0]) for x, y in curves]
            rows[title]["area"] = interval(np.array(areas))
        both = sorted(set(runs) & set(reference))
        if key != "steppo" and both:
            difference = np.array([runs[seed]["success_after"] - reference[seed] for seed in both])
            other = np.array(list(reference.values()))
            above = (np.sign(greedy[:, None] - other[None]) + 1) / 2
            rows[title] |= {"difference": interval(difference), "above": above.mean()}
            p[title] = paired_p(difference)
    for title, corrected in holm(p).items():
        rows[title] |= {"p": p[title], "p_holm": corrected}
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", help="a protocol, or a file of lines")
    given = parser.parse_args().results
    path = Path(given) if given.endswith(".jsonl") else Path(__file__).parent / "results" / f"{given}.jsonl"
    rows = recompute([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
    print(json.dumps(rows, indent=1, default=float))
