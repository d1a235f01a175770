"""What a factor does to the difference of two rules: effects, intervals and tests over the cells of a study."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import read_results
from steppo_gym.baselines.tables.comparison import Line, check
from steppo_gym.baselines.tables.estimates import (
    Estimate,
    holm,
    paired_t_test,
    student_quantile,
    t_interval,
    two_sided_p,
)
from steppo_gym.baselines.tables.text_table import MISSING, markdown, p_value, percent


@dataclass(frozen=True)
class Effect:
    """Mean difference where a factor is high minus that where it is low, with its 95 % interval and p."""

    mean: float
    low: float
    high: float
    p_value: float


def effects(differences: Sequence[Sequence[float]], levels: Sequence[Sequence[bool]]) -> list[Effect]:
    """Main effects of the factors of a balanced two-level design.

    Args:
        differences: (C, N) float, N runs in each of C cells.
        levels: (C, F) bool, each factor high in half of the cells.

    Returns:
        F effects; intervals and p from Student's t with the variance within cells, pooled, C * (N - 1) degrees of
        freedom. p is not corrected.
    """
    sample, high = np.asarray(differences, np.float64), np.asarray(levels, bool)
    cells, runs = sample.shape
    freedom = cells * (runs - 1)
    error = math.sqrt(float(sample.var(axis=1, ddof=1).mean()) * 4 / (cells * runs))
    found = []
    for factor in high.T:
        mean = float(sample[factor].mean() - sample[~factor].mean())
        width = student_quantile(0.95, freedom) * error
        p = two_sided_p(mean / error, freedom) if error else float(mean == 0)
        found.append(Effect(mean, mean - width, mean + width, p))
    return found


def study_report(cells: Sequence[tuple[Protocol, tuple[bool, ...]]], factors: Sequence[str], results: Path) -> str:
    """The page of a study of StepPO against PPO.

    Raises:
        MixedProtocolsError: lines do not belong together.
    """
    measured = [_by_rule(protocol, results) for protocol, _ in cells]
    done = sum(len(runs) for rules in measured for runs in rules.values())
    wanted = sum(len(protocol.algorithms) * len(protocol.seeds) for protocol, _ in cells)
    parts = [
        "# When does step credit pay?",
        "Made by `python baselines/study.py report --write`. Question, design and predictions were written down before "
        "the first run: [preregistered/when_step_credit_pays.md](preregistered/when_step_credit_pays.md).",
        f"{done} of {wanted} runs are recorded.",
    ]
    if done == wanted:
        parts += [
            _effect_table(cells, factors, measured, last=False),
            _effect_table(cells, factors, measured, last=True),
        ]
    if done:
        parts += [_cell_table(cells, measured), _run_table(cells, measured)]
    return "\n\n".join(parts) + "\n"


def limits_section(limits: Mapping[int, Protocol], rules: tuple[str, str], results: Path) -> str:
    """The section on step limits: a rule minus another under each limit, and the highest limit minus the lowest.

    Args:
        limits: protocols by the number of steps that an episode may take.
        rules: keys of the two rules.
        results: folder of the recorded lines.

    Raises:
        MixedProtocolsError: lines do not belong together.
    """
    differences: dict[int, dict[int, float]] = {}
    rows = []
    for limit, protocol in sorted(limits.items()):
        runs = _by_rule(protocol, results)
        differences[limit] = _differences(runs, rules, _tested_success)
        means = (percent(_mean([_tested_success(line) for line in runs[key].values()])) for key in rules)
        rows.append([f"at most {limit} steps", *means, *_tested(list(differences[limit].values()))])
    low, high = min(limits), max(limits)
    growth = [
        differences[high][seed] - differences[low][seed] for seed in set(differences[low]) & set(differences[high])
    ]
    rows.append([f"{high} steps minus {low}", MISSING, MISSING, *_tested(growth)])
    titles = {rule.key: rule.title for rule in limits[low].algorithms}
    header = ("procedural ALFWorld, easy", *(titles[key] for key in rules), "difference", "95 % interval", "p")
    return (
        "## Step limits\n\nGreedy success after training on test tasks, and its difference at the same seed, with "
        "paired t tests that are not corrected. [Written down](preregistered/ablations.md#step-limits-on-alfworld) "
        f"before the runs; their tables are in [RESULTS.md](RESULTS.md).\n\n{markdown(header, rows)}\n"
    )


def _tested(differences: Sequence[float]) -> list[str]:
    """Mean, interval and p."""
    if len(differences) < 2:
        return [MISSING] * 3
    found = t_interval(differences)
    return [percent(found.mean, signed=True), _bounds(found), p_value(paired_t_test(differences))]


def _bounds(found: Effect | Estimate) -> str:
    return f"[{percent(found.low, signed=True)}, {percent(found.high, signed=True)}]"


RULES = ("steppo", "ppo")
"""Of the study."""
Runs = dict[str, dict[int, Line]]
"""By algorithm and seed."""


def _by_rule(protocol: Protocol, results: Path) -> Runs:
    lines = read_results(results, protocol, "matrix")
    check(lines)
    runs: Runs = {algorithm.key: {} for algorithm in protocol.algorithms}
    for line in lines:
        runs[line["algorithm"]][line["seed"]] = line
    return runs


def _score(line: Line, last: bool) -> float:
    """Success after the last iteration, or the mean over all evaluations but that before training."""
    successes = [point[1] for point in line["curve"] if point[0] > 0]
    return successes[-1] if last else sum(successes) / len(successes)


def _tested_success(line: Line) -> float:
    return line["success_after"]


def _differences(runs: Runs, rules: tuple[str, str], score: Callable[[Line], float]) -> dict[int, float]:
    """A score of one rule minus that of another, by the seeds that both have."""
    one, other = (runs[key] for key in rules)
    return {seed: score(one[seed]) - score(other[seed]) for seed in sorted(set(one) & set(other))}


def _effect_table(
    cells: Sequence[tuple[Protocol, tuple[bool, ...]]], factors: Sequence[str], measured: Sequence[Runs], *, last: bool
) -> str:
    score = partial(_score, last=last)
    differences = [list(_differences(runs, RULES, score).values()) for runs in measured]
    found = effects(differences, [levels for _, levels in cells])
    corrected = holm([effect.p_value for effect in found])
    rows = [
        [
            factor,
            percent(effect.mean, signed=True),
            _bounds(effect),
            p_value(p),
        ]
        for factor, effect, p in zip(factors, found, corrected, strict=True)
    ]
    measure = "success after the last iteration (no test was promised for it)" if last else "mean success after 2, 4, 6"
    return f"Effect of each factor on StepPO minus PPO, points of {measure}:\n\n" + markdown(
        ("factor", "high minus low", "95 % interval", "p (Holm)"), rows
    )


def _cell_table(cells: Sequence[tuple[Protocol, tuple[bool, ...]]], measured: Sequence[Runs]) -> str:
    rows = []
    for (protocol, _), runs in zip(cells, measured, strict=True):
        scores = {
            (rule, last): [_score(line, last) for line in runs[rule].values()]
            for rule in RULES
            for last in (False, True)
        }
        differences = list(_differences(runs, RULES, partial(_score, last=False)).values())
        rows.append(
            [
                protocol.title.removeprefix("KeyDoor, "),
                *(percent(_mean(values)) for values in scores.values()),
                percent(_mean(differences), signed=True),
                *(_explained(runs[rule].values()) for rule in RULES),
            ]
        )
    header = (
        "cell", "StepPO", "StepPO, last", "PPO", "PPO, last", "StepPO - PPO", "explained variance, StepPO", "PPO",
    )  # fmt: skip
    return (
        "Means by cell: success after 2, 4, 6 and after the last iteration, and of the critic's last fit:\n\n"
        + markdown(header, rows)
    )


def _run_table(cells: Sequence[tuple[Protocol, tuple[bool, ...]]], measured: Sequence[Runs]) -> str:
    rows = [
        [
            protocol.title.removeprefix("KeyDoor, "),
            line["title"],
            str(seed),
            " ".join(percent(point[1]) for point in line["curve"]),
            line["commit"],
            line["versions"].get("torch", ""),
        ]
        for (protocol, _), runs in zip(cells, measured, strict=True)
        for lines in runs.values()
        for seed, line in sorted(lines.items())
    ]
    return "All runs; greedy success before training and after 2, 4, 6:\n\n" + markdown(
        ("cell", "rule", "seed", "success", "commit", "torch"), rows
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _explained(lines: Iterable[Line]) -> str:
    last = [line["explained_variance"][-1] for line in lines]
    mean = _mean([value for value in last if value is not None])
    return "-" if mean is None else f"{mean:.2f}"
