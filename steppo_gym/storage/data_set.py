"""Fetching the official files of an environment: every file from the first address that has it, checked and unpacked.

A file whose digest nobody has published is remembered: `name.sha256` beside it holds the digest of the first download,
and later ones must have it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from steppo_gym.errors import DataError, InfrastructureError
from steppo_gym.keywords import path_of
from steppo_gym.storage.archives import Archive, DataSet
from steppo_gym.storage.download import download
from steppo_gym.storage.file_stamps import file_sha256
from steppo_gym.storage.unzip import extract_zip

LOCK_FILE = ".download.lock"
"""In the folder; it stays there, and only being locked means something."""
_DIGEST = re.compile(rb"([0-9a-fA-F]{64})(?:\s|$)")


def data_folder(data_set: DataSet) -> Path:
    """Where the files of a data set go unless told otherwise."""
    return path_of(os.environ.get(data_set.folder_variable) or data_set.default_folder)


def fetch_data_set(
    archives: tuple[Archive, ...],
    folder: Path,
    *,
    origin: str = "",
    progress: bool = True,
    say: Callable[[str], None] = print,
    warn: Callable[[str], None] = print,
) -> None:
    """Fetch files into a folder and unpack those that are zip files; one process at a time, others wait.

    Args:
        archives: what to fetch; what is there already is checked and not fetched again.
        folder: made if needed.
        origin: where the authors say how to get the files, for the error where no address works.
        progress: show progress bars.
        say: takes lines about what is done.
        warn: takes lines about addresses that failed while there are others.

    Raises:
        DataError: a file is not the expected one, is no undamaged zip file, or cannot be written.
        InfrastructureError: no address of a file works.
        ValueError: two files have one name.
    """
    names = [archive.file_name for archive in archives]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"Several addresses end in {twice[0]!r}, and only one file can have this name. Give one of them."
        )
    with _alone_in(folder, say):
        for archive in archives:
            path = folder / archive.file_name
            lock = path.with_name(f"{path.name}.sha256")
            expected = archive.sha256 or _locked(lock)
            _fetch(archive, path, expected, origin, progress, say, warn)
            if path.suffix == ".zip":
                say(f"{extract_zip(path, folder)} files unpacked into {folder}; the zip file may be deleted.")
            # Only now: a page that says to sign in, under the name of an archive, is not what later downloads must be.
            if expected is None:
                digest = file_sha256(path)
                _lock(lock, digest)
                say(f"SHA-256 {digest}: not known before, written to {lock}; later downloads must have it.")


@contextlib.contextmanager
def _alone_in(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Wait until no other process fetches into a folder: two that write the same file damage it."""
    with contextlib.ExitStack() as held:
        # A folder that cannot be written or locked: writing says so, and what is there needs no lock.
        with contextlib.suppress(OSError, NotImplementedError):
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK_FILE)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                say(f"Another process fetches into {folder}; waiting for it.")
                lock.acquire()
            held.callback(lock.release)
        yield


def _fetch(
    archive: Archive,
    path: Path,
    sha256: str | None,
    origin: str,
    progress: bool,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Fetch a file from the first of its addresses that has it."""
    urls = (archive.url, *archive.mirrors)
    for url in urls:
        say(f"{url} -> {path}")
        try:
            download(url, path, sha256=sha256, progress=progress)
            return
        except (DataError, InfrastructureError) as error:
            # A file that is there already is wrong wherever it would come from.
            if path.exists() or not origin:
                raise
            warn(str(error))
    raise InfrastructureError(
        "download",
        f"none of the {len(urls)} known addresses of {path.name} gave the file, see above. Try again later, fetch "
        f"it with --url from another address, or get it from {origin} and put it into {path.parent}: a file that is "
        "there is checked and not fetched again.",
    )


def _locked(lock: Path) -> str | None:
    """The digest in a file as `sha256sum` writes it.

    Raises:
        DataError: the file holds something else.
    """
    try:
        content = lock.read_bytes() if lock.exists() else b""
    except OSError as error:
        raise DataError(f"{lock} cannot be read ({error.strerror or error}). Move it out of the way.") from error
    if not content.strip():
        return None
    if not (match := _DIGEST.match(content)):
        raise DataError(f"Expected a SHA-256 in {lock}, found {content[:40]!r}. Delete it to take the next download.")
    return match[1].decode("ascii")


def _lock(lock: Path, digest: str) -> None:
    try:
        lock.write_text(f"{digest}  {lock.stem}\n", encoding="utf-8")
    except OSError as error:
        raise DataError(f"{lock} cannot be written ({error.strerror or error}). Make room.") from error
