"""Whether a comparison holds for each of the policies that its runs began with."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.tables.comparison import REFERENCE, Line, by_algorithm
from steppo_gym.baselines.tables.estimates import holm, paired_t_test
from steppo_gym.baselines.tables.text_table import markdown, p_value, percent


def start_table(protocol: Protocol, lines: Sequence[Line]) -> str:
    """Greedy success minus StepPO's, as mean over the seeds of each start, and a test of these means.

    Runs from one start are not independent of each other where rules differ by start; the means of starts are.
    """
    groups = by_algorithm(protocol, lines)
    reference = {line["seed"]: line["success_after"] for line in groups.get(REFERENCE, ())}
    names = list(dict.fromkeys(line["start"]["name"] for line in sorted(lines, key=lambda line: line["seed"])))
    means = {
        group[0]["title"]: [_mean(group, reference, name) for name in names]
        for key, group in groups.items()
        if key != REFERENCE
    }
    tests = holm([paired_t_test([mean for mean in own if mean is not None]) for own in means.values()])
    rows = [
        [title, *(percent(mean, signed=True) for mean in own), p_value(p)]
        for (title, own), p in zip(means.items(), tests, strict=True)
    ]
    return markdown(["", *names, "p over starts"], rows)


def _mean(group: Sequence[Line], reference: dict[int, float], name: str) -> float | None:
    own = [line for line in group if line["start"]["name"] == name and line["seed"] in reference]
    return fmean(line["success_after"] - reference[line["seed"]] for line in own) if own else None
