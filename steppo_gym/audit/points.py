"""Decision points: which steps of played episodes are audited, and what was found out about each.

The rule of choice: every step of every episode that did not fail is as likely as any other, drawn without replacement.
So shares and means over the points estimate those over the steps a training batch would have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np

from steppo_gym.audit.intervals import Interval, mean_interval
from steppo_gym.errors import DataError
from steppo_gym.rollouts.episode import Episode

Verdict = Literal["matters", "indifferent", "single", "open"]


@dataclass(frozen=True)
class Arm:
    """A response that was tried at a decision point."""

    response_ids: tuple[int, ...]
    response: str
    draws: int
    """How often the policy began with it, among the point's free continuations."""
    returns: tuple[float | None, ...]
    """(n,) discounted, its own reward included; None for a continuation that failed."""


@dataclass(frozen=True)
class AuditedPoint:
    """What was played from the state of one step. Samples with one number met the same random numbers."""

    step: int
    """Number among all steps of the audited episodes, those of the first episode first."""
    episode: int
    place: int
    """Steps of the episode before it."""
    num_steps: int
    """Of the episode."""
    group: int
    free: tuple[float | None, ...]
    """(n,) discounted returns of continuations whose first response was the policy's own as well."""
    arms: tuple[Arm, ...]
    """The response that was taken, then those that the policy began with most often beside it."""

    def value(self) -> float:
        """V*(s): the mean of the free continuations, NaN if all failed."""
        played = [x for x in self.free if x is not None]
        return float(np.mean(played)) if played else float("nan")

    def advantage(self, arm: int = 0, *, reach: float) -> Interval:
        """A*(s, a) = Q(s, a) - V(s) with its 95 % interval, by differences of continuations with one number.

        Args:
            arm: which; 0 is the response that was taken.
            reach: largest difference of two returns.

        Raises:
            ValueError: there are no two continuations to compare.
        """
        return mean_interval(_differences(self.arms[arm].returns, self.free), reach=reach)

    def verdict(self, threshold: float, *, reach: float) -> Verdict:
        """Whether the choice matters here: whether two supported responses differ in value by more than a threshold.

        All pairs of arms are compared, at 95 % confidence for all together (Bonferroni).

        Args:
            threshold: on the scale of returns, not negative.
            reach: largest difference of two returns.

        Returns:
            "matters" if some pair is beyond it, "indifferent" if all pairs are within it, "open" if this many
            continuations cannot tell, "single" if the policy supports no second response.
        """
        pairs = list(combinations(self.arms, 2))
        if not pairs:
            return "single"
        each = 1 - (1 - 0.95) / len(pairs)
        # A response all of whose continuations failed is compared with none.
        found = [differences for a, b in pairs if (differences := _differences(a.returns, b.returns))]
        gaps = [mean_interval(differences, reach=reach, confidence=each) for differences in found]
        if any(gap.beyond(threshold) for gap in gaps):
            return "matters"
        known = len(gaps) == len(pairs) and all(gap.within(threshold) for gap in gaps)
        return "indifferent" if known else "open"

    def to_json(self) -> str:
        """One line of JSON; `AuditedPoint.from_json` gives back an equal record."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> AuditedPoint:
        """Read a line of `to_json`.

        Raises:
            DataError: it is none.
        """
        try:
            record: dict[str, Any] = json.loads(line)
            arms = tuple(
                Arm(tuple(arm.pop("response_ids")), returns=tuple(arm.pop("returns")), **arm)
                for arm in record.pop("arms")
            )
            return cls(free=tuple(record.pop("free")), arms=arms, **record)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"No audited point: {error}. The line begins with {line[:60]!r}.") from error


def choose_points(episodes: Sequence[Episode], number: int, *, seed: int) -> list[int]:
    """Draw the steps to audit, all as likely, without replacement.

    Args:
        episodes: their steps are numbered through; failed ones are passed over.
        number: how many; all, if there are not as many.
        seed: of the draw.

    Returns:
        Numbers of steps, in order.
    """
    if number < 1:
        raise ValueError(f"The number of decision points must be at least 1, got {number}.")
    usable = np.repeat([e.ended != "failed" for e in episodes], [e.num_steps for e in episodes]).astype(bool)
    steps = np.flatnonzero(usable)
    drawn = np.random.default_rng(seed).permutation(len(steps))[:number]
    return sorted(steps[drawn].tolist())


def _differences(a: Sequence[float | None], b: Sequence[float | None]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True) if x is not None and y is not None]
