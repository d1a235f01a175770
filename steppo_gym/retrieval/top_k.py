"""The best of many scores, in an order that depends on nothing but the scores."""

from __future__ import annotations

import numpy as np


def top_k(scores: np.ndarray, k: int) -> np.ndarray:
    """Where the `k` highest scores are: score descending, then index ascending.

    Args:
        scores: (N,) float, no NaN.
        k: at least 1.

    Returns:
        (min(k, N),) int64, indices into `scores`.
    """
    if k < len(scores):
        lowest = np.partition(scores, len(scores) - k)[len(scores) - k]
        # All that tie with the last one: which of them is among the best is up to the index.
        candidates = np.flatnonzero(scores >= lowest)
    else:
        candidates = np.arange(len(scores))
    return candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
