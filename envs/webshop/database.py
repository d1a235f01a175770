"""SQLite files that are built once and then only read, by any number of threads and processes.

    build_once(path, fill)                 # one process builds, the others wait
    Database(path).rows("SELECT price FROM products WHERE asin = ?", asin)

Whoever has a file open goes on reading it when it is deleted and built again.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock

from steppo_gym.errors import DataError

_MAPPED_BYTES = 2**31 - 2**16
"""Read through a memory map up to here, so that all processes share the memory."""
_BUILDING_KIBIBYTES = 2**16
"""Memory for the pages of a database that is being built."""


def build_once(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make a database, if it is not there.

    Of several processes that call this at once, one builds and the others wait for it. The file appears under its name
    only when it is complete.

    Args:
        path: where it will lie; its folder is made.
        fill: makes the tables, within one transaction.

    Raises:
        Exception: whatever `fill` raised; nothing is left behind.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f"{path.name}.lock")):
        if path.exists():
            return
        unfinished = path.with_name(f"{path.name}.unfinished")
        # One left by a process that was killed; nobody else builds here now.
        unfinished.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
                # An unfinished file is never used, so nothing needs to survive a crash.
                connection.execute("PRAGMA journal_mode = OFF")
                connection.execute("PRAGMA synchronous = OFF")
                connection.execute(f"PRAGMA cache_size = -{_BUILDING_KIBIBYTES}")
                connection.execute("BEGIN")
                fill(connection)
                connection.execute("COMMIT")
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


class Database:
    """Reads a file of `build_once`; nothing is opened before the first query.

    Every thread of every process has a connection of its own: those of SQLite must not pass a fork.

    Args:
        path: the file, which no one changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    def rows(self, query: str, *values: str | int) -> list[tuple[Any, ...]]:
        """All rows that a query finds. Texts that are no valid Unicode find nothing that is.

        Raises:
            DataError: the file is missing or damaged.
        """
        return list(self.iterate(query, *values))

    def iterate(self, query: str, *values: str | int) -> Iterator[tuple[Any, ...]]:
        """The rows that a query finds, one at a time; as `rows` otherwise."""
        valid = [value.encode(errors="replace").decode() if isinstance(value, str) else value for value in values]
        try:
            yield from self._connection().execute(query, valid)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"The shop in {self.path} is damaged or gone ({error}). Delete the file; it is built again."
            ) from error

    def _connection(self) -> sqlite3.Connection:
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is None or opened.process != os.getpid():
            self._local.opened = opened = _Opened(self.path)
        return opened.connection


class _Opened:
    """A connection, and the process that opened it; closed with the last one who has it."""

    def __init__(self, path: Path) -> None:
        self.process = os.getpid()
        # Immutable: no locks, no journal, and nothing is written beside the file. Another thread may come to close it.
        address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        self.connection = sqlite3.connect(address, uri=True, check_same_thread=False)
        self.connection.execute(f"PRAGMA mmap_size = {_MAPPED_BYTES}")

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
