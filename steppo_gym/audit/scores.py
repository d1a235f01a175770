"""How near the credit of a rule is to the true advantages of the same steps. Pure numpy, float64.

In all functions `credit` and `truth` are (D,) of the same steps: what the rule gave the response, and A*(s, a). It is
compared for its direction and not for its size, which the learning rate takes up: no score changes when all credit is
multiplied by one positive number.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.ragged import Array
from steppo_gym.credit.records import NO_CREDIT, Credit, has_credit


def credit_of_steps(credit: Credit, tokens_per_step: Sequence[int]) -> Array:
    """(N,) what a rule gives each response: its advantage, or the mean of those of its tokens.

    Args:
        credit: of a rule, with advantages as they enter the loss.
        tokens_per_step: (N,) lengths; a response without tokens has credit 0.
    """
    if credit.unit == "step":
        return credit.advantages
    lengths = np.array(tokens_per_step, np.int64)
    ends = np.cumsum(lengths)
    sums = np.concatenate([[0.0], np.cumsum(credit.advantages)])
    return (sums[ends] - sums[ends - lengths]) / np.maximum(lengths, 1)


def sign_accuracy(credit: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Share of steps whose credit has the sign of the truth; no credit counts as half right, as a coin would be.

    Steps with a truth of 0 have no right sign and are left out. Meant for the steps that matter: pass these alone.

    Returns:
        0 to 1, 0.5 for credit that knows nothing; NaN if no step is left.
    """
    credit, truth = _same(credit, truth)
    kept = truth != 0
    agrees = np.sign(np.where(has_credit(credit), credit, 0.0)[kept]) * np.sign(truth[kept])
    return float((agrees.mean() + 1) / 2) if kept.any() else float("nan")


