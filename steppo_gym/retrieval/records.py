"""A sequence of byte strings in two files, read through memory maps.

Processes that open the same files share one copy of them in the page cache, and opening reads nothing.

    write_records(folder, "terms", [b"apollo", b"magazin"])
    records = Records(folder, "terms")
    records[1] == b"magazin"
"""

from __future__ import annotations

import mmap
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from steppo_gym.retrieval.index_folder import damaged, load_array


def write_records(folder: Path, name: str, records: Iterable[bytes]) -> int:
    """Write `<name>.bin` and `<name>.ends.npy` and return how many records there were."""
    ends, size = array("q"), 0
    with (folder / f"{name}.bin").open("wb") as file:
        for record in records:
            size += file.write(record)
            ends.append(size)
    np.save(folder / f"{name}.ends.npy", np.asarray(ends, dtype=np.int64))
    return len(ends)


class Records:
    """The records of `write_records`, in their order.

    Raises:
        DataError: the two files do not fit each other.
    """

    def __init__(self, folder: Path, name: str) -> None:
        # Single items come faster from a memoryview than from an array.
        self._ends = load_array(folder, f"{name}.ends.npy", np.int64).data
        self._bytes = _map(folder / f"{name}.bin")
        if (self._ends[-1] if len(self._ends) else 0) != len(self._bytes):
            raise damaged(folder, f"{name}.bin has not the {name}.ends.npy that belongs to it")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(f"Expected an index below {len(self)}, got {index}.")
        return self._bytes[self._ends[index - 1] if index else 0 : self._ends[index]]


def _map(path: Path) -> mmap.mmap | bytes:
    with path.open("rb") as file:
        # An empty file cannot be mapped.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
