"""Normalizing advantages over a whole batch, which may be spread over processes. Pure numpy, float64.

In a distributed run every process gathers the moments of all, in the order of the ranks, and whitens with their merger:

    everywhere = merge_moments(gather(moments(advantages)))
    advantages = whiten(advantages, everywhere)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


class Moments(NamedTuple):
    """What `whiten` must know of an array; parts of a distributed array are put together with `merge_moments`."""

    count: float  # pyright: ignore[reportIncompatibleMethodOverride]  (hides tuple.count, which nobody needs)
    mean: float
    squared_deviations: float
    """Sum over the elements of (x - mean)^2; unlike a sum of squares it does not cancel when the mean is large."""

    @property
    def std(self) -> float:
        """Unbiased standard deviation, 0.0 for fewer than two elements."""
        return float(np.sqrt(self.squared_deviations / (self.count - 1))) if self.count > 1 else 0.0


def moments(x: npt.ArrayLike) -> Moments:
    """Count, mean and sum of squared deviations of all elements, in two passes.

    Args:
        x: float, any shape; empty gives (0, 0, 0).
    """
    x = np.asarray(x, np.float64).ravel()
    if x.size == 0:
        return Moments(0.0, 0.0, 0.0)
    shifted = x - x[0]  # equal elements have exactly mean x[0] and deviation 0
    offset = shifted.mean()
    return Moments(float(x.size), float(x[0] + offset), float(((shifted - offset) ** 2).sum()))


def merge_moments(parts: Iterable[Moments]) -> Moments:
    """Moments of the concatenation of arrays (Chan, Golub and LeVeque 1979, pairwise update).

    Args:
        parts: one for each process; in the same order everywhere, so that all processes get the same floats.
    """
    count, mean, squared_deviations = 0.0, 0.0, 0.0
    for part in parts:
        if part.count == 0:
            continue
        total = count + part.count
        delta = part.mean - mean
        squared_deviations += part.squared_deviations + delta * delta * count * part.count / total
        mean += delta * (part.count / total)  # exact for the first part
        count = total
    return Moments(count, mean, squared_deviations)


def whiten(x: npt.ArrayLike, over: Moments | None = None) -> Array:
    """Subtract the mean, divide by (unbiased standard deviation + 1e-8): StepPO does it over all steps of a batch.

    Deviation from the released code: a single element, whose standard deviation is undefined, gives 0 and not NaN.

    Args:
        x: float, any shape.
        over: moments of everything `x` is a part of, for distributed runs; by default those of `x`.

    Returns:
        float, the shape of `x`.
    """
    x = np.asarray(x, np.float64)
    over = moments(x) if over is None else over
    return (x - over.mean) / (over.std + 1e-8)
