"""What it took: episodes, steps and seconds until a score, and how many steps taught something."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, median

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.tables.comparison import REFERENCE, Line, by_algorithm
from steppo_gym.baselines.tables.estimates import first_time, probability_of_improvement
from steppo_gym.baselines.tables.text_table import MISSING, markdown, percent


def effort_table(protocol: Protocol, lines: Sequence[Line]) -> str:
    """A row for each algorithm: its dose, and what it took to the protocol's score.

    A run reaches the score at the first evaluation that has it. Medians count runs that never do as the longest of all;
    where most of the runs are among those, there is none.
    """
    groups = by_algorithm(protocol, lines)
    reference = [line["success_after"] for line in groups.get(REFERENCE, ())]
    header = (
        "", "P(above StepPO)", "steps", "with credit", f"reached {percent(protocol.score)} %", "after episodes",
        "after steps", "after seconds", "seconds in all",
    )  # fmt: skip
    rows = [
        [
            group[0]["title"],
            MISSING if key == REFERENCE or not reference else f"{_improvement(group, reference):.2f}",
            f"{fmean(line['environment_steps'] for line in group):,.0f}",
            percent(_credited(group)),
            *_to_score(group, protocol.score),
            f"{fmean(sum(line['by_iteration']['seconds']) for line in group):.0f}",
        ]
        for key, group in groups.items()
    ]
    return markdown(header, rows)


def _improvement(group: Sequence[Line], reference: Sequence[float]) -> float:
    return float(probability_of_improvement([line["success_after"] for line in group], reference))


def _credited(group: Sequence[Line]) -> float:
    """Steps with credit, of all that were played."""
    return fmean(sum(line["by_iteration"]["credited_steps"]) / line["environment_steps"] for line in group)


def _to_score(group: Sequence[Line], score: float | None) -> list[str]:
    assert score is not None
    reached = [(line, int(at)) for line in group if (at := first_time(line["curve"], score)) is not None]
    cells = [f"{len(reached)} of {len(group)}"]
    if 2 * len(reached) <= len(group):
        return [*cells, *[MISSING] * 3]
    never = [float("inf")] * (len(group) - len(reached))
    for spent in (
        [count * line["episodes"] / line["iterations"] for line, count in reached],
        [sum(line["by_iteration"]["environment_steps"][:count]) for line, count in reached],
        [sum(line["by_iteration"]["seconds"][:count]) for line, count in reached],
    ):
        cells.append(f"{median([*spent, *never]):,.0f}")
    return cells
