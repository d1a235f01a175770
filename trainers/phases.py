"""Where the time of a run goes: seconds by phase, each second in one of them.

On a GPU a kernel counts where it is waited for, which may be a phase later than where it was launched.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from transformers import TrainerCallback

PHASES = (
    "prefill", "generation", "environments", "records", "credit", "forward", "backward", "optimizer", "evaluation",
    "saving",
)  # fmt: skip
"""prefill: reading prompts; generation: sampling responses; environments: time in which nothing was done but wait for
them; records: what else a rollout does; credit: values, log-probabilities and advantages of an iteration."""


class Phases:
    """Counts the seconds of phases. A phase inside another takes its time from it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        """Of the whole run, by phase."""
        self._seen = dict(self.seconds)
        self._inside: list[float] = []
        self._whole = False

    @contextmanager
    def phase(self, name: str, *, whole: bool = False) -> Iterator[None]:
        """Count the time of a block.

        Args:
            name: one of `PHASES`.
            whole: phases inside of it are part of it.
        """
        if self._whole:
            yield
            return
        self._whole = whole
        self._inside.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds, self._whole = time.perf_counter() - started, False
            self.seconds[name] += seconds - self._inside.pop()
            if self._inside:
                self._inside[-1] += seconds

    def move(self, source: str, target: str, seconds: float) -> None:
        """Some of the time of one phase was that of another."""
        if not self._whole:
            self.seconds[source] -= seconds
            self.seconds[target] += seconds

    def since_last(self) -> dict[str, float]:
        """`phase_<name>_seconds` since the last call, of the phases that had some time."""
        new = {name: seconds - self._seen[name] for name, seconds in self.seconds.items()}
        self._seen = dict(self.seconds)
        return {f"phase_{name}_seconds": seconds for name, seconds in new.items() if seconds}

    def line(self) -> str:
        """The shares of all phases, the largest first."""
        total = sum(self.seconds.values())
        ordered = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(
            f"{name} {100 * seconds / total:.0f} %" for name, seconds in ordered if seconds > 0.005 * total
        )


class OptimizerClock(TrainerCallback):
    """Counts the time between transformers' events before and after a step of the optimizer.

    Args:
        phases: where it is counted.
    """

    def __init__(self, phases: Phases) -> None:
        self._phases = phases
        self._phase: AbstractContextManager[None] | None = None

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        """Begin."""
        self._phase = self._phases.phase("optimizer")
        self._phase.__enter__()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """End."""
        if self._phase is not None:
            self._phase.__exit__(None, None, None)
            self._phase = None
