"""Several processes of one run, as torchrun starts them, but forked: none has to import torch and TRL first."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable

from accelerate.state import AcceleratorState, GradientState
from forked import Forked, fork


def run_ranks(processes: int, call: Callable[[], object]) -> list[Forked]:
    """Do `call` in each of so many forked processes of one group, until all have ended well.

    Raises:
        AssertionError: with what it said, if one ends otherwise; the others, which may wait for it, are killed.
    """

    def rank() -> None:
        # What this process knows of itself, it knows as a run of one process.
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        call()

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
    environment["LOCAL_WORLD_SIZE"] = str(processes)
    started = [fork(rank, **environment, RANK=str(number), LOCAL_RANK=str(number)) for number in range(processes)]
    try:
        while any(one.poll() is None for one in started):
            for one in started:
                assert not one.poll(), one.stderr[-3000:]
            time.sleep(0.05)
    finally:
        for one in started:
            if one.poll() is None:
                one.kill(signal.SIGKILL)
    for one in started:
        assert one.returncode == 0, one.stderr[-3000:]
    return started
