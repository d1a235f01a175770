"""The server behind the page: it answers on the loopback interface, reads and never writes.

GET / is the page; GET /api/<question>?<parameters> answers with JSON what `EpisodeFile` says. A request must name the
server by an address of this machine, so that a page from elsewhere, whose name was made to lead here, learns nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from steppo_gym.errors import DataError
from steppo_gym.storage.http_server import JsonServer, RefusedError
from steppo_gym.storage.json_handler import JsonHandler
from steppo_gym.view.audit_truth import TRUTH
from steppo_gym.view.episode_file import EpisodeFile
from steppo_gym.view.episode_index import index_path
from steppo_gym.view.filters import Filters
from steppo_gym.view.overview import overview
from steppo_gym.view.page import POLICY, script, served_page, style
from steppo_gym.view.run_folder import Run

_OPEN_FILES = 32
_LARGEST = 10**9
_HOSTS = ("127.0.0.1", "localhost", "[::1]")


class ViewServer(JsonServer):
    """Answers until it is shut down.

    Args:
        runs: what is looked at.
        port: 0 takes a free one, see `url`.

    Raises:
        OSError: the port is in use.
    """

    def __init__(self, runs: Sequence[Run], *, port: int = 0) -> None:
        self._runs = {run.name: run for run in runs}
        self._open: OrderedDict[tuple[str, str], tuple[str, EpisodeFile]] = OrderedDict()
        self._opening = threading.Lock()
        super().__init__(_Handler, host="127.0.0.1", port=port, max_body_bytes=0)

    def ask(self, question: str, query: Mapping[str, str]) -> object:
        """Answer a question.

        Raises:
            RefusedError: it is not one that is answered, or something in it is wrong.
        """
        try:
            if question == "runs":
                return overview(list(self._runs.values()))
            answer = _ANSWERS.get(question)
            if answer is None:
                raise RefusedError(HTTPStatus.NOT_FOUND, f"There is no question {question[:80]!r}.")
            return answer(self._file(query.get("run", ""), query.get("file", "")), query)
        except (DataError, ValueError) as error:
            raise RefusedError(HTTPStatus.BAD_REQUEST, str(error)) from error

    def _file(self, run_name: str, file_name: str) -> EpisodeFile:
        """A file of episodes as it is now; one that has changed is opened again."""
        run = self._runs.get(run_name)
        if run is None:
            raise DataError(f"There is no run {run_name[:80]!r} here.")
        path, tokenizer = run.episode_file(file_name), run.tokenizer_file()
        beside = [path.with_suffix(".credit.npz"), path.with_name(TRUTH)]
        index = index_path(path, tokenizer)
        state = str([index, *(one.stat().st_mtime_ns for one in beside if one.exists())])
        # One at a time: two would build the same index, and building takes all there is of a processor.
        with self._opening:
            known = self._open.pop((run_name, file_name), None)
            if known is None or known[0] != state or not index.exists():
                known = state, EpisodeFile(path, tokenizer)
            self._open[run_name, file_name] = known
            while len(self._open) > _OPEN_FILES:
                self._open.popitem(last=False)
        return known[1]


def _episodes(file: EpisodeFile, query: Mapping[str, str]) -> object:
    return file.listing(Filters.read(query), _number(query, "offset"), _number(query, "limit"))


_ANSWERS = {
    "episodes": _episodes,
    "episode": lambda file, query: file.episode(_number(query, "number")),
    "steps": lambda file, query: file.steps(
        _number(query, "number"), _number(query, "offset"), _number(query, "limit")
    ),
    "whole": lambda file, query: file.whole(_number(query, "number"), _number(query, "step")),
    "mates": lambda file, query: file.mates(_number(query, "number"), _number(query, "step")),
    "find": lambda file, query: {
        "step": file.find(_number(query, "number"), query.get("text", ""), _number(query, "after"))
    },
}


class _Page(NamedTuple):
    make: Callable[[], str]
    kind: str


_PAGES = {
    "/": _Page(served_page, "text/html"),
    "/view.js": _Page(script, "text/javascript"),
    "/view.css": _Page(style, "text/css"),
}


class _Handler(JsonHandler):
    def check(self, method: str, path: str) -> None:
        """See `JsonHandler`."""
        if method != "GET":
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "Expected GET.")
        host = self.headers.get("Host", "").lower()
        if host.rpartition(":")[0] not in _HOSTS and host not in _HOSTS:
            raise RefusedError(HTTPStatus.FORBIDDEN, f"Expected the address of this machine, got {host[:80]!r}.")
        if not path.startswith("/api/") and urlsplit(path).path not in _PAGES:
            raise RefusedError(HTTPStatus.NOT_FOUND, "Expected / or /api/<question>.")

    def answer(self, path: str, body: bytes) -> tuple[HTTPStatus, object]:
        """See `JsonHandler`."""
        assert isinstance(self.server, ViewServer)
        address = urlsplit(path)
        if page := _PAGES.get(address.path):
            return HTTPStatus.OK, page
        query = dict(parse_qsl(address.query, keep_blank_values=True, errors="replace"))
        return HTTPStatus.OK, self.server.ask(address.path.removeprefix("/api/"), query)

    def _send(self, status: HTTPStatus, message: object) -> None:
        """The page and its parts as what they are; everything else is JSON."""
        if not isinstance(message, _Page):
            super()._send(status, message)
            return
        data = message.make().encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{message.kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header(
            "Content-Security-Policy",
            f"{POLICY}; frame-ancestors 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:",
        )
        self.end_headers()
        self.wfile.write(data)

    def end_headers(self) -> None:
        """Say with every answer that its type is what it says, and that it may have changed by the next time."""
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


def _number(query: Mapping[str, str], name: str) -> int:
    """A whole number of the query, 0 if it is missing."""
    text = query.get(name) or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ValueError(f"{name} must be a whole number below {_LARGEST}, got {text[:80]!r}.")
    return int(text)
