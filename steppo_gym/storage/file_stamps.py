"""Whether files are still what they were: mostly told without reading them, for certain by their content.

before = file_stamps(paths)
...  # read them
require_unchanged(before)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of

FileStamp = tuple[Path, int, int]
"""Path, size in bytes, and time of the last change in nanoseconds."""


def file_stamps(paths: Iterable[Path]) -> tuple[FileStamp, ...]:
    """The stamp of each file; another one once the file has changed.

    Raises:
        OSError: a file is gone.
    """
    return tuple((path, status.st_size, status.st_mtime_ns) for path in paths for status in (path.stat(),))


def require_unchanged(stamps: Iterable[FileStamp]) -> None:
    """Raise a DataError if a file is no longer what it was: what was read of it may be of two files."""
    for stamp in stamps:
        if not stamp[0].exists() or file_stamps(stamp[:1]) != (stamp,):
            raise DataError(f"{stamp[0]} has changed while it was read. Try again once it is whole.")


def files_in(place: str | Path | None) -> list[Path]:
    """The files that say what lies in a place: itself, or what is right in the folder; none for None or an address."""
    if place is None or not (path := path_of(place)).exists():
        return []
    return [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())


def stamps_text(stamps: Iterable[FileStamp]) -> str:
    """A short text that differs where stamps do, as a `TextEnv.text_version`; "" for none."""
    found = list(stamps)
    return hashlib.sha256(repr(found).encode(errors="surrogateescape")).hexdigest()[:16] if found else ""


def file_sha256(path: str | Path) -> str:
    """Hex digest of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
