"""An HTTP client whose requests end at a moment, however the server spreads its bytes.

    client, deadline = httpx.Client(), Deadline()
    deadline.bind(client)
    deadline.set(10.0)           # for what this thread asks next
    client.get("http://127.0.0.1:8000")

The timeouts of httpx are of single reads: a server that sends a byte of a header now and then, interim answers
(`100 Continue`) or the extension of a chunk without end holds a request for ever, and the caller sees none of it.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from steppo_gym.errors import UnsupportedVersionError


class Deadline:
    """A moment for each thread, after which its reads and writes time out; none until it is set."""

    def __init__(self) -> None:
        self._own = threading.local()

    def set(self, seconds: float) -> None:
        """Let what the calling thread does from now on end so many seconds from now."""
        self._own.end, self._own.seconds = time.monotonic() + seconds, seconds

    def left(self, timeout: float | None) -> float | None:
        """What is left of a timeout.

        Raises:
            httpcore.ReadTimeout: the moment has passed.
        """
        end: float | None = getattr(self._own, "end", None)
        if end is None:
            return timeout
        left = end - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout(f"not all of the answer came in {self._own.seconds:g} seconds")
        return left if timeout is None else min(left, timeout)

    def bind(self, client: httpx.Client) -> None:
        """Have a client's connections keep to it, those through proxies as well; before the first request.

        Raises:
            UnsupportedVersionError: httpx keeps its connections elsewhere, so that nothing would keep to it.
        """
        pools = _pools(client)
        if not pools:
            raise UnsupportedVersionError(
                f"httpx {httpx.__version__} cannot be given a deadline: its connections are not where those of 0.28 "
                "are. Run `pip install 'httpx<0.29'`."
            )
        for pool in pools:
            pool._network_backend = _Backend(self)


def _pools(client: httpx.Client) -> list[Any]:
    """Where a client keeps connections, none if that is not known of this version.

    There is no public way. `timeout` is of single reads, also where a request has it as an extension; httpx has no
    argument for what httpcore calls the backend of a pool; and with a transport of one's own, on a pool that has one,
    it would no longer read the proxies of the environment.
    """
    try:
        transports = (client._transport, *client._mounts.values())
        pools: list[Any] = [one._pool for one in transports if isinstance(one, httpx.HTTPTransport)]
        return pools if all(isinstance(pool._network_backend, httpcore.NetworkBackend) for pool in pools) else []
    except AttributeError:
        return []


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._deadline, self._backend = deadline, httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return _Stream(stream, self._deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return self._stream.read(max_bytes, self._deadline.left(timeout))
        except httpcore.ReadTimeout:
            # Where it was the deadline that came, it says so.
            self._deadline.left(timeout)
            raise

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, timeout), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
