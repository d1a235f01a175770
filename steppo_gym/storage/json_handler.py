"""Requests and answers of a `steppo_gym.storage.http_server.JsonServer`: JSON, checked and with deadlines."""

from __future__ import annotations

import contextlib
import io
import json
import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from steppo_gym.errors import InfrastructureError
from steppo_gym.storage.deadline_stream import DeadlineStream
from steppo_gym.storage.http_server import JsonServer, RefusedError

_LOGGER = logging.getLogger(__name__)


class JsonHandler(BaseHTTPRequestHandler):
    """Serves one connection of a `JsonServer`. Subclasses say what they answer."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "steppo-gym", ""
    disable_nagle_algorithm = True

    def check(self, method: str, path: str) -> None:
        """Refuse a request before its body is read.

        Raises:
            RefusedError: the path or the method is not served.
        """
        raise NotImplementedError

    def answer(self, path: str, body: bytes) -> tuple[HTTPStatus, object]:
        """Status and JSON of the answer to a request.

        Args:
            path: of the request, as it was sent, with its query.
            body: b"" for GET.

        Raises:
            RefusedError: something is wrong with the request.
            InfrastructureError: another server failed.
        """
        raise NotImplementedError

    def setup(self) -> None:
        """Read and write with deadlines."""
        super().setup()
        self.rfile.close()
        self._stream = DeadlineStream(self.connection)
        self.rfile = io.BufferedReader(self._stream)
        # One packet per answer: written in parts, each would wait for the client to confirm the one before.
        self.wfile = io.BufferedWriter(self._stream, 2**16)

    def handle_one_request(self) -> None:
        """Wait for a request and answer it."""
        self._stream.wait()
        super().handle_one_request()

    def parse_request(self) -> bool:
        """Read the head of a request."""
        # A head that is too long comes out as too many headers, which the base class answers.
        parsed = super().parse_request()
        self._stream.end_head()
        return parsed

    def handle_expect_100(self) -> bool:
        """Ask for the body at once."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def finish(self) -> None:
        """End the connection; what its client did not take is lost."""
        with contextlib.suppress(OSError, ValueError):
            super().finish()

    def do_GET(self) -> None:
        """Answer a request."""
        self._serve()

    def do_POST(self) -> None:
        """Answer a request."""
        self._serve()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer as JSON and close: what is left of the request is not read."""
        del explain
        self.close_connection = True
        # Where the first line was not understood the base class thinks of HTTP/0.9, which has no headers.
        self.request_version = self.protocol_version
        self._send(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log what the base class would print."""
        _LOGGER.debug(format, *arguments)

    def _serve(self) -> None:
        try:
            self._check_head()
            self.check(self.command, self.path)
            body = self._body() if self.command == "POST" else b""
        except RefusedError as error:
            self.send_error(error.status, str(error))
            return
        self._send(*self._answer(body))

    def _check_head(self) -> None:
        try:
            urlsplit(self.path)
        except ValueError as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"Expected a path, found {self.path!r:.80} ({error}).") from None
        # What two readers may measure in two ways can hide a second request.
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) > 1 or (lengths and "Transfer-Encoding" in self.headers):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Expected one Content-Length header and no Transfer-Encoding.")
        if self.command == "GET" and (lengths not in ([], ["0"]) or "Transfer-Encoding" in self.headers):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "Expected no body with GET.")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdecimal():
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "Expected a Content-Length header.")
        assert isinstance(self.server, JsonServer)
        limit = self.server.max_body_bytes
        # The number of digits first: Python refuses to read numbers of many thousands.
        if len(length) > 18 or int(length) > limit:
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"Expected at most {limit} bytes.")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"Expected {length} bytes, found {len(body)}.")
        return body

    def _answer(self, body: bytes) -> tuple[HTTPStatus, object]:
        try:
            return self.answer(self.path, body)
        except RefusedError as error:
            return error.status, {"error": str(error)}
        except InfrastructureError as error:
            return HTTPStatus.BAD_GATEWAY, {"error": str(error)}
        except Exception as error:
            # A fault of what is served must not end the server; the others may still be served.
            _LOGGER.exception("A request failed.")
            return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{type(error).__name__}: {error}"}

    def _send(self, status: HTTPStatus, message: object) -> None:
        data = json.dumps(message).encode("ascii")
        assert isinstance(self.server, JsonServer)
        try:
            with self.server.holding(len(data)):
                self._write(status, data)
        except RefusedError as error:
            self._write(error.status, json.dumps({"error": str(error)}).encode("ascii"))

    def _write(self, status: HTTPStatus, data: bytes) -> None:
        self._stream.start_clock()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()
