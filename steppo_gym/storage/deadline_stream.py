"""A connection whose requests and answers have deadlines, however slowly their bytes come and go, and bounded heads."""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import Any

IDLE_SECONDS = 60.0
"""Longest silence of a client between requests."""
REQUEST_SECONDS = 30.0
"""For a whole request to arrive, and again for its answer to be taken."""
MAX_HEAD_BYTES = 2**18
"""Of a request's first line and headers; the standard library alone would keep 6 MB of them for every connection."""


class DeadlineStream(io.RawIOBase):
    """The bytes of a connection in both directions, up to a moment that does not move with every byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._deadline = connection, 0.0
        self._waiting = True
        self._head_left: int | None = MAX_HEAD_BYTES

    def wait(self) -> None:
        """From now on the next byte that arrives begins a request, which starts the clock."""
        self._waiting = True
        self._head_left = MAX_HEAD_BYTES

    def end_head(self) -> None:
        """What arrives from now on is no head."""
        self._head_left = None

    def start_clock(self) -> None:
        """Give what follows `REQUEST_SECONDS`."""
        self._deadline = time.monotonic() + REQUEST_SECONDS
        self._waiting = False

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Receive some bytes, 0 at the end.

        Raises:
            TimeoutError: nothing came in time.
            http.client.HTTPException: the head is too long.
        """
        if self._waiting:
            self._connection.settimeout(IDLE_SECONDS)
            count = self._connection.recv_into(buffer)
            self.start_clock()
        else:
            self._set_timeout()
            count = self._connection.recv_into(buffer)
        if self._head_left is not None:
            self._head_left -= count
            if self._head_left < 0:
                raise http.client.HTTPException(f"more than {MAX_HEAD_BYTES} bytes of headers")
        return count

    def write(self, data: Any) -> int:
        """Send some of the bytes.

        Raises:
            TimeoutError: the client did not take any in time.
        """
        self._set_timeout()
        return self._connection.send(data)

    def _set_timeout(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("The client is too slow.")
        self._connection.settimeout(left)
