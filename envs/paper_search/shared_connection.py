"""A connection to a SQLite file that the threads of a process share and that a forked process opens anew.

connection = SharedConnection(lambda: sqlite3.connect("papers.sqlite", check_same_thread=False))
rows = connection.execute("SELECT title FROM papers WHERE number = ?", (17,))
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any


class SharedConnection:
    """Runs one statement at a time.

    SQLite's connections must not be carried over a fork (https://www.sqlite.org/howtocorrupt.html, section 2.6), and a
    lock that another thread held at the fork would stay locked in the child: so each process has its own of both.

    Args:
        connect: opens the connection, which is used from all threads.
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._by_process: dict[int, _Connection] = {}
        weakref.finalize(self, _close_all, self._by_process)

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows that a statement gives.

        Raises:
            sqlite3.Error: whatever SQLite has to say.
        """
        # One step for all threads: those of a forked process may come here together.
        own = self._by_process.setdefault(os.getpid(), _Connection())
        with own.lock:
            if own.connection is None:
                own.connection = self._connect()
            return own.connection.execute(statement, parameters).fetchall()

    def close(self) -> None:
        """Close the connection; it opens again when it is used."""
        own = self._by_process.setdefault(os.getpid(), _Connection())
        with own.lock:
            if own.connection is not None:
                own.connection.close()
            own.connection = None


class _Connection:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: sqlite3.Connection | None = None


def _close_all(by_process: dict[int, _Connection]) -> None:
    for own in by_process.values():
        if own.connection is not None:
            own.connection.close()
