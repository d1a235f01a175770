"""What servers of this package have in common: one thread per connection, limits, an orderly end.

    class Greetings(JsonHandler):
        def check(self, method, path):
            if method != "GET":
                raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Expected GET.")

        def answer(self, path, body):
            return HTTPStatus.OK, {"hello": path}

    with JsonServer(Greetings, host="127.0.0.1", port=8000, max_body_bytes=1000) as server:
        serve_until_signal(server)

They listen on the loopback interface unless told otherwise: there is no authentication and no encryption. Whatever is
wrong with a request is answered with a status from 400 on and `{"error": "..."}`. A client has limited time for a
request and for taking the answer, however it spreads its bytes: the deadlines that the usual asynchronous servers
do not have, which is why this one stands on the standard library's.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any

END_SECONDS = 5.0
"""How long the end waits for answers under way."""
MAX_CONNECTIONS = 512
MAX_ANSWER_BYTES = 32 * 2**20
MAX_WAITING_BYTES = 8 * MAX_ANSWER_BYTES
"""Of all answers together that clients have not taken yet."""

_LOGGER = logging.getLogger(__name__)


class RefusedError(Exception):
    """A request that gets an error as its answer.

    Attributes:
        status: of the answer.
    """

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_answer(size: int) -> None:
    """Refuse an answer that would have too many bytes."""
    if size > MAX_ANSWER_BYTES:
        raise RefusedError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The answer would have {size} bytes, at most {MAX_ANSWER_BYTES} are sent. Ask for less at once.",
        )


class JsonServer(ThreadingHTTPServer):
    """Answers requests until it is shut down.

    Args:
        handler: what answers them.
        host: address to listen on.
        port: 0 takes a free one, see `url`.
        max_body_bytes: longer requests are refused.

    Raises:
        OSError: the address is in use or not this machine's.
        ValueError: an argument outside its range.
    """

    # Environments connect all at once.
    request_queue_size = 256
    # Closing waits for the answers under way.
    daemon_threads = False

    def __init__(self, handler: type[BaseHTTPRequestHandler], *, host: str, port: int, max_body_bytes: int) -> None:
        if not 0 <= port <= 65535:
            raise ValueError(f"port must be from 0 to 65535, got {port}.")
        self.max_body_bytes = max_body_bytes
        # More searches at once would only share the processors, and each holds memory for its scores.
        self.searching = threading.Semaphore(os.cpu_count() or 1)
        self._connections: set[socket.socket] = set()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), handler)
        except OSError as error:
            reason = f"{host} port {port} cannot be listened on: {error.strerror or error}"
            raise OSError(error.errno, f"{reason}. Choose another --port or --host") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"Expected the name or the number of a host to listen on, got {host!r:.80}.") from error

    @property
    def url(self) -> str:
        """The address for clients."""
        host, port = self.server_address[:2]
        return f"http://[{host}]:{port}" if self.address_family == socket.AF_INET6 else f"http://{host}:{port}"

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which HTTPServer does and which can take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Note the connection and serve it in a thread, if there are not too many."""
        with self._changed:
            full = len(self._connections) >= MAX_CONNECTIONS
            if not full:
                self._connections.add(request)
        if full:
            with contextlib.suppress(OSError):
                request.settimeout(0)
                request.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        """Forget the connection and close it."""
        with self._changed:
            self._connections.discard(request)
            self._changed.notify_all()
        super().close_request(request)

    def server_close(self) -> None:
        """Stop listening, let the answers under way go out for `END_SECONDS`, and close all connections."""
        # A thread that waits for the next request sees the end of its connection.
        self._hang_up(socket.SHUT_RD)
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, END_SECONDS)
        # A thread whose client does not read is woken.
        self._hang_up(socket.SHUT_RDWR)
        super().server_close()

    def abort(self) -> None:
        """Close all connections now, in the middle of answers too, as the system does for a process that is killed."""
        self._hang_up(socket.SHUT_RDWR)

    def _hang_up(self, how: int) -> None:
        with self._changed:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(how)

    @contextlib.contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Hold the bytes of an answer until the client has them.

        Raises:
            RefusedError: too long, or too many wait already.
        """
        check_answer(size)
        with self._changed:
            if self._waiting_bytes + size > MAX_WAITING_BYTES:
                raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "Too many answers wait for their clients.")
            self._waiting_bytes += size
        try:
            yield
        finally:
            with self._changed:
                self._waiting_bytes -= size

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what a connection ended with; clients that went away are nothing special."""
        level = logging.DEBUG if isinstance(sys.exception(), ConnectionError | TimeoutError) else logging.ERROR
        _LOGGER.log(level, "The connection of %s failed.", client_address, exc_info=True)


def serve_until_signal(server: JsonServer) -> None:
    """Serve until SIGINT or SIGTERM arrives; to be called in the main thread. A second signal is not caught."""
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        restore()
        # From another thread, because it waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    for number in (signal.SIGINT, signal.SIGTERM):
        previous[number] = signal.signal(number, stop)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        restore()
