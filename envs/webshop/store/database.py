"""SQLite files that are built once and then only read.

build_once(path, fill)                 # one process builds, the others wait
Database(path).rows("SELECT price FROM products WHERE asin = ?", asin)
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError
from steppo_gym.quoting import valid_text
from steppo_gym.storage.cache import make_once
from steppo_gym.storage.sqlite import Connections, read_only

_BUILDING_KIBIBYTES = 2**16
"""Memory for the pages of a database that is being built."""


def build_once(path: Path, fill: Callable[[sqlite3.Connection], None]) -> None:
    """Make a database, if it is not there; `fill` makes its tables, in one transaction. See `make_once`."""
    make_once(path, partial(_build, fill))


def _build(fill: Callable[[sqlite3.Connection], None], path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        # An unfinished file is never used, so nothing needs to survive a crash.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{_BUILDING_KIBIBYTES}")
        connection.execute("BEGIN")
        fill(connection)
        connection.execute("COMMIT")
    with path.open("rb") as file:
        os.fsync(file.fileno())


class Database:
    """Reads a file of `build_once`, from any number of threads and processes; opened with the first query.

    Args:
        path: the file, which no one changes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connections = Connections(partial(read_only, path))

    def rows(self, query: str, *values: str | int) -> list[tuple[Any, ...]]:
        """All rows that a query finds. Texts that are no valid Unicode find nothing that is.

        Raises:
            DataError: the file is missing or damaged.
        """
        return list(self.iterate(query, *values))

    def iterate(self, query: str, *values: str | int) -> Iterator[tuple[Any, ...]]:
        """The rows that a query finds, one at a time; as `rows` otherwise."""
        valid = [valid_text(value) if isinstance(value, str) else value for value in values]
        try:
            yield from self._connections.execute(query, valid)
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"The shop in {self.path} is damaged or gone ({error}). Delete the file; it is built again."
            ) from error
