"""Where downloads and derived files are kept on disk, and how they get there whole."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs
from filelock import FileLock

from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of

VARIABLE = "STEPPO_GYM_CACHE"
_CANNOT_WRITE = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR})


def cache_dir(*parts: str) -> Path:
    """The folder `parts` below the cache root; not created.

    The root is `$STEPPO_GYM_CACHE` when set, else the user's cache folder of the platform.
    """
    root = os.environ.get(VARIABLE) or platformdirs.user_cache_dir("steppo-gym", appauthor=False)
    return path_of(root).joinpath(*parts)


def make_once(path: Path, make: Callable[[Path], None], *, again: bool = False) -> None:
    """Make a file or folder, if it is not there.

    Of several processes that call this at once, one makes it and the others wait. It appears under its name only when
    it is complete; whoever has the one before open keeps it.

    Args:
        path: where it will lie; the folders above are made.
        make: makes the file or folder at the path it is given, where nothing is.
        again: replace what is there.

    Raises:
        DataError: the folder cannot be written, or is full.
        Exception: whatever `make` raised; nothing is left behind.
    """
    with writing(path):
        if path.exists() and not again:
            # The usual case needs no lock, and no right to write.
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(_lock_of(path)):
            if not path.exists() or again:
                _make(path, make)


def forget(path: Path) -> None:
    """Remove what `make_once` made, or left unfinished, unless a process is making it now. Failing to is no error."""
    with suppress(OSError), FileLock(_lock_of(path), timeout=0):
        _remove(path)
        _remove(path.with_name(f"{path.name}.unfinished"))
        _remove(_lock_of(path))


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say what to do where a file or folder of the cache cannot be written.

    Raises:
        DataError: in place of the system's error about `path`, its folder or what is in it, or about a full disk.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, OSError):
            # What names another file is about that one; where no file is named, the writing failed.
            ours = error.filename is None or Path(str(error.filename)).is_relative_to(path.parent)
            ours = ours or path.is_relative_to(str(error.filename))
            reason = error.strerror or str(error)
        else:
            ours, reason = getattr(error, "sqlite_errorcode", 0) & 0xFF in _CANNOT_WRITE, str(error)
        if not ours:
            raise
        raise DataError(
            f"{path} cannot be written ({reason}). Let the environment variable {VARIABLE} name a folder that can be, "
            "with room in it."
        ) from error


def _lock_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")


def _make(path: Path, make: Callable[[Path], None]) -> None:
    # Those left by a process that was killed; nobody else is here now.
    unfinished, old = (path.with_name(f"{path.name}.{ending}") for ending in ("unfinished", "old"))
    _remove(unfinished)
    try:
        make(unfinished)
        _remove(old)
        if path.is_dir():
            # A folder cannot be replaced in one go.
            os.rename(path, old)
        os.replace(unfinished, path)
    finally:
        _remove(unfinished)
        _remove(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
