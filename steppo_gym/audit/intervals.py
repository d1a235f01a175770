"""Intervals for means of differences and for shares, from few samples that may all be equal.

Returns of episodes are often 0 or 1, and where sixteen continuations all end alike the usual interval has no width
although nothing is certain. Both intervals here add what was not seen: `mean_interval` two further samples at the ends
of the range, `share_interval` is Wilson's.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Interval:
    """An estimate and the ends of its confidence interval."""

    estimate: float
    low: float
    high: float

    def covers(self, x: float) -> bool:
        """Whether x lies in it, ends included."""
        return self.low <= x <= self.high

    def beyond(self, threshold: float) -> bool:
        """Whether all of it is further from 0 than a threshold that is not negative."""
        return self.low > threshold or self.high < -threshold

    def within(self, threshold: float) -> bool:
        """Whether all of it is at most as far from 0 as a threshold."""
        return -threshold <= self.low and self.high <= threshold


def mean_interval(samples: npt.ArrayLike, *, reach: float, confidence: float = 0.95) -> Interval:
    """Interval for the mean of samples, with one more sample at each end of their range.

    For differences of paired outcomes that are 0 or 1 (`reach` 1) it is the adjusted Wald interval of Bonett and Price
    (J. Educ. Behav. Stat. 37, 2012), which keeps its level where the plain one does not; here it is applied to
    differences of returns in [-reach, reach] as well. The estimate is the plain mean.

    Args:
        samples: (n,) float, independent, n at least 1.
        reach: the largest absolute value a sample can have, positive.
        confidence: between 0 and 1, both excluded.

    Raises:
        ValueError: there is no sample, one is beyond the reach, or an argument is outside its range.
    """
    samples = np.asarray(samples, np.float64)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"samples must be a list of at least one number, got shape {samples.shape}.")
    if not reach > 0 or np.abs(samples).max() > reach * (1 + 1e-9):
        raise ValueError(f"reach must be at least the largest sample, {np.abs(samples).max():g}, got {reach:g}.")
    more = np.concatenate([samples, [-reach, reach]])
    half = _quantile(confidence) * float(np.sqrt(more.var() / len(more)))
    center = float(more.mean())
    return Interval(float(samples.mean()), max(center - half, -reach), min(center + half, reach))


def share_interval(count: int, number: int) -> Interval:
    """Wilson's 95 % score interval for a share (J. Am. Stat. Assoc. 22, 1927); (0, 1) where nothing was counted.

    Args:
        count: how many of them, at most `number`.
        number: how many in all.
    """
    if not 0 <= count <= number:
        raise ValueError(f"count must be between 0 and {number}, got {count}.")
    z = _quantile(0.95)
    if not number:
        return Interval(float("nan"), 0.0, 1.0)
    share, spread = count / number, z * z / number
    center = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * float(np.sqrt(share * (1 - share) / number + spread / (4 * number)))
    return Interval(share, max(center - half, 0.0), min(center + half, 1.0))


def _quantile(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, both excluded, got {confidence}.")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
