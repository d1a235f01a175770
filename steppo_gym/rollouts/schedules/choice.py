"""One group of all slots or two halves: found out by playing with both at the start of a rollout.

Halves hide what environments take behind generation, and one group generates for twice as many slots at once, which
costs less than twice as much. Which is faster depends on model, environment and machine; the episodes are the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CYCLES = 3
"""Of a trial. The first one after a change is not counted: nothing is under way then that it could hide."""

TRIALS = (False, True, True, False)
"""With halves or without; in this order contexts that grow favor neither."""

WORTH_IT = 0.9
"""Halves are kept where they take less than this share of the time. What is nearly a tie is decided alike in every run,
so that runs repeat to the last bit: another number of rows in a batch rounds otherwise.
"""


@dataclass
class Choice:
    """What the next cycle is played with; a cycle generates once for every slot."""

    overlap: bool | None
    """What was asked for or found out; None while both are tried."""
    _num_cycles: int = 0
    _seconds: dict[bool, float] = field(default_factory=lambda: dict.fromkeys(TRIALS, 0.0))
    _requests: dict[bool, int] = field(default_factory=lambda: dict.fromkeys(TRIALS, 0))

    @property
    def halves(self) -> bool:
        """Whether the next cycle is played in two halves."""
        return TRIALS[self._num_cycles // CYCLES] if self.overlap is None else self.overlap

    def note(self, seconds: float, num_requests: int) -> None:
        """Take the time of a cycle and the requests it answered; after the last trial, choose."""
        if self.overlap is not None:
            return
        trial, place = divmod(self._num_cycles, CYCLES)
        halves = TRIALS[trial]
        if place or (trial and TRIALS[trial - 1] == halves):
            self._seconds[halves] += seconds
            self._requests[halves] += num_requests
        self._num_cycles += 1
        if self._num_cycles == CYCLES * len(TRIALS):
            one, two = (self._seconds[kind] / max(self._requests[kind], 1) for kind in (False, True))
            self.overlap = two < WORTH_IT * one
