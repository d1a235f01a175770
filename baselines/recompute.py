"""Another reader's recomputation of a table from its recorded lines: numpy alone, nothing of this package.

A test holds it against `table.py`. Several protocols, or files of lines, give what goes over tasks:
    python baselines/recompute.py key_door
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

Line = dict[str, Any]


def t_area(t: float, freedom: int) -> float:
    """P(|T| <= t) by Simpson's rule."""
    x = np.linspace(0.0, t, 20_001)
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    y = constant * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    return 2 * (t / 20_000 / 3) * (y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum())


def interval(x: np.ndarray) -> list[float]:
    """Mean and Student's 95 % interval, or the lowest and the highest of fewer than five."""
    if len(x) < 5:
        return [x.mean(), x.min(), x.max()]
    t = 2.0
    for _ in range(80):
        t += 8 * (0.95 - t_area(t, len(x) - 1))
    half = t * x.std(ddof=1) / math.sqrt(len(x))
    return [x.mean(), x.mean() - half, x.mean() + half]


def paired(differences: dict[str, np.ndarray]) -> dict[str, float]:
    """Holm's p of paired t tests: sorted, each times the number of those not smaller, never falling."""
    varied = {k: d for k, d in differences.items() if len(d) > 1 and np.ptp(d) > 1e-12}
    p = {k: 1 - t_area(abs(d.mean()) / d.std(ddof=1) * math.sqrt(len(d)), len(d) - 1) for k, d in varied.items()}
    order, worst = sorted(p, key=lambda key: p[key]), 0.0
    return {key: (worst := max(worst, min(1.0, p[key] * (len(order) - i)))) for i, key in enumerate(order)}


def trimmed(x: np.ndarray) -> float:
    """Mean without the lowest and the highest quarter."""
    return np.sort(x)[len(x) // 4 : len(x) - len(x) // 4].mean()


def by_rule(lines: list[Line]) -> dict[str, dict[int, Line]]:
    """By algorithm and seed, the seeds rising."""
    rules: dict[str, dict[int, Line]] = {}
    for line in sorted(lines, key=lambda line: line["seed"]):
        rules.setdefault(line["algorithm"], {})[line["seed"]] = line
    return rules


def recompute(lines: list[Line]) -> dict[str, Line]:
    """By title of the algorithm, the numbers of its row; shares, not percent."""
    rules, rows, tests = by_rule(lines), dict[str, Line](), dict[str, np.ndarray]()
    reference = {seed: line["success_after"] for seed, line in rules.get("steppo", {}).items()}
    for key, runs in rules.items():
        title = next(iter(runs.values()))["title"]
        greedy = np.array([line["success_after"] for line in runs.values()])
        rows[title] = {"greedy": interval(greedy), "iqm": trimmed(greedy)}
        if curves := [np.array(line["curve"])[:, :2].T for line in runs.values() if line["curve"]]:
            areas = [((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2 / (x[-1] - x[0]) for x, y in curves]
            rows[title]["area"] = interval(np.array(areas))
        d = tests[title] = np.array([runs[s]["success_after"] - reference[s] for s in runs if s in reference])
        if key != "steppo" and len(d):
            above = (np.sign(greedy[:, None] - list(reference.values())) + 1) / 2
            rows[title] |= {"difference": interval(d), "above": above.mean()}
    return {title: row | {"p_holm": paired(tests).get(title)} for title, row in rows.items()}


def over_tasks(files: list[list[Line]], resamples: int = 10_000) -> dict[str, dict[str, list[float]]]:
    """By key of the rules that all files have: value, low and high, resampled within each task."""
    tasks = [by_rule(lines) for lines in files]
    shared = [r for r in tasks[0] if all(r in task for task in tasks)]
    x = {r: np.array([[line["success_after"] for line in task[r].values()] for task in tasks]) for r in shared}
    n, rows, found = len(tasks[0]["steppo"]), {}, {}
    for r in shared:
        draws = (np.random.default_rng([*r.encode(), k]).integers(n, size=(resamples, n)) for k in range(len(files)))
        rows[r] = np.stack([np.r_[[range(n)], places] for places in draws])  # the first row is the sample itself
    for r, own in x.items():
        a, b = (np.take_along_axis(x[q][:, None], rows[q], axis=2) for q in (r, "steppo"))
        measures = {"mean": a.mean((0, 2)), "iqm": np.apply_along_axis(trimmed, 1, np.hstack(list(a)))}
        measures["difference"] = np.take_along_axis((own - x["steppo"])[:, None], rows[r], axis=2).mean((0, 2))
        measures["above"] = (np.sign(a[..., None] - b[..., None, :]).mean((0, 2, 3)) + 1) / 2
        found[r] = {name: [v[0], *np.quantile(v[1:], [0.025, 0.975])] for name, v in measures.items()}
    return found


if __name__ == "__main__":
    files = list[list[Line]]()
    for given in sys.argv[1:] or sys.exit(__doc__):
        path = Path(given) if given.endswith(".jsonl") else Path(__file__).parent / "results" / f"{given}.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else sys.exit(f"There are no runs in {path}.")
        files.append([json.loads(line) for line in text.splitlines()])
    print(json.dumps(over_tasks(files) if files[1:] else recompute(*files), indent=1, default=float))
