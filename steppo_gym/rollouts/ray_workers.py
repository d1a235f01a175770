"""Environments on the machines of a Ray cluster: the workers of a pool as actors.

    with EnvPool(EnvFactory("steppo/KeyDoor-v0"), num_slots=64, num_workers=16, workers="ray://auto") as pool:
        ...

An actor runs the same `EnvHost` as a worker process. Clocks of machines differ, so a deadline is a duration that
begins when the parent has seen the command before done. A worker whose machine is lost, or for which the cluster has no
room any more, is gone for good: the pool goes on with fewer slots. Every machine needs this package, of one version,
and the environment's data.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import socket
import time
from collections.abc import Sequence
from typing import Any

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import Command, EnvDescription, EnvFactory, EnvHost, StepCommand
from steppo_gym.rollouts.step_result import Result
from steppo_gym.rollouts.worker_process import WorkerGoneError, WorkerLostError, describe_host

PREFIX = "ray://"
_CLOSING_SECONDS = 5.0
_PLACING_SECONDS = 30.0
"""How long a cluster may take to find room for an actor."""
_KNOCKING_SECONDS = 2.0
"""How long a machine may take to open a connection."""


def connect(address: str) -> None:
    """Join a cluster, unless this process has joined one already.

    Args:
        address: "ray://auto" for the cluster that this machine is part of, or "ray://host:10001" for one that is
            reached through Ray's client server.

    Raises:
        ValueError: no such address.
        InfrastructureError: Ray is not installed, or no cluster answers; boundary "worker".
    """
    if not address.startswith(PREFIX) or len(address) == len(PREFIX):
        raise ValueError(f'Workers elsewhere are named by "ray://auto" or "ray://host:10001", got {address!r}.')
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError:
        raise InfrastructureError(
            "worker", "Environments on a Ray cluster need an extra package. Run `pip install 'steppo-gym[ray]'`."
        ) from None
    if ray.is_initialized():
        return
    try:
        ray.init("auto" if address == f"{PREFIX}auto" else address, log_to_driver=False)
    except Exception as error:
        raise InfrastructureError(
            "worker", f"No Ray cluster answers at {address} ({error}). Start one with `ray start --head`."
        ) from error


class _HostActor:
    """What a worker process does, in an actor: one command after the other."""

    def __init__(self, spec: EnvFactory) -> None:
        self._host = EnvHost(spec)

    def place(self) -> tuple[str, int]:
        """The ids of the machine and of the process."""
        import ray  # type: ignore[import-not-found]

        return ray.get_runtime_context().get_node_id(), os.getpid()

    def describe(self) -> EnvDescription | Exception:
        """What the environments have in common."""
        return describe_host(self._host)

    def run(self, command: Command) -> Result:
        """Carry out one command."""
        return self._host.run(command)

    def close(self) -> None:
        """Close the environments."""
        self._host.close()


class RayWorker:
    """The parent's handle of one actor, used as that of a worker process is.

    Args:
        spec: the environments to host.
        step_timeout: seconds one step may take.
        reset_timeout: seconds one reset may take, and the start of the actor.
    """

    def __init__(self, spec: EnvFactory, *, step_timeout: float, reset_timeout: float) -> None:
        import ray  # type: ignore[import-not-found]

        self._ray: Any = ray
        self._step_timeout, self._reset_timeout = step_timeout, reset_timeout
        actor_class: Any = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_HostActor)
        self._actor = actor_class.options(scheduling_strategy="SPREAD").remote(spec)
        # Only to be woken by: what was answered comes through Ray.
        self.connection, self._wake = multiprocessing.Pipe(duplex=False)
        self.pid = 0
        self.deadline = math.inf
        self._node: str | None = None
        self._commands: Sequence[Command] = ()
        self._results: list[Result] = []
        self._pending: list[Any] = []
        # Apart from each other: an environment may take long to make, an actor that has room does not.
        self._expect(
            [self._actor.place.remote(), self._actor.describe.remote()],
            "its start",
            min(reset_timeout, _PLACING_SECONDS),
        )

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, at least one. The results of the last ones must have been received."""
        self._commands, self._results = tuple(commands), []
        self._expect([self._actor.run.remote(command) for command in commands], *self._limit(commands[0]))

    def receive(self) -> EnvDescription | Exception | list[Result] | None:
        """What has arrived, or None; see `WorkerProcess.receive`.

        Raises:
            WorkerLostError: the actor died or is past its deadline.
            WorkerGoneError: so it is, and there is no use in starting another one.
        """
        while self.connection.poll():
            self.connection.recv_bytes()
        while self._pending and self._ray.wait(self._pending[:1], timeout=0)[0]:
            answer = self._get(self._pending.pop(0))
            if self._node is None:
                self._node, self.pid = answer
                self._begin(f"its start within reset_timeout={self._reset_timeout:g} s", self._reset_timeout)
                continue
            if not self._commands:
                self.deadline = math.inf
                return answer
            self._results.append(answer)
            if self._pending:
                self._begin(*self._limit(self._commands[len(self._results)]))
            else:
                self.deadline = math.inf
                return self._results
        if time.monotonic() > self.deadline:
            if self._node is None:
                raise WorkerGoneError(f"{self} has not begun: the cluster has no room for it.")
            late = len(self._results) if self._commands else None
            raise WorkerLostError(f"{self} did not finish {self._task}.", late=late)
        return None

    def disconnect(self) -> None:
        """Ask the actor to close its environments."""
        with contextlib.suppress(Exception):
            self._pending = [self._actor.close.remote()]

    def close(self, timeout: float = _CLOSING_SECONDS) -> None:
        """End the actor, by force if it has not closed its environments `timeout` seconds after being asked."""
        with contextlib.suppress(Exception):
            self._ray.wait(self._pending, timeout=timeout)
        self.kill()

    def kill(self) -> None:
        """End the actor, now; a second call changes nothing."""
        with contextlib.suppress(Exception):
            self._ray.kill(self._actor)
        self._pending, self.deadline = [], math.inf
        for end in (self.connection, self._wake):
            end.close()

    def __str__(self) -> str:
        return f"The environment process {self.pid or '(not started yet)'} on {self._node or 'the Ray cluster'}"

    def _limit(self, command: Command) -> tuple[str, float]:
        name = "step" if isinstance(command, StepCommand) else "reset"
        seconds = self._step_timeout if name == "step" else self._reset_timeout
        return f"a {name} within {name}_timeout={seconds:g} s", seconds

    def _expect(self, references: list[Any], task: str, seconds: float) -> None:
        self._pending = references
        for reference in references:
            reference.future().add_done_callback(self._on_done)
        self._begin(task, seconds)

    def _begin(self, task: str, seconds: float) -> None:
        self._task, self.deadline = task, time.monotonic() + seconds

    def _on_done(self, _: object) -> None:
        with contextlib.suppress(OSError):
            self._wake.send_bytes(b"!")

    def _get(self, reference: Any) -> Any:
        try:
            return self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            said = " ".join(str(error).split())
            if self._is_alone(said):
                raise WorkerGoneError(f"{self} is lost with its machine ({type(error).__name__}).") from error
            raise WorkerLostError(f"{self} died ({type(error).__name__}: {said[:200]}).") from error

    def _is_alone(self, said: str) -> bool:
        """Whether the actor's machine is lost too. The cluster itself takes half a minute to notice.

        Until then it puts new actors there, which have to be started once more.
        """
        if self._node is None:
            return False
        if "node has died" in said:
            return True
        found = [node for node in self._ray.nodes() if node["NodeID"] == self._node]
        if not found or not found[0]["Alive"]:
            return True
        if self._ray.util.client.ray.is_connected():
            # From outside of the cluster its machines may not be reached.
            return False
        try:
            address = (found[0]["NodeManagerAddress"], found[0]["NodeManagerPort"])
            socket.create_connection(address, timeout=_KNOCKING_SECONDS).close()
        except OSError:
            return True
        return False