def rank_correlation(credit: npt.ArrayLike, truth: npt.ArrayLike) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks.

    Returns:
        -1 to 1, NaN if either side is the same everywhere.
    """
    credit, truth = _same(credit, truth)
    if not len(truth):
        return _NAN
    a, b = _ranks(credit), _ranks(truth)
    return _cosine(a - a.mean(), b - b.mean(), None)


def gradient_cosine(credit: npt.ArrayLike, truth: npt.ArrayLike, gram: npt.ArrayLike | None = None) -> float:
    """Cosine between the policy gradient that the credit gives and the one that the truth gives.

    On policy and before clipping the gradient over some steps is g(c) = sum_i c_i score_i, score_i the gradient of the
    log-probability of response i. Inner products of such sums need only those of the scores, their Gram matrix.

    Args:
        credit: of a rule.
        truth: true advantages.
        gram: (D, D) float, inner products of the scores. None takes all scores to be of one length and at right angles
            to each other, which leaves the cosine of the two lists of numbers: a stand-in where there is no model.

    Returns:
        -1 to 1, NaN if either gradient is 0.
    """
    credit, truth = _same(credit, truth)
    if gram is not None and np.shape(gram) != (len(truth), len(truth)):
        raise ValueError(f"gram must have shape {(len(truth), len(truth))}, got {np.shape(gram)}.")
    return _cosine(credit, truth, None if gram is None else np.asarray(gram, np.float64))


def dose(credit: npt.ArrayLike) -> float:
    """Share of steps that have credit at all, NaN of none."""
    credit = np.asarray(credit, np.float64)
    return float(has_credit(credit).mean()) if credit.size else _NAN


@dataclass(frozen=True)
class Error:
    """What the mean square of credit minus truth is made of, in shares of the mean square of the truth."""

    bias: float
    """Of the mean credit of each step over batches, against the truth: what more batches do not mend."""
    variance: float
    """Of the credit of one step from batch to batch."""
    scale: float
    """What the credit was multiplied with before, the factor that makes the whole error smallest; 0 where credit has
    nothing to do with the truth, so that `bias` is 1 and `variance` 0."""

    @property
    def total(self) -> float:
        """Mean square of credit minus truth, 0 for the truth itself and 1 for no credit."""
        return self.bias + self.variance


def credit_error(steps: Sequence[int], credit: npt.ArrayLike, truth: npt.ArrayLike) -> Error:
    """Bias and variance of credit over resampled batches.

    Every step counts the same, however often it was sampled. The variance of a step is its mean square deviation, so it
    is low by 1/n for n samples, and bias is high by as much: the two always add up to the whole.

    Args:
        steps: (S,) int, which step (0 to D - 1) each sample is of.
        credit: (S,) float, its credit in one batch.
        truth: (D,) float.

    Raises:
        ValueError: the shapes do not fit together, or a step is none.
    """
    truth = np.asarray(truth, np.float64)
    numbers, (credit,) = np.asarray(steps, np.int64), (np.asarray(credit, np.float64),)
    if numbers.shape != credit.shape or (len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(truth)):
        raise ValueError(f"steps and credit must be equally many and name steps 0 to {len(truth) - 1}.")
    counts = np.bincount(numbers, minlength=len(truth))
    seen = counts > 0
    number = np.maximum(counts, 1)
    means = np.bincount(numbers, credit, len(truth)) / number
    squares = np.bincount(numbers, credit * credit, len(truth)) / number
    size = float((truth[seen] ** 2).mean()) if seen.any() else 0.0
    if size == 0:
        return Error(_NAN, _NAN, _NAN)
    power = float(squares[seen].mean())
    scale = max(float((means * truth)[seen].mean()) / power, 0.0) if power > NO_CREDIT**2 else 0.0
    bias = float(((scale * means - truth)[seen] ** 2).mean())
    variance = scale**2 * float(np.maximum(squares - means**2, 0)[seen].mean())
    return Error(bias / size, variance / size, scale)


@dataclass(frozen=True)
class Scores:
    """All scores of one rule on some steps."""

    number: int
    """Samples of credit, of all steps."""
    sign: float
    """On the steps that matter."""
    rank: float
    cosine: float
    dose: float
    error: Error


def score(
    steps: Sequence[int],
    credit: npt.ArrayLike,
    truth: npt.ArrayLike,
    matters: Sequence[bool],
    gram: npt.ArrayLike | None = None,
) -> Scores:
    """Score samples of credit. Sign, rank and dose are over samples; the cosine is that of their sum over batches.

    Args:
        steps: (S,) int, which step (0 to D - 1) each sample is of.
        credit: (S,) float.
        truth: (D,) float.
        matters: (D,) bool, on which steps signs count.
        gram: (D, D) float, as in `gradient_cosine`.
    """
    numbers, given = np.asarray(steps, np.int64), np.asarray(credit, np.float64)
    true = np.asarray(truth, np.float64)
    error = credit_error(steps, given, true)
    counts = np.bincount(numbers, minlength=len(true))
    means = np.bincount(numbers, given, len(true)) / np.maximum(counts, 1)
    seen = counts > 0
    picked = None if gram is None else np.asarray(gram, np.float64)[np.ix_(seen, seen)]
    judged = np.asarray(matters, bool)[numbers]
    return Scores(
        number=len(numbers),
        sign=sign_accuracy(given[judged], true[numbers][judged]),
        rank=rank_correlation(given, true[numbers]),
        cosine=gradient_cosine(means[seen], true[seen], picked),
        dose=dose(given),
        error=error,
    )


def score_by(
    classes: Sequence[Hashable],
    steps: Sequence[int],
    credit: npt.ArrayLike,
    truth: npt.ArrayLike,
    matters: Sequence[bool],
    gram: npt.ArrayLike | None = None,
) -> dict[Hashable, Scores]:
    """`score` for each class of steps alone, such as those of one horizon or of one length of response.

    Args:
        classes: (D,) the class of each step.
        steps: as for `score`, like all that follow.
        credit: see there.
        truth: see there.
        matters: see there.
        gram: see there.
    """
    numbers, given = np.asarray(steps, np.int64), np.asarray(credit, np.float64)
    of_sample = [classes[number] for number in numbers]
    out: dict[Hashable, Scores] = {}
    for name in dict.fromkeys(classes):
        kept = np.array([found == name for found in of_sample], bool)
        if kept.any():
            out[name] = score(numbers[kept].tolist(), given[kept], truth, matters, gram)
    return out


_NAN = float("nan")


def _same(credit: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Array, Array]:
    credit, truth = np.asarray(credit, np.float64), np.asarray(truth, np.float64)
    if credit.shape != truth.shape or credit.ndim != 1:
        raise ValueError(f"credit and truth must be lists of one length, got {credit.shape} and {truth.shape}.")
    return credit, truth


def _ranks(x: Array) -> Array:
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _cosine(a: Array, b: Array, gram: Array | None) -> float:
    image = (lambda x: x) if gram is None else (lambda x: gram @ x)
    aa, bb = float(a @ image(a)), float(b @ image(b))
    if aa <= 0 or bb <= 0:
        return _NAN
    return float(np.clip(a @ image(b) / np.sqrt(aa) / np.sqrt(bb), -1, 1))
