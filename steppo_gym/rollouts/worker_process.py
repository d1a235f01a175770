"""One process that hosts environments, and the handle its parent holds.

The process is a fresh interpreter that imports what the environments need and nothing else: not the parent's main
script, so neither torch nor a `__main__` guard is needed. It has a process group of its own, so that Ctrl-C reaches
only the parent and killing it kills whatever its environments started. It ends when the parent closes the connection or
dies, in the middle of a step too.

The parent sends commands and gets results. Linux and macOS only: the connection is an inherited socket.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from steppo_gym.rollouts.env_host import Command, EnvDescription, EnvFactory, EnvHost, StepCommand, describe_error
from steppo_gym.rollouts.step_result import Result

_CLOSING_SECONDS = 5.0
_BEAT_SECONDS = 1.0
_POSITION = struct.Struct("q")
_NOT_BEGUN = -1
_WORKER_VARIABLES = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class _Beat:
    """What the process does now must be done at `deadline`.

    In seconds of `time.monotonic`, which is one clock for all processes. The process sends a beat only before a command
    that the last one does not cover, so that fast environments send none and slow ones one a second.
    """

    deadline: float
    task: str


@dataclass(frozen=True)
class _Limits:
    step_timeout: float
    reset_timeout: float

    def seconds(self, command: Command) -> float:
        return self.step_timeout if isinstance(command, StepCommand) else self.reset_timeout

    def beat(self, command: Command) -> _Beat:
        name = "step" if isinstance(command, StepCommand) else "reset"
        seconds = self.seconds(command)
        return _Beat(time.monotonic() + seconds + _BEAT_SECONDS, f"a {name} within {name}_timeout={seconds:g} s")


@dataclass(frozen=True)
class _Orders:
    commands: tuple[Command, ...]
    deadline: float


class WorkerLostError(Exception):
    """The process died or hangs; the text says how.

    Attributes:
        late: position of the command that was not finished in time, None if the process died or did not begin.
    """

    def __init__(self, message: str, late: int | None = None) -> None:
        super().__init__(message)
        self.late = late


class WorkerGoneError(WorkerLostError):
    """It is lost, and there is no place to start another one."""


class WorkerProcess:
    """The parent's handle: starts the process, sends commands, receives results, kills it.

    Args:
        spec: the environments to host.
        step_timeout: seconds one step may take.
        reset_timeout: seconds one reset may take, and the start of the process.

    Raises:
        OSError: no process could be started.
    """

    def __init__(self, spec: EnvFactory, *, step_timeout: float, reset_timeout: float) -> None:
        self._limits = _Limits(step_timeout, reset_timeout)
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as shared:
            self._position = _map_position(shared.fileno())
            _POSITION.pack_into(self._position, 0, _NOT_BEGUN)
            self._process = subprocess.Popen(
                [sys.executable, "-c", _boot_code(theirs.fileno(), shared.fileno())],
                stdin=subprocess.PIPE,
                pass_fds=(theirs.fileno(), shared.fileno()),
                env=os.environ | _WORKER_VARIABLES,
                process_group=0,
            )
        self.connection = Connection(ours.detach())
        self._beat = _Beat(time.monotonic() + reset_timeout, f"its start within reset_timeout={reset_timeout:g} s")
        try:
            self.connection.send((spec, self._limits))
        except OSError:
            pass  # It died at once, which `receive` reports.
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    @property
    def deadline(self) -> float:
        """When what the process does now must be done, in seconds of `time.monotonic`."""
        return self._beat.deadline

    def send(self, commands: Sequence[Command]) -> None:
        """Send commands, at least one. The results of the last ones must have been received."""
        self._beat = self._limits.beat(commands[0])
        _POSITION.pack_into(self._position, 0, _NOT_BEGUN)
        # A process that died is found by `receive`, which has to deal with that anyway.
        with contextlib.suppress(OSError):
            self.connection.send(_Orders(tuple(commands), self._beat.deadline))

    def receive(self) -> EnvDescription | Exception | list[Result] | None:
        """What has arrived, or None.

        The first message is the description of the environments, or what was raised when one was made; after that it is
        the results of the commands sent last.

        Raises:
            WorkerLostError: the process died or is past its deadline.
        """
        died = self._process.poll() is not None
        try:
            while self.connection.poll():
                message = self.connection.recv()
                if not isinstance(message, _Beat):
                    return message
                self._beat = message
        except (OSError, EOFError):
            died = True
        if died:
            raise WorkerLostError(f"The environment process {self.pid} died ({self._exit_text()}).")
        if time.monotonic() > self._beat.deadline:
            message = f"The environment process {self.pid} did not finish {self._beat.task}."
            position = _POSITION.unpack_from(self._position)[0]
            raise WorkerLostError(message, late=None if position == _NOT_BEGUN else position)
        return None

    def disconnect(self) -> None:
        """Ask the process to close its environments and end."""
        self.connection.close()

    def close(self, timeout: float = _CLOSING_SECONDS) -> None:
        """End the process, by force if it has not ended `timeout` seconds after being asked."""
        self.disconnect()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self.kill()

    def kill(self) -> None:
        """End the process and all it has started, now; a second call changes nothing."""
        self.connection.close()
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()

    def _exit_text(self) -> str:
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            return "it closed the connection"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"


def run_worker(descriptor: int, shared: int) -> None:
    """What the process does: make environments, then carry out commands until the connection is closed.

    Args:
        descriptor: the inherited socket.
        shared: the inherited file in which it says which command it carries out.
    """
    position = _map_position(shared)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    with Connection(descriptor) as connection, contextlib.suppress(EOFError, OSError):
        spec, limits = connection.recv()
        host = EnvHost(spec)
        try:
            connection.send(describe_host(host))
            while True:
                connection.send(_carry_out(connection.recv(), host, limits, connection, position))
        finally:
            host.close()


def _carry_out(
    orders: _Orders, host: EnvHost, limits: _Limits, connection: Connection, position: mmap.mmap
) -> list[Result]:
    deadline = orders.deadline
    results = []
    for number, command in enumerate(orders.commands):
        _POSITION.pack_into(position, 0, number)
        if time.monotonic() + limits.seconds(command) > deadline:
            beat = limits.beat(command)
            deadline = beat.deadline
            connection.send(beat)
        results.append(host.run(command))
    return results


def describe_host(host: EnvHost) -> EnvDescription | Exception:
    """What a host's environments have in common, or what was raised when one was made, picklable in any case."""
    try:
        return host.describe()
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:
            return RuntimeError(describe_error(error))
        return error


def _exit_with_parent() -> None:
    # The parent never writes to this pipe: it ends when the parent does, even while an environment is busy.
    os.read(sys.__stdin__.fileno() if sys.__stdin__ else 0, 1)
    os._exit(0)


def _map_position(descriptor: int) -> mmap.mmap:
    """Memory that parent and process share.

    A process that hangs cannot send anything, not even from another thread: a regular expression keeps the interpreter
    to itself. What it wrote before stays readable.
    """
    os.ftruncate(descriptor, mmap.PAGESIZE)
    return mmap.mmap(descriptor, mmap.PAGESIZE)


def _boot_code(descriptor: int, shared: int) -> str:
    main = f"from steppo_gym.rollouts.worker_process import run_worker; run_worker({descriptor}, {shared})"
    return f"import sys; sys.path[:] = {sys.path!r}; {main}"
