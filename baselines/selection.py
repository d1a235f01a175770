"""Which point of the grid an algorithm gets, from the grid's recorded lines."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from steppo_gym.baselines.compared.protocol import Algorithm, GridPoint, Protocol
from steppo_gym.baselines.jobs import grid_jobs, is_of, missing
from steppo_gym.baselines.tables.estimates import area_under_curve


class IncompleteGridError(Exception):
    """Grid runs that the choice needs have not been recorded."""


def choose(protocol: Protocol, algorithm: Algorithm, lines: Sequence[Mapping[str, Any]]) -> GridPoint:
    """The grid point with the best success on validation tasks at the end of training, as mean over the grid's seeds.

    Ties go to the larger area under the validation curve, then to the smaller learning rate, then to the smaller clip
    range, then to the option that comes first. A grid of one point needs no runs.

    Raises:
        IncompleteGridError: runs of this algorithm are missing.
    """
    points = protocol.points(algorithm)
    if len(points) == 1:
        return points[0]
    jobs = grid_jobs(protocol, [algorithm], protocol.grid_seeds)
    absent = list(missing(jobs, lines))
    if absent:
        named = "; ".join(job.name for job in absent)
        raise IncompleteGridError(f"The grid of {algorithm.key} lacks {len(absent)} of {len(jobs)} runs: {named}.")
    # The first of equals.
    return min(points, key=lambda point: _rank(protocol, algorithm, point, lines))


def grid_scores(
    protocol: Protocol, algorithm: Algorithm, point: GridPoint, lines: Sequence[Mapping[str, Any]]
) -> tuple[float, float]:
    """Final success and area under the curve of a grid point on validation tasks, as means over the recorded seeds."""
    jobs = [job for job in grid_jobs(protocol, [algorithm], protocol.grid_seeds) if job.point == point]
    curves = [line["curve"] for job in jobs for line in lines if is_of(line, job)]
    final = statistics.fmean(curve[-1][1] for curve in curves)
    return final, statistics.fmean(area_under_curve(curve) for curve in curves)


def _rank(
    protocol: Protocol, algorithm: Algorithm, point: GridPoint, lines: Sequence[Mapping[str, Any]]
) -> tuple[float, float, float, float]:
    final, area = grid_scores(protocol, algorithm, point, lines)
    # Rounded, so that the order in which seeds were summed makes no difference.
    return -round(final, 9), -round(area, 9), point.learning_rate, point.epsilon
