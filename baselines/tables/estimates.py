"""Statistics over seeds: means, intervals, paired tests, interquartile means, areas under curves. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FEWEST_FOR_AN_INTERVAL = 5
"""Below, an interval says little more than that there are few runs: theirs are shown."""


@dataclass(frozen=True)
class Estimate:
    """A mean over runs, with a 95 % interval or, where there are too few runs for one, the lowest and highest run."""

    mean: float
    low: float
    high: float
    runs: int

    @property
    def is_range(self) -> bool:
        """Whether low and high are the lowest and highest run instead of an interval."""
        return self.runs < FEWEST_FOR_AN_INTERVAL


def estimate(values: Sequence[float]) -> Estimate:
    """Mean with the range of few values, or with Student's interval of at least `FEWEST_FOR_AN_INTERVAL`.

    Args:
        values: (N,) float, one per run, at least one.
    """
    if len(values) >= FEWEST_FOR_AN_INTERVAL:
        return t_interval(values)
    return Estimate(float(np.mean(values)), min(values), max(values), len(values))


def bounds_told(sizes: Iterable[int]) -> str:
    """What `estimate` bounds means of so many runs by, in words for a legend."""
    kinds = {size >= FEWEST_FOR_AN_INTERVAL for size in sizes}
    names = {False: "range of the runs", True: "95 % interval of the mean"}
    return " or ".join(names[kind] for kind in sorted(kinds, reverse=True))


def t_interval(values: Sequence[float]) -> Estimate:
    """Mean over seeds with Student's 95 % interval.

    Of few seeds a percentile bootstrap would be too narrow: with five it covers the mean of a normal sample less than
    85 times in 100. This one may reach beyond 0 and 1.

    Args:
        values: (N,) float, one per run, at least two.
    """
    sample = np.asarray(values, np.float64)
    mean, freedom = float(sample.mean()), len(sample) - 1
    width = student_quantile(0.95, freedom) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Estimate(mean, mean - width, mean + width, len(sample))


def probability_of_improvement(values: npt.ArrayLike, reference: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Share of pairs of runs in which a run of `values` is higher than one of `reference`; equal counts half.

    As in arXiv:2108.13264, section 4.3.

    Args:
        values: (..., N) float.
        reference: (..., M) float.

    Returns:
        (...) float.
    """
    own, other = np.asarray(values, np.float64)[..., :, None], np.asarray(reference, np.float64)[..., None, :]
    return np.asarray((own > other).mean(axis=(-2, -1)) + 0.5 * (own == other).mean(axis=(-2, -1)))


def paired_t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired t test that the mean difference is 0.

    Args:
        differences: (N,) float, one per pair.

    Returns:
        None where there is no test: fewer than two pairs, or all differences equal.
    """
    sample = np.asarray(differences, np.float64)
    if len(sample) < 2 or np.ptp(sample) < 1e-12:
        return None
    t = float(sample.mean() / (sample.std(ddof=1) / math.sqrt(len(sample))))
    return two_sided_p(t, len(sample) - 1)


def two_sided_p(t: float, freedom: int) -> float:
    """P(|T| > |t|) for Student's distribution with whole degrees of freedom."""
    return 1.0 - _student(abs(t), freedom)


def student_quantile(share: float, freedom: int) -> float:
    """The t with P(|T| <= t) equal to a share below 1, to 1e-9."""
    low, high = 0.0, 1.0
    while _student(high, freedom) < share:
        high *= 2
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _student(middle, freedom) < share else (low, middle)
    return high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979): p values of a family of tests.

    Args:
        p_values: one per comparison; None, where there was no test, stays None and is not counted.

    Returns:
        The corrected values in the same order, at most 1.
    """
    tests = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(tests):
        highest = max(highest, min(1.0, p * (len(tests) - rank)))
        corrected[index] = highest
    return corrected


def _student(t: float, freedom: int) -> float:
    """P(|T| <= t) for Student's distribution, whole degrees of freedom (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(freedom))
    first, start = (1.0, 2) if freedom % 2 == 0 else (math.cos(angle), 3)
    terms, term = (0.0, first) if freedom > 1 else (0.0, 0.0)
    for k in range(start, freedom + 1, 2):
        terms += term
        term *= (k - 1) / k * math.cos(angle) ** 2
    series = math.sin(angle) * terms
    return series if freedom % 2 == 0 else 2 / math.pi * (angle + series)


def interquartile_mean(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Mean without the lowest and the highest quarter, as in arXiv:2108.13264.

    From each end floor(N / 4) values are left out, so that below four values it is the mean.

    Args:
        values: (..., N) float.

    Returns:
        (...) float.
    """
    ordered = np.sort(np.asarray(values, np.float64), axis=-1)
    size = ordered.shape[-1]
    return np.asarray(ordered[..., size // 4 : size - size // 4].mean(axis=-1))


def area_under_curve(points: Sequence[Sequence[float]]) -> float:
    """Mean height of a curve, by the trapezoidal rule: its area over its width.

    Args:
        points: (P, 2 or more) iteration, value and whatever follows, iterations rising. A curve of one point has that
            point's height.
    """
    x, y = np.array([point[:2] for point in points], np.float64).T
    return float(np.trapezoid(y, x) / (x[-1] - x[0]) if len(x) > 1 else y[0])


def first_time(points: Sequence[Sequence[float]], score: float) -> float | None:
    """The first iteration at which a curve is at least at a score, None if it never is.

    Args:
        points: (P, 2 or more) iteration, value and whatever follows, iterations rising.
        score: that is asked for.
    """
    return next((point[0] for point in points if point[1] >= score), None)
