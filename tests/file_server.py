"""A loopback HTTP server that serves one file, with the faults a test asks for."""

from __future__ import annotations

import re
import threading
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
    cut_after: list[int] = field(default_factory=list)
    """Bytes after which the connection of the first, second, .. request is cut."""
    statuses: list[int] = field(default_factory=list)
    """Statuses the first, second, .. request is answered with instead."""
    redirect_to: str | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""


def _handler(served: Served) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.requests.append(dict(self.headers))
            if served.statuses:
                self.send_error(served.statuses.pop(0))
            elif served.redirect_to is not None and self.path != served.redirect_to:
                self.send_response(302)
                self.send_header("Location", served.redirect_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                self.send_file()

        def send_file(self):
            start = self.first_byte()
            body = served.content[start or 0 :]
            if start is not None and not body:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(served.content)}")
                body = b"no such range"
            elif start is not None:
                self.send_response(206)
                end = len(served.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{end}/{len(served.content)}")
            else:
                self.send_response(200)
            if served.etag:
                self.send_header("ETag", served.etag)
            if served.last_modified:
                self.send_header("Last-Modified", served.last_modified)
            if served.announces_length:
                self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            cut = served.cut_after.pop(0) if served.cut_after else len(body)
            self.wfile.write(body[:cut])
            self.close_connection = True

        def first_byte(self):
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            known = self.headers.get("If-Range") in (served.etag, served.last_modified)
            if asked is None or not served.answers_ranges or (served.checks_if_range and not known):
                return None
            return int(asked[1])

        def log_message(self, *arguments):
            pass

    return Handler


@contextmanager
def serve(served: Served):
    """Serve while the context lasts; sets `served.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_port}/data.zip"
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
