"""How much memory this process has, and the most it has had since it was last asked to forget (Linux)."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

MIB = 2**20
_M_MMAP_THRESHOLD = -3
"""Parameter of mallopt, from glibc's malloc.h."""


def give_back_freed_memory() -> None:
    """Let glibc return every block from 64 KiB on when it is freed, and all that is free now.

    The figures are then of what is in use. What was freed before would be given out again without being seen.
    """
    library = ctypes.CDLL(None)
    if not library.mallopt(_M_MMAP_THRESHOLD, 2**16):
        raise SystemExit("This machine's C library keeps what is freed: its figures would say little.")
    library.malloc_trim(0)


def resident() -> float:
    """MiB that are in memory now."""
    return _status("VmRSS")


def most_resident() -> float:
    """The most MiB since the start of the process, or since `forget_most`."""
    return _status("VmHWM")


def forget_most() -> float:
    """Begin to count anew, and return what is in memory now."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    return resident()


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{name}:")]
    return int(line.split()[1]) * 1024 / MIB
