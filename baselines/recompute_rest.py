"""The cells of a table that recompute.py leaves out, by the same other reader: numpy and recompute.py alone.

A test holds it against `table.py`. The score to reach stands in the protocol and not in its lines:
    python baselines/recompute_rest.py head_to_head_webshop 0.6
"""

import json
import math
import sys
from pathlib import Path

import numpy as np

from steppo_gym.baselines.recompute import Line, by_rule, interval, paired


def scores(line: Line, when: str) -> dict[str, float]:
    """What the environment says of greedy play, as mean over the test splits."""
    splits = list(line[when]["greedy"].values())
    return {name: float(np.mean([split[name] for split in splits])) for name in splits[0]}


def all_scores(lines: list[Line], when: str) -> dict[str, list[float]]:
    """By name, those that all lines have."""
    found = [scores(line, when) for line in lines]
    shared = [name for name in found[0] if all(name in one for one in found)]
    return {name: interval(np.array([one[name] for one in found])) for name in shared}


def effort(lines: list[Line], score: float) -> Line:
    """Steps, share with credit, runs that reached the score, and medians of what that took."""
    spent = [(line["episodes"] / line["iterations"], line["by_iteration"], line["curve"]) for line in lines]
    took = np.full((len(lines), 3), math.inf)
    for row, (episodes, of, curve) in zip(took, spent, strict=True):
        for at in [int(at) for at, success, *_ in curve if success >= score][:1]:
            row[:] = at * episodes, sum(of["environment_steps"][:at]), sum(of["seconds"][:at])
    steps = np.array([line["environment_steps"] for line in lines])
    return {
        "steps": steps.mean(),
        "with_credit": np.mean([sum(of["credited_steps"]) / n for (_, of, _), n in zip(spent, steps, strict=True)]),
        "reached": int(np.isfinite(took[:, 0]).sum()),
        "after": list(np.median(took, axis=0)) if np.isfinite(took[:, 0]).mean() > 0.5 else None,
        "seconds": np.mean([sum(of["seconds"]) for _, of, _ in spent]),
    }


def by_start(rules: dict[str, dict[int, Line]]) -> dict[str, dict[str, float]]:
    """By rule, its difference to StepPO as mean over the seeds of each start, and the corrected p of these means."""
    rows = dict[str, dict[str, float]]()
    for key in [key for key in rules if key != "steppo"]:
        of: dict[str, list[float]] = {}
        for seed, line in rules[key].items():
            if seed in rules["steppo"]:
                own = line["success_after"] - rules["steppo"][seed]["success_after"]
                of.setdefault(line["start"]["name"], []).append(own)
        rows[key] = {name: float(np.mean(differences)) for name, differences in of.items()}
    p = paired({key: np.array(list(row.values())) for key, row in rows.items()})
    return {key: row | ({"p": p[key]} if key in p else {}) for key, row in rows.items()}


def recompute_rest(lines: list[Line], score: float | None = None) -> dict[str, Line]:
    """By key of the rule, and of the starts under "start"; shares, not percent."""
    rules, rows = by_rule(lines), dict[str, Line]()
    begun = list({(line.get("start") or {}).get("sha256", line["seed"]): line for line in lines}.values())
    greedy, sampled = (np.array([line[f"{name}_before"] for line in begun]) for name in ("success", "sampled_success"))
    rows["start"] = {"greedy": interval(greedy), "sampled": interval(sampled), "scores": all_scores(begun, "before")}
    for key, runs in rules.items():
        group = list(runs.values())
        shared = [seed for seed in runs if seed in rules.get("steppo", {})]
        rows[key] = {
            "sampled": interval(np.array([line["sampled_success_after"] for line in group])),
            "below": sum(runs[s]["success_after"] < rules["steppo"][s]["success_after"] for s in shared),
            "seconds_per_update": np.mean([line["seconds_per_update"] or 0 for line in group]),
            "scores": all_scores(group, "after"),
        }
        if score is not None:
            rows[key]["effort"] = effort(group, score)
    if all(line.get("start") for line in lines) and "steppo" in rules:
        for key, row in by_start(rules).items():
            rows[key]["by_start"] = row
    return rows


if __name__ == "__main__":
    name, *rest = sys.argv[1:] or sys.exit(__doc__)
    path = Path(__file__).parent / "results" / f"{name}.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else sys.exit(f"There are no runs in {path}.")
    read = [json.loads(line) for line in text.splitlines()]
    print(json.dumps(recompute_rest(read, *map(float, rest)), indent=1, default=float))
