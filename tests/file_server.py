"""A loopback HTTP server that serves one file, with the faults a test asks for."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """What is served and how; `requests` collects the headers of every request."""

    content: bytes
    etag: str | None = '"v1"'
    last_modified: str | None = None
    answers_ranges: bool = True
    checks_if_range: bool = True
    announces_length: bool = True
    length: str | None = None
    """What is announced instead of the true length."""
    pause: float = 0.0
    """Seconds after every 1,000 bytes."""
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connection of the first, second, .. request is cut."""
    statuses: list[int] = field(default_factory=list)
    """Statuses the first, second, .. request is answered with instead."""
    encoding: str | None = None
    """How the content is said to be packed."""
    redirect_to: str | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


class _Handler(BaseHTTPRequestHandler):
    @property
    def served(self):
        return self.server.served

    def do_GET(self):
        self.served.requests.append(dict(self.headers))
        if self.served.statuses:
            self.send_error(self.served.statuses.pop(0))
        elif self.served.redirect_to is not None and self.path != self.served.redirect_to:
            self.send_response(302)
            self.send_header("Location", self.served.redirect_to)
            self.send_header("Content-Length", "0")
            self.end_headers()
        else:
            self.send_file()

    def send_file(self):
        body = self.send_status()
        headers = {
            "ETag": self.served.etag,
            "Last-Modified": self.served.last_modified,
            "Content-Length": (self.served.length or str(len(body))) if self.served.announces_length else None,
            "Content-Encoding": self.served.encoding,
            "Connection": "close",
        }
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        cut = self.served.cut_after.pop(0) if self.served.cut_after else len(body)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send_body(body[:cut])
        self.close_connection = True

    def send_body(self, body):
        if not self.served.pause:
            self.wfile.write(body)
            return
        for start in range(0, len(body), 1000):
            self.wfile.write(body[start : start + 1000])
            time.sleep(self.served.pause)

    def send_status(self):
        start = self.first_byte()
        if start is None:
            self.send_response(200)
            return self.served.content
        size = len(self.served.content)
        if start >= size:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{size}")
            return b"no such range"
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        return self.served.content[start:]

    def first_byte(self):
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        known = self.headers.get("If-Range") in (self.served.etag, self.served.last_modified)
        if asked is None or not self.served.answers_ranges or (self.served.checks_if_range and not known):
            return None
        return int(asked[1])

    def log_message(self, *arguments):
        pass


@contextmanager
def serve(served: Served):
    """Serve while the context lasts; sets `served.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.served = served
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
