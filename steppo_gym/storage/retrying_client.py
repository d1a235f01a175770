"""An HTTP client that asks again while the trouble may pass, for servers that a rollout depends on.

    client = RetryingClient("http://127.0.0.1:8000/retrieve", "search", timeout=10.0, max_retries=3, max_concurrency=16)
    result = client.post({"queries": ["Apollo 8"]}, read_result)

    client = RetryingClient("http://127.0.0.1:4000", "search", timeout=10.0, max_retries=3, max_concurrency=4)
    found = client.request("GET", "/paper/search?query=moon", lambda status, text: json.loads(text))

Tried again are timeouts, broken connections, the statuses 408, 429 and 5xx, and answers that the reader refuses with
`UnreadableAnswerError`.
"""

from __future__ import annotations

import contextlib
import email.utils
import json
import math
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping
from functools import partial
from typing import Any, Self, TypeVar

import httpx

from steppo_gym.errors import InfrastructureError
from steppo_gym.storage.client_deadline import Deadline

FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 60.0
STEP_WAIT_SECONDS = 5.0
"""The longest wait before an environment asks again: with the searches' four attempts of ten seconds it ends before the
60 seconds do after which a step counts as hanging, and so as the policy's fault.
"""
MAX_ANSWER_BYTES = 64 * 2**20

_SHOWN_CHARACTERS = 120
_ENCODINGS = ("", "identity", "gzip", "deflate")
"""Of answers. Others, and several one in the other, can make gigabytes of a few bytes before any of them is seen."""

T = TypeVar("T")


class UnreadableAnswerError(Exception):
    """The server's answer is not what was expected; another one may be."""


def is_number(value: object) -> bool:
    """Whether a value of JSON is a number that a float can hold; true and false are none."""
    # Comparing takes whole numbers of any length, which a float does not.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]


class MadeAnew:
    """Copied and pickled by the arguments it was made with, so that every copy has connections of its own.

    What was found in the environment, such as a key, is not among them.
    """

    _made_with: Callable[[], Self]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Note the arguments."""
        made = super().__new__(cls)
        made._made_with = partial(cls, *args, **kwargs)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """How another one is made."""
        return self._made_with, ()


class RetryingClient(MadeAnew):
    """Sends JSON to one address and those below it. Safe to use from several threads, and after a fork.

    Args:
        url: where to send it.
        boundary: that of the errors, see `InfrastructureError`.
        timeout: seconds to wait for one answer, all of it.
        max_retries: how often a request is sent again.
        max_concurrency: requests under way at the same time; more wait for their turn.
        headers: sent with every request.
        min_interval: seconds from one request of this process to the next, repeated ones included.
        max_wait: a server that asks for a longer wait than these seconds is given up; None waits for a minute at most.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        url: str,
        boundary: str,
        *,
        timeout: float,
        max_retries: int,
        max_concurrency: int,
        headers: Mapping[str, str] | None = None,
        min_interval: float = 0.0,
        max_wait: float | None = None,
    ) -> None:
        _check_arguments(url, timeout, max_retries, max_concurrency)
        _check_headers(headers or {})
        self._min_interval, self._next_start, self._lock = min_interval, 0.0, threading.Lock()
        self._url, self._boundary, self._max_retries, self._timeout = url, boundary, max_retries, timeout
        self._max_wait = max_wait
        # An address may hold a password, which error messages must not show.
        self._shown_url = str(httpx.URL(url).copy_with(userinfo=b""))
        self._deadline = Deadline()

        def connect() -> httpx.Client:
            client = httpx.Client(
                timeout=httpx.Timeout(timeout, connect=min(timeout, 10.0), pool=None),
                limits=httpx.Limits(max_connections=max_concurrency, max_keepalive_connections=max_concurrency),
                # Reading the certificates takes 0.1 s, and only https needs them. Redirects are not followed.
                verify=url.startswith("https://"),
                headers={
                    "Content-Type": "application/json",
                    "Accept-Encoding": ", ".join(_ENCODINGS[2:]),
                    **(headers or {}),
                },
            )
            self._deadline.bind(client)
            return client

        self._connect = connect
        self._opened = os.getpid(), connect()

    @property
    def _client(self) -> httpx.Client:
        """That of this process: two that write to one connection read each other's answers."""
        process, client = self._opened
        if process != os.getpid():
            client = self._connect()
            self._opened = os.getpid(), client
        return client

    def post(self, body: Mapping[str, Any], read: Callable[[str], T], stop: threading.Event | None = None) -> T:
        """What `read` makes of the text of the server's answer.

        Args:
            body: what to send, as JSON.
            read: reads the text of an answer with status 200.
            stop: once it is set, no request is sent again.

        Raises:
            InfrastructureError: the server refused the request, or gave no good answer in all attempts.
        """
        # ASCII, because a text that a model wrote may hold half of a surrogate pair, which UTF-8 cannot.
        request = self._client.build_request("POST", self._url, content=json.dumps(body))
        return self._send(request, lambda _, text: read(text), (httpx.codes.OK,), stop)

    def request(
        self,
        method: str,
        path: str,
        read: Callable[[int, str], T],
        *,
        body: Mapping[str, Any] | None = None,
        expected: Container[int] = (httpx.codes.OK,),
    ) -> T:
        """What `read` makes of the status and the text of an answer to any request.

        Args:
            method: "GET" or "POST".
            path: what follows the address, with the query and quoted as it must be.
            read: reads the status and the text of an answer.
            body: what to send, as JSON.
            expected: statuses for `read`; others count as refusals or failures.

        Raises:
            InfrastructureError: the server refused the request, or gave no good answer in all attempts.
        """
        content = None if body is None else json.dumps(body)
        request = self._client.build_request(method, self._url + path, content=content)
        return self._send(request, read, expected, None)

    def close(self) -> None:
        """Close the connections; a second call changes nothing."""
        self._client.close()

    def _send(
        self,
        request: httpx.Request,
        read: Callable[[int, str], T],
        expected: Container[int],
        stop: threading.Event | None,
    ) -> T:
        stop = stop or threading.Event()
        # Spread, so that requests that failed together do not come back together; the same for the same request.
        jitter = random.Random(request.content or str(request.url))
        problem = ""
        for attempt in range(self._max_retries + 1):
            retry_after = None
            try:
                self._wait_for_start()
                answer, text = self._receive(request)
                if answer.status_code in expected:
                    return read(answer.status_code, text)
                problem = f"HTTP {answer.status_code}: {read_error(text)}"
                if answer.has_redirect_location:
                    problem += f", which points to {shorten(answer.headers['Location'])}: give that address"
                if not _is_worth_retrying(answer.status_code):
                    raise self._error(f"{self._shown_url} refused the request with {problem}.")
                retry_after = read_retry_after(answer.headers.get("Retry-After"))
                if self._max_wait is not None and (retry_after or 0.0) > self._max_wait:
                    raise self._error(
                        f"{self._shown_url} asks to wait {retry_after:g} s ({problem}), more than the "
                        f"{self._max_wait:g} s that a step can wait. Use fewer workers or a server with a higher limit."
                    )
            except httpx.RequestError as error:
                problem = f"{type(error).__name__}: {error}"
            except UnreadableAnswerError as error:
                problem = str(error)
            if attempt == self._max_retries or stop.wait(_delay(attempt, retry_after, jitter)):
                break
        raise self._error(
            f"{self._shown_url} gave no response in {self._max_retries + 1} attempts, the last problem was {problem}. "
            "Check that the server runs and is not overloaded; raise timeout and max_retries if it is slow."
        )

    def _receive(self, request: httpx.Request) -> tuple[httpx.Response, str]:
        """The head and the text of an answer, however the server spreads it."""
        content = bytearray()
        self._deadline.set(self._timeout)
        answer = self._client.send(request, stream=True)
        with contextlib.closing(answer):
            encoding = answer.headers.get("Content-Encoding", "")
            if encoding.lower() not in _ENCODINGS:
                raise UnreadableAnswerError(f"an answer packed as {shorten(encoding)}, which was not asked for")
            for chunk in answer.iter_bytes():
                content += chunk
                if len(content) > MAX_ANSWER_BYTES:
                    raise UnreadableAnswerError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
        # JSON is UTF-8 (RFC 8259, section 8.1), whatever the server calls it.
        return answer, content.decode("utf-8-sig", "replace")

    def _wait_for_start(self) -> None:
        """Take the next moment at which a request may start, and wait for it."""
        if not self._min_interval:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + self._min_interval
        time.sleep(start - now)

    def _error(self, message: str) -> InfrastructureError:
        return InfrastructureError(self._boundary, message)


