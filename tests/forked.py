"""Code in a process of its own that has all modules of this one already, so that it starts in no time.

A fresh interpreter takes seconds to import torch and TRL. Where an exit status, a traceback, a signal or two processes
at once are what is tested, a fork is as good.
"""

from __future__ import annotations

import functools
import importlib
import os
import runpy
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Forked:
    """A process that was forked."""

    pid: int
    _said: dict[str, str] = field(default_factory=dict)
    _readers: list[threading.Thread] = field(default_factory=list)
    _status: int | None = None

    def poll(self) -> int | None:
        """The exit status, negative if a signal ended it; None while it runs."""
        if self._status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status

    def kill(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    @property
    def returncode(self) -> int:
        """The exit status, once it has ended."""
        for reader in self._readers:
            reader.join()
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    @property
    def stdout(self) -> str:
        """What it printed, once it has ended."""
        return self._said["stdout"] if self.returncode is not None else ""

    @property
    def stderr(self) -> str:
        """What it said of itself, once it has ended."""
        return self._said["stderr"] if self.returncode is not None else ""


def fork(call: Callable[[], object], **environment: str) -> Forked:
    """Begin `call` in a forked process, which ends as a script would.

    Args:
        call: what it does.
        environment: variables that it has besides those of this process.
    """
    pipes = {"stdout": os.pipe(), "stderr": os.pipe()}
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            for number, (reading, writing) in enumerate(pipes.values(), 1):
                os.dup2(writing, number)
                os.close(reading)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            os.environ.update(environment)
            status = _status_of(call)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            # Nothing of pytest may be done a second time here.
            os._exit(status)
    started = Forked(pid)
    for name, (reading, writing) in pipes.items():
        os.close(writing)
        reader = threading.Thread(target=_read, args=(started._said, name, reading), daemon=True)
        reader.start()
        started._readers.append(reader)
    return started


@functools.cache
def prepare_for_runs() -> None:
    """Do here what a run does late and every forked one would do again: seconds of imports and of looking around."""
    for module in ("matplotlib.backends.backend_agg", "matplotlib.figure"):
        importlib.import_module(module)
    importlib.import_module("steppo_gym.trainers.warm_start.sources").providers()


def run_script(path: Path, *argv: object, cwd: Path) -> Forked:
    """A script with its arguments in a working directory, until it has ended."""

    def script() -> None:
        os.chdir(cwd)
        sys.argv = [str(path), *map(str, argv)]
        sys.path.insert(0, str(path.parent))
        runpy.run_path(str(path), run_name="__main__")

    done = fork(script)
    assert done.returncode is not None
    return done


def _status_of(call: Callable[[], object]) -> int:
    """The exit status that Python would have, after saying what it would say."""
    try:
        call()
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _read(said: dict[str, str], name: str, reading: int) -> None:
    with os.fdopen(reading, encoding="utf-8", errors="replace") as stream:
        said[name] = stream.read()
