"""What one worker of a pool has to do: its commands in order, and who waits for the answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from steppo_gym.rollouts.env_host import Command, StepCommand
from steppo_gym.rollouts.episode import Failure
from steppo_gym.rollouts.ray_workers import RayWorker
from steppo_gym.rollouts.step_result import Result, StepResult, StepTimeout
from steppo_gym.rollouts.worker_process import WorkerProcess

Worker = WorkerProcess | RayWorker
"""What hosts environments: a process on this machine, or an actor elsewhere that is used alike."""


@dataclass(eq=False)
class Batch:
    """Commands under way, at most one per slot. `EnvPool.wait` turns it into results."""

    results: dict[int, Result] = field(default_factory=dict)
    missing: set[int] = field(default_factory=set)
    """Workers that have not answered."""


class Lane:
    """A worker and what it has to do, in order.

    It is sent a list of commands only when it has answered the last one, so it always reads when the parent writes and
    neither can block the other, however long the texts are.
    """

    def __init__(self, index: int, slots: range, process: Worker) -> None:
        self.index, self.slots, self.process = index, slots, process
        self.losses = 0
        self._begun = False
        self._queue: deque[tuple[Batch, Sequence[Command]]] = deque()

    def begin(self) -> None:
        """The process is ready for its first commands."""
        self._begun = True
        self._send_next()

    def enqueue(self, batch: Batch, commands: Sequence[Command]) -> None:
        """Add commands; they are sent when those before them are answered."""
        self._queue.append((batch, commands))
        if self._begun and len(self._queue) == 1:
            self._send_next()

    def deliver(self, results: Sequence[Result]) -> None:
        """Take the answers to the commands sent last."""
        batch, commands = self._queue.popleft()
        self._answer(batch, commands, results)
        if any(
            isinstance(command, StepCommand) and isinstance(result, StepResult)
            for command, result in zip(commands, results, strict=True)
        ):
            self.losses = 0
        self._send_next()

    def restart(self, process: Worker) -> None:
        """Go on with a new process, after `fail`."""
        self.process, self._begun = process, False

    def fail(self, failure: Failure, late: int | None = None) -> None:
        """All that was asked of the process failed.

        Args:
            failure: what became of it.
            late: position of the command that it did not finish in time, None if it died.
        """
        while self._queue:
            batch, commands = self._queue.popleft()
            results: list[Result] = [failure] * len(commands)
            if late is not None and isinstance(commands[late], StepCommand):
                # What a response brought about; the other episodes of the process had no part in it.
                results[late] = StepTimeout(failure.message)
            self._answer(batch, commands, results)
            late = None

    def _answer(self, batch: Batch, commands: Sequence[Command], results: Sequence[Result]) -> None:
        batch.results.update(zip((command.slot for command in commands), results, strict=True))
        batch.missing.discard(self.index)

    def _send_next(self) -> None:
        if self._queue:
            self.process.send(self._queue[0][1])