def read_error(text: str) -> str:
    """What the body of an unsuccessful answer says, shortened."""
    try:
        data = json.loads(text)
        error = data.get("error", data)
        message = error if isinstance(error, str) else error["message"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        message = text
    return shorten(message)


def read_retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header (RFC 9110, section 10.2.3) asks to wait, None if there is nothing to read."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def shorten(value: object) -> str:
    """A value as it is shown in an error message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."


def _delay(attempt: int, retry_after: float | None, jitter: random.Random) -> float:
    if retry_after is not None:
        return min(retry_after, MAX_DELAY_SECONDS)
    return min(FIRST_DELAY_SECONDS * 2**attempt, MAX_DELAY_SECONDS) * (0.5 + jitter.random() / 2)


def _is_worth_retrying(status: int) -> bool:
    return status in (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS) or status >= 500


def _check_arguments(url: str, timeout: float, max_retries: int, max_concurrency: int) -> None:
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"The server's address must start with http:// or https://, got {url!r}.")
    try:
        address = httpx.URL(url)
        # What the system would look up.
        host = address.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"Expected the address of a server, got {url!r:.200} ({error}).") from None
    if not host or not 0 < (address.port or 80) < 2**16:
        raise ValueError(f"Expected the address of a server with a host, and a port below {2**16}, got {url!r:.200}.")
    if not timeout > 0:
        raise ValueError(f"timeout must be positive, got {timeout}.")
    if max_retries < 0:
        raise ValueError(f"max_retries must be 0 or more, got {max_retries}.")
    if max_concurrency < 1:
        raise ValueError(f"max_concurrency must be at least 1, got {max_concurrency}.")


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        # The value may be a key, which no message shows.
        if not (value.isascii() and value.isprintable()) or value != value.strip():
            raise ValueError(
                f"The header {name} cannot be sent: expected printable ASCII without outer blanks, found other "
                "characters. If it is a key from the environment, is there a line break in it?"
            )
