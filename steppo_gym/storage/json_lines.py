"""Files of JSON lines that whoever writes them may die over.

A line counts once its line break is written. What stands behind the last line break was not written to its end: it is
dropped with a note when the file is read, and cut off before the next line is appended.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from steppo_gym.errors import DataError

LOCK_FILE = "lock"
"""Held by who works in a folder; it stays there, and only being locked means something."""


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file, none if there is no file.

    Raises:
        ValueError: a line other than the last is no JSON; the message names file and line.
    """
    if not path.exists():
        return []
    whole, _, torn = path.read_bytes().rpartition(b"\n")
    if torn:
        print(f"{path}: the last line was not written to its end and is dropped.", file=sys.stderr)
    objects = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            objects += [json.loads(line)] if line.strip() else []
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: this is no JSON ({error}). Remove the line.") from error
    return objects


def append_text(path: Path, text: str) -> None:
    """Add whole lines to a file in a single write, after what is whole of it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        end = _end_of_whole(descriptor)
        if end != os.fstat(descriptor).st_size:
            print(f"{path}: the last line was not written to its end and is dropped.", file=sys.stderr)
            os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        data = text.encode()
        while data:
            # One call, unless the system takes less: a full disk then says so in the next one.
            data = data[os.write(descriptor, data) :]
    finally:
        os.close(descriptor)


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one go: whoever looks sees the old text or the new one, whatever happens."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep out of a folder whoever else would add to the same files.

    Raises:
        DataError: another process does.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(folder / LOCK_FILE, timeout=0))
        except Timeout:
            raise DataError(f"Another process is at work in {folder}. Wait for it, or name another --out.") from None
        yield


def _end_of_whole(descriptor: int) -> int:
    """Where the last line break ends."""
    end, block = os.fstat(descriptor).st_size, 65536
    while end:
        start = max(0, end - block)
        found = os.pread(descriptor, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
