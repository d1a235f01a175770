"""Fetch a file over HTTP so that an interrupted download goes on where it stopped and a wrong file is never used.

Next to `name` lie, while it is fetched, `name.part` (what has arrived) and `name.part.version` (which version of the
file that is, as the server calls it). Only a complete and checked file gets its name. Two processes must not fetch the
same file at once.

Whatever the server does comes to an end: tries that bring little are counted (`MAX_TRIES`, `MIN_PROGRESS_BYTES`), so
are those that had to throw away what had arrived, and size and time have limits.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from tqdm import tqdm

from steppo_gym.errors import DataError, InfrastructureError
from steppo_gym.storage.client_deadline import Deadline
from steppo_gym.storage.file_stamps import file_sha256

MAX_TRIES = 5
"""Tries in a row that together bring less than `MIN_PROGRESS_BYTES`; also how often a download may start over."""
MIN_PROGRESS_BYTES = 2**16
TIMEOUT_SECONDS = 30.0
"""Longest silence of the server."""
SLOW_SECONDS = 60.0
"""A server that sends less than `MIN_PROGRESS_BYTES` in this time is asked again."""
MAX_BYTES = 16 * 2**30
MAX_SECONDS = 24 * 3600.0
_MAX_REDIRECTS = 20
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_WAIT_SECONDS = 60.0


class _TryAgainError(Exception):
    """The try failed in a way that another one may not; what has arrived is kept."""


def download(
    url: str,
    destination: str | Path,
    *,
    sha256: str | None,
    progress: bool = True,
    back_off_seconds: float = 1.0,
    max_bytes: int = MAX_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> Path:
    """Fetch `url` into the file `destination`.

    A file that is there already is checked and not fetched again.

    Args:
        url: http or https; redirects are followed.
        destination: file to write; its folder is made.
        sha256: hex digest the file must have. None checks nothing but the length the server announces.
        progress: show a progress bar on stderr.
        back_off_seconds: pause before the second try; doubles with every further one that brings nothing.
        max_bytes: a longer file is refused, announced or not.
        max_seconds: for all tries together.

    Returns:
        `destination`.

    Raises:
        DataError: the server has no such file, the file is not the expected one or too large, or it cannot be written.
        InfrastructureError: the server cannot be reached or keeps failing; what has arrived is kept for the next call.
    """
    destination = Path(destination)
    if destination.is_dir():
        raise DataError(f"Expected the file {destination} or nothing there, found a folder. Move it out of the way.")
    if destination.exists():
        if sha256 is not None and (found := file_sha256(destination)) != sha256.lower():
            raise DataError(f"Expected the SHA-256 {sha256} of {destination}, found {found}. Delete the file.")
        return destination
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        partial = _Partial(destination)
        _Fetch(url, partial, max_bytes, max_seconds).run(progress=progress, back_off_seconds=back_off_seconds)
    except OSError as error:
        raise DataError(
            f"{destination} cannot be written ({error.strerror or error}). Make room or choose another folder."
        ) from error
    if sha256 is not None and (found := file_sha256(partial.path)) != sha256.lower():
        partial.discard()
        raise DataError(
            f"Expected the SHA-256 {sha256} of {url}, found {found}. The file was thrown away: it was damaged on the "
            "way, or is not the one it was when the digest was written down."
        )
    partial.finish()
    return destination


class _Partial:
    """The beginning of a file, and the version of the file it is the beginning of."""

    def __init__(self, destination: Path) -> None:
        self.destination = destination
        self.path = destination.with_name(f"{destination.name}.part")
        self._version_path = destination.with_name(f"{destination.name}.part.version")
        # A link lying there leads to a file that is not ours to write.
        if self.path.is_symlink() or self._version_path.is_symlink():
            self.discard()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def version(self) -> str | None:
        content = self._version_path.read_bytes() if self._version_path.exists() else b""
        # It is sent as a header: whatever else lies there is none.
        return content.decode() if content.isascii() and content.decode().isprintable() and content else None

    def start(self, version: str | None) -> None:
        """Forget what has arrived and note the version of what comes."""
        self.discard()
        self.path.touch(exist_ok=False)
        if version is not None:
            with self._version_path.open("x", encoding="ascii") as file:
                file.write(version)

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)

    def finish(self) -> None:
        os.replace(self.path, self.destination)
        self._version_path.unlink(missing_ok=True)


class _Fetch:
    """The tries to get one file, and what they have brought."""

    def __init__(self, url: str, partial: _Partial, max_bytes: int, max_seconds: float) -> None:
        self._url, self._partial, self._max_bytes = url, partial, max_bytes
        self._max_seconds, self._end = max_seconds, time.monotonic() + max_seconds
        self._restarts = 0
        self._deadline = Deadline()

    def run(self, *, progress: bool, back_off_seconds: float) -> None:
        tries, wait, reached = 0, back_off_seconds, self._partial.size
        bar = tqdm(desc=self._partial.destination.name, unit="B", unit_scale=True, disable=not progress)
        with httpx.Client(timeout=httpx.Timeout(TIMEOUT_SECONDS)) as client, bar:
            self._deadline.bind(client)
            while True:
                try:
                    return self._try(client, bar)
                except (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects, UnicodeError) as error:
                    raise DataError(
                        f"Expected the http or https URL of a file, got {self._url!r} ({error})."
                    ) from error
                except (_TryAgainError, httpx.TransportError) as error:
                    # Bytes that had arrived before and were thrown away are none that are new.
                    if self._partial.size >= reached + MIN_PROGRESS_BYTES:
                        tries, wait, reached = 0, back_off_seconds, self._partial.size
                    tries += 1
                    self._check_hope(tries, str(error) or type(error).__name__, error)
                    time.sleep(min(wait, _MAX_WAIT_SECONDS))
                    wait *= 2

    def _check_hope(self, tries: int, cause: str, error: Exception) -> None:
        if tries >= MAX_TRIES:
            problem = f"{tries} tries in a row brought nothing of {self._url} ({cause})"
        elif self._restarts >= MAX_TRIES:
            problem = f"the download of {self._url} had to start over {self._restarts} times ({cause})"
        elif time.monotonic() >= self._end:
            problem = f"{self._max_seconds:g} seconds were not enough for {self._url} ({cause})"
        else:
            return
        raise InfrastructureError(
            "download",
            f"{problem}. {self._partial.size} bytes are kept in {self._partial.path}; run the same again to go on "
            "from there.",
        ) from error

    def _try(self, client: httpx.Client, bar: tqdm[Any]) -> None:
        partial = self._partial
        headers = {"Accept-Encoding": "identity"}
        # Without a version nobody can tell whether the rest would fit what has arrived.
        if partial.size and partial.version:
            headers |= {"Range": f"bytes={partial.size}-", "If-Range": partial.version}
        with self._open(client, headers) as response:
            if response.status_code == 416 and _range_total(response) == partial.size:
                return
            total = self._prepare(response)
            self._check_size(total or 0)
            bar.total, bar.n = total, partial.size
            self._receive(response, bar)
        if total is not None and partial.size != total:
            size = partial.size
            self._discard()
            raise _TryAgainError(f"the server announced {total} bytes and sent {size}")

    @contextlib.contextmanager
    def _open(self, client: httpx.Client, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
        """The head of the answer that redirects lead to; the bodies of redirects, which have no limit, are not read."""
        request = client.build_request("GET", self._url, headers=headers)
        for _ in range(_MAX_REDIRECTS + 1):
            self._deadline.set(SLOW_SECONDS)
            response = client.send(request, stream=True)
            if response.next_request is None:
                with contextlib.closing(response):
                    yield response
                return
            response.close()
            request = response.next_request
        raise httpx.TooManyRedirects(f"more than {_MAX_REDIRECTS} redirects", request=request)

    def _receive(self, response: httpx.Response, bar: tqdm[Any]) -> None:
        size, begun, arrived = self._partial.size, time.monotonic(), 0
        self._deadline.set(2 * SLOW_SECONDS)
        with self._partial.path.open("ab") as file:
            # Chunks as they arrive: gathered to larger ones, the last would be lost with the connection.
            for chunk in response.iter_raw():
                size, arrived = size + len(chunk), arrived + len(chunk)
                self._check_size(size)
                file.write(chunk)
                bar.update(len(chunk))
                if time.monotonic() >= min(self._end, begun + SLOW_SECONDS):
                    if arrived < MIN_PROGRESS_BYTES or time.monotonic() >= self._end:
                        raise _TryAgainError(f"the server sent {arrived} bytes in {SLOW_SECONDS:g} seconds")
                    begun, arrived = time.monotonic(), 0
                    # Bytes that are none of the file's, and so none of these chunks, take no longer than this.
                    self._deadline.set(2 * SLOW_SECONDS)

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            self._partial.discard()
            raise DataError(f"Expected at most {self._max_bytes} bytes from {self._url}, found more. Check the URL.")

    def _prepare(self, response: httpx.Response) -> int | None:
        """Make the partial file what the response's body continues, and say how long the whole will be."""
        status, partial = response.status_code, self._partial
        self._check_encoding(response)
        if status == 200:
            self._discard()
            partial.start(_version(response))
            return _number(response.headers.get("Content-Length", ""))
        if status == 206 and _range_start(response) == partial.size and _version(response) in (None, partial.version):
            return _range_total(response)
        if status in (206, 416):
            self._discard()
            raise _TryAgainError(f"the server does not go on where it was asked to (status {status})")
        answer = f"{status} {response.reason_phrase}".strip()
        if status in _RETRIED:
            raise _TryAgainError(f"the server answered {answer}")
        raise DataError(f"Expected a file at {response.request.url}, the server answered {answer}. Check the URL.")

    def _check_encoding(self, response: httpx.Response) -> None:
        """Refuse a file that comes packed although it was not asked for so: its bytes would be kept as they come."""
        encoding = response.headers.get("Content-Encoding", "")
        # Of a file that is packed itself, servers like to say so.
        plain = encoding in ("", "identity") or self._partial.destination.suffix == ".gz"
        if response.status_code in (200, 206) and not plain:
            raise DataError(
                f"Expected {self._url} as it is, the server packs it as {encoding[:80]!r}. Fetch it with a browser, "
                f"and put it where {self._partial.destination} is expected."
            )

    def _discard(self) -> None:
        """Throw away what has arrived; the next try starts over."""
        self._restarts += self._partial.size > 0
        self._partial.discard()


def _version(response: httpx.Response) -> str | None:
    """What `If-Range` can hold (RFC 9110, section 13.1.5): a strong ETag, else the date of the last change."""
    etag = response.headers.get("ETag", "")
    version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    return version if version.isascii() and version.isprintable() and version else None


def _range_start(response: httpx.Response) -> int | None:
    """The 5 of `Content-Range: bytes 5-9/10`."""
    unit, _, rest = response.headers.get("Content-Range", "").partition(" ")
    first = rest.partition("-")[0]
    return _number(first) if unit == "bytes" else None


def _range_total(response: httpx.Response) -> int | None:
    """The 10 of `Content-Range: bytes 5-9/10` or `bytes */10`."""
    return _number(response.headers.get("Content-Range", "").rpartition("/")[2])


def _number(text: str) -> int | None:
    # Python refuses to read numbers of many thousands of digits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None
