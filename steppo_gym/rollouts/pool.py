"""A pool of environments, one per slot, in this process or in worker processes that may die.

    with EnvPool(EnvFactory("steppo/KeyDoor-v0"), num_slots=8, num_workers=2) as pool:
        batch = pool.submit([ResetCommand(slot=0, task_id="...", seed=1)])
        ...  # the workers are busy meanwhile
        results = pool.wait(batch)

Workers are processes on this machine, or actors on the machines of a Ray cluster (`steppo_gym.rollouts.ray_workers`).
A worker that dies or hangs is killed and started again. Its environments are lost: whatever is asked of them next is
answered with a `Failure` at the boundary "worker", until their slots are started anew. The other workers are not
touched. The one step that was not finished in time is answered with a `StepTimeout`. A worker that is lost with its
machine is not started again: the pool has fewer slots from then on, which is said on standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from multiprocessing.connection import wait
from typing import Any

from steppo_gym.errors import InfrastructureError
from steppo_gym.keywords import Context
from steppo_gym.rollouts.env_host import (
    Command,
    EnvDescription,
    EnvFactory,
    EnvHost,
    ResetCommand,
    RestoreCommand,
    StepCommand,
    describe_error,
)
from steppo_gym.rollouts.episode import Failure
from steppo_gym.rollouts.lane import Batch, Lane, Worker
from steppo_gym.rollouts.ray_workers import RayWorker, connect
from steppo_gym.rollouts.step_result import Result, StepResult, StepTimeout
from steppo_gym.rollouts.worker_process import WorkerGoneError, WorkerLostError, WorkerProcess

__all__ = [
    "Batch",
    "EnvFactory",
    "EnvPool",
    "ResetCommand",
    "RestoreCommand",
    "StepCommand",
    "StepResult",
    "StepTimeout",
]

MAX_RESTARTS = 3
"""A worker lost this often without one successful step in between is not started again."""

_POLL_SECONDS = 1.0


class EnvPool:
    """Environments for `num_slots` slots.

    Args:
        spec: the environments. Workers import no module of yours but the one in its "module:id".
        num_slots: environments in all.
        num_workers: processes to spread them over, ceil(num_slots / num_workers) in each; 0 keeps them in this process,
            where nothing protects the run from an environment that hangs or crashes.
        step_timeout: seconds one step may take before its worker counts as hanging.
        reset_timeout: seconds one reset may take, the making of the environment included.
        workers: where they are: None for this machine, or the address of a Ray cluster, "ray://auto" or
            "ray://host:10001", of which each takes one processor.

    Raises:
        TypeError: `spec` is no `EnvFactory`.
        ValueError: an argument outside its range.
        InfrastructureError: a worker could not be started.
        Exception: whatever an environment raised when it was made.
    """

    def __init__(
        self,
        spec: EnvFactory,
        *,
        num_slots: int,
        num_workers: int = 0,
        step_timeout: float = 60.0,
        reset_timeout: float = 300.0,
        workers: str | None = None,
    ) -> None:
        if not hasattr(spec, "make"):
            example = "EnvFactory('steppo/KeyDoor-v0', {'split': 'test'})"
            raise TypeError(f"spec must be an EnvFactory, such as {example}, found {type(spec).__name__}.")
        _check_arguments(num_slots, num_workers, step_timeout, reset_timeout)
        if workers is not None:
            if not num_workers:
                raise ValueError(f"Workers at {workers} need num_workers of 1 or more, got 0.")
            connect(workers)
        self._worker_class = WorkerProcess if workers is None else RayWorker
        self.num_slots = num_slots
        self._spec, self._step_timeout, self._reset_timeout = spec, step_timeout, reset_timeout
        self._host = EnvHost(spec)
        self._lost: dict[int, Failure] = {}
        self._gone: dict[int, Failure] = {}
        self._lanes: list[Lane] = []
        self._closed = False
        self._slots_per_worker = -(-num_slots // num_workers) if num_workers else num_slots
        try:
            if num_workers:
                for first in range(0, num_slots, self._slots_per_worker):
                    slots = range(first, min(first + self._slots_per_worker, num_slots))
                    self._lanes.append(Lane(len(self._lanes), slots, self._start_worker()))
                self._description, *_ = [self._await_description(lane) for lane in self._lanes]
            else:
                self._description = self._host.describe()
        except BaseException:
            self.close()
            raise

    @property
    def context(self) -> Context:
        """How the environments' observations become prompts: "rebuilt" or "append"."""
        return self._description.context

    @property
    def system_prompt(self) -> str:
        """The environments' system prompt."""
        return self._description.system_prompt

    @property
    def tools(self) -> tuple[dict[str, Any], ...]:
        """JSON schemas of the environments' tools."""
        return self._description.tools

    @property
    def description(self) -> EnvDescription:
        """What all environments of the pool have in common."""
        return self._description

    @property
    def worker_pids(self) -> tuple[int, ...]:
        """Process ids of the workers, empty if the environments are in this process."""
        return tuple(lane.process.pid for lane in self._lanes)

    def has(self, slot: int) -> bool:
        """Whether a slot can be used; not if its worker is gone."""
        return slot not in self._gone

    def submit(self, commands: Iterable[Command]) -> Batch:
        """Hand out commands, at most one per slot.

        With workers this returns at once; what a worker has to do already comes first. Without, it carries the commands
        out.

        Raises:
            ValueError: the pool is closed.
        """
        if self._closed:
            raise ValueError("The pool is closed: play inside of its `with`, or make another one.")
        batch = Batch()
        lists: dict[int, list[Command]] = {}
        for command in commands:
            lost = self._lost.pop(command.slot, None)
            if command.slot in self._gone:
                batch.results[command.slot] = self._gone[command.slot]
            elif lost is not None and isinstance(command, StepCommand):
                batch.results[command.slot] = lost
            elif self._lanes:
                lists.setdefault(command.slot // self._slots_per_worker, []).append(command)
            else:
                batch.results[command.slot] = self._host.run(command)
        for index, commands_of_worker in lists.items():
            batch.missing.add(index)
            self._lanes[index].enqueue(batch, commands_of_worker)
        return batch

    def wait(self, batch: Batch) -> dict[int, Result]:
        """Wait for a batch.

        Returns:
            What each slot of the batch answered: a `StepResult`, or a `StepTimeout` or `Failure` that ends its episode.

        Raises:
            InfrastructureError: a worker was lost `MAX_RESTARTS` times without one successful step, or all are gone.
        """
        while batch.missing:
            self._listen([batch], _POLL_SECONDS)
        return batch.results

    def poll(self, batches: Sequence[Batch], timeout: float) -> list[Batch]:
        """Those of some batches that are finished; waits for the first, but not longer than `timeout` seconds.

        Raises:
            InfrastructureError: as `wait`.
        """
        done = [batch for batch in batches if not batch.missing]
        if done or not batches:
            return done
        self._listen(batches, timeout)
        return [batch for batch in batches if not batch.missing]

    def close(self) -> None:
        """Close all environments and end the workers; a second call changes nothing."""
        self._closed = True
        self._host.close()
        # All are asked before the first is waited for, so that they end at the same time.
        for lane in self._lanes:
            lane.process.disconnect()
        for lane in self._lanes:
            lane.process.close()
        self._lanes = []

    def __enter__(self) -> EnvPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self, batches: Iterable[Batch], timeout: float) -> None:
        """Wait for any worker that is to answer some batches, and take what has come."""
        lanes = [self._lanes[index] for index in sorted(set().union(*(batch.missing for batch in batches)))]
        remaining = min(lane.process.deadline for lane in lanes) - time.monotonic()
        wait([lane.process.connection for lane in lanes], timeout=min(max(remaining, 0.0), timeout))
        for lane in lanes:
            self._advance(lane)

    def _start_worker(self) -> Worker:
        return self._worker_class(self._spec, step_timeout=self._step_timeout, reset_timeout=self._reset_timeout)

    def _await_description(self, lane: Lane) -> EnvDescription:
        while True:
            wait([lane.process.connection], timeout=_POLL_SECONDS)
            try:
                message = lane.process.receive()
            except WorkerLostError as error:
                lane.losses += 1
                if (
                    isinstance(error, WorkerGoneError)
                    or lane.losses >= MAX_RESTARTS
                    or time.monotonic() > lane.process.deadline
                ):
                    raise InfrastructureError("worker", str(error)) from error
                lane.process.kill()
                lane.restart(self._start_worker())
                continue
            if isinstance(message, Exception):
                raise message
            if isinstance(message, EnvDescription):
                lane.begin()
                return message

    def _advance(self, lane: Lane) -> None:
        """Read what a worker has sent, and send it what waits."""
        try:
            message = lane.process.receive()
            if isinstance(message, Exception):
                what = describe_error(message)
                raise WorkerLostError(f"A new environment process could not make its environment: {what}.")
        except WorkerGoneError as error:
            self._close_lane(lane, error)
            return
        except WorkerLostError as error:
            self._replace(lane, error)
            return
        if isinstance(message, EnvDescription):
            lane.begin()
        elif message is not None:
            lane.deliver(message)

    def _replace(self, lane: Lane, error: WorkerLostError) -> None:
        reason = str(error)
        lane.process.kill()
        lane.losses += 1
        if lane.losses >= MAX_RESTARTS:
            raise InfrastructureError(
                "worker",
                f"{reason} It is loss number {lane.losses} of this worker without one successful step. Check the "
                "machine's memory and the worker's error output, raise step_timeout and reset_timeout, or set "
                "num_workers=0 to find the cause.",
            )
        failure = Failure("worker", reason)
        self._lost.update(dict.fromkeys(lane.slots, failure))
        lane.fail(failure, error.late)
        lane.restart(self._start_worker())

    def _close_lane(self, lane: Lane, error: WorkerGoneError) -> None:
        """Go on without a worker and its slots."""
        lane.process.kill()
        failure = Failure("worker", str(error))
        lane.fail(failure)
        self._gone.update(dict.fromkeys(lane.slots, failure))
        left = self.num_slots - len(self._gone)
        if not left:
            raise InfrastructureError("worker", f"{error} It was the last one.")
        print(f"{error} {len(lane.slots)} slots fewer, {left} go on.", file=sys.stderr, flush=True)


def _check_arguments(num_slots: int, num_workers: int, step_timeout: float, reset_timeout: float) -> None:
    if num_slots < 1:
        raise ValueError(f"num_slots must be at least 1, got {num_slots}.")
    if num_workers < 0:
        raise ValueError(f"num_workers must be 0 or more, got {num_workers}.")
    if not (step_timeout > 0 and reset_timeout > 0):
        raise ValueError(f"step_timeout and reset_timeout must be positive, got {step_timeout} and {reset_timeout}.")
