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
import time
from collections.abc import Sequence
from typing import Any

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import Command, EnvDescription, EnvFactory, EnvHost, StepCommand
from steppo_gym.rollouts.step_result import Result
from steppo_gym.rollouts.worker_process import WorkerGoneError, WorkerLostError, describe_host

PREFIX = "ray://"
_CLOSING_SECONDS = 5.0
_SETTLING_SECONDS = 3.0
"""How long a cluster may take to notice that a machine is lost, after an actor on it is."""


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
        import ray
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

    def describe(self) -> tuple[EnvDescription | Exception, str, int]:
        """What the environments have in common, the machine's id and the process's."""
        import ray

        return describe_host(self._host), ray.get_runtime_context().get_node_id(), os.getpid()

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
        import ray

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
        self._expect([self._actor.describe.remote()], f"its start within reset_timeout={reset_timeout:g} s")

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
            if not self._commands:
                self.deadline = math.inf
                description, self._node, self.pid = answer
                return description
            self._results.append(answer)
            if self._pending:
                self._begin(*self._limit(self._commands[len(self._results)]))
            else:
                self.deadline = math.inf
                return self._results
        if time.monotonic() > self.deadline:
            if self._node is None:
                raise WorkerGoneError(f"{self} did not finish {self._task}: the cluster has no room for it.")
            raise WorkerLostError(f"{self} did not finish {self._task}.", late=len(self._results))
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

    def _expect(self, references: list[Any], task: str, seconds: float | None = None) -> None:
        self._pending = references
        for reference in references:
            reference.future().add_done_callback(self._on_done)
        self._begin(task, self._reset_timeout if seconds is None else seconds)

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
        """Whether the actor's machine is lost too; the cluster is given some time to notice."""
        end = time.monotonic() + _SETTLING_SECONDS
        while "node has died" not in said:
            alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
            if self._node is not None and self._node not in alive:
                break
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True
