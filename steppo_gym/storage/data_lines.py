"""Data files that came from elsewhere: a JSON value, or lines numbered from 1, of bounded length, each a JSON value.

for number, row in json_lines(Path("questions.jsonl")):
    ...
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from steppo_gym.errors import DataError

MAX_LINE_BYTES = 2**27
"""A few packed kilobytes can be a line without end, which would be read whole."""
MAX_WHOLE_BYTES = 2**30
"""Of a JSON value over several lines, which is read whole; a packed one can be of any length."""

_NOT_UTF_8 = "It is not UTF-8: write it as UTF-8, for example with `iconv -f latin1 -t utf-8`."
_OTHER_FILES = (
    (b"\x1f\x8b", "It is packed with gzip: unpack it."),
    (b"PK\x03\x04", "It is a zip archive: unpack it."),
    (b"BZh", "It is packed with bzip2: unpack it."),
    (b"\xfd7zXZ", "It is packed with xz: unpack it."),
    (b"(\xb5/\xfd", "It is packed with zstd: unpack it."),
    (b"\xff\xfe", "It is UTF-16: write it as UTF-8."),
    (b"version https://git-lfs", "It is Git LFS's note of where the file is: fetch that with `git lfs pull`."),
    (b"<", "It is a web page, not the file: fetch the file itself."),
)


def remedy(start: bytes, error: Exception | None = None) -> str:
    """What to do about a file that begins like this and cannot be read, for that error where one was raised."""
    known = (said for mark, said in _OTHER_FILES if start.lstrip().startswith(mark))
    # A file that was cut within a character is UTF-8 up to there.
    other = isinstance(error, UnicodeDecodeError) and error.reason != "unexpected end of data"
    return next(known, _NOT_UTF_8 if other else "Was its download interrupted? Fetch it again.")


def numbered_lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of an open file that hold more than blanks, with their numbers.

    Args:
        file: to read from.
        path: of the file, for the error.

    Raises:
        DataError: a line is longer than `MAX_LINE_BYTES`.
    """
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise DataError(
                f"Expected at most {MAX_LINE_BYTES} bytes in a line of {path}, line {number} has more. Is it the right "
                "file? Write one record a line."
            )
        if not line.isspace():
            yield number, line


def json_value(line: bytes, number: int, path: Path) -> Any:
    """What a line says as JSON; a mark of the byte order in front of it is no part of it.

    Raises:
        DataError: it is no JSON; the message names file and line.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Line {number} of {path} is not readable JSON ({error}). {remedy(line, error)}") from None


def whole_value(first: bytes, lines: Iterator[tuple[int, bytes]], path: Path) -> Any:
    """The value that a file's lines make together.

    Args:
        first: the line that was read already.
        lines: the others, of `numbered_lines`.
        path: of the file, for the error.

    Raises:
        DataError: they make none, or are longer than `MAX_WHOLE_BYTES`.
    """
    content = bytearray(first)
    for _, line in lines:
        content += line
        if len(content) > MAX_WHOLE_BYTES:
            raise DataError(
                f"Expected JSON lines in {path}, or one JSON value of at most {MAX_WHOLE_BYTES} bytes, found more."
            )
    try:
        return json.loads(bytes(content))
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON lines or a JSON list in {path}: {error}. {remedy(first, error)}") from None


@contextlib.contextmanager
def reading_file(path: Path) -> Iterator[None]:
    """Raise a DataError that names the file in place of what the system says."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}).") from error


def read_json(path: Path) -> Any:
    """The value of a file of JSON.

    Raises:
        DataError: the file cannot be read, or holds no JSON, for which `__cause__` is json's own error.
    """
    with reading_file(path):
        content = path.read_bytes()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not readable JSON ({error}). {remedy(content[:100], error)}") from error


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The values of a file of JSON lines with the numbers of their lines.

    Raises:
        DataError: the file cannot be read, or a line is no JSON.
    """
    with reading_file(path), path.open("rb") as file:
        for number, line in numbered_lines(file, path):
            yield number, json_value(line, number, path)
