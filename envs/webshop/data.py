"""The official files, found in a folder and read one record at a time.

    files = find_files("~/webshop")
    for item in read_items(files.items): ...
    for asin, row in read_by_asin(files.attributes): ...

Full or reduced ones: "items_shuffle.json" has 1.18 million products, "items_shuffle_1000.json" the first thousand, and
"items_ins_v2.json" and "items_ins_v2_1000.json" go with them. "items_human_ins.json" has all human instructions.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import ijson
import numpy as np
from tqdm import tqdm

from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of
from steppo_gym.storage.data_lines import reading_file, remedy

_ITEMS, _ATTRIBUTES, _HUMAN = "items_shuffle", "items_ins_v2", "items_human_ins.json"
_CHUNK_BYTES = 2**16
_MAX_DEPTH = 100
"""Lists and objects within each other; the official files have five. The parser takes time by their square."""
_HINT = "`steppo-gym download webshop` fetches the files."


@dataclass(frozen=True)
class OfficialFiles:
    """Where the official files are.

    Attributes:
        items: the products.
        attributes: their attributes, and the synthetic instructions.
        human: the human instructions, None where the folder has none.
    """

    items: Path
    attributes: Path
    human: Path | None

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files there are."""
        return tuple(path for path in (self.items, self.attributes, self.human) if path is not None)


def find_files(data: str | Path) -> OfficialFiles:
    """The official files of a folder, or those beside a file of products.

    Of several files of products the full one is taken; of several files of attributes the smallest that covers the
    products.

    Args:
        data: a folder, or an "items_shuffle*.json" that says which of several to take. `~` and variables
            are expanded.

    Raises:
        DataError: a file is missing, or which to take is not clear.
    """
    # A link may lead to a file of another name, as in the cache of the Hub, so it is not followed here.
    path = path_of(data)
    if path.is_dir():
        items, folder = _pick_items(path), path
    elif path.is_file() and _size(path, _ITEMS):
        items, folder = path, path.parent
    else:
        found = "another file" if path.exists() else "nothing"
        raise DataError(
            f"Expected a folder with WebShop's files, or one of its items_shuffle files, in {path}, found {found} "
            f"there. {_HINT}"
        )
    size = _size(items, _ITEMS)
    covering = {number: file for number, file in _sizes(folder, _ATTRIBUTES).items() if number >= size}
    if not covering:
        raise DataError(
            f"Expected {_ATTRIBUTES}.json, or a reduced one that covers {items.name}, in {folder}, "
            f"found {_names(folder)}. {_HINT}"
        )
    human = folder / _HUMAN
    return OfficialFiles(items, covering[min(covering)], human if human.is_file() else None)


def read_items(path: Path, *, progress: bool) -> Iterator[dict[str, Any]]:
    """The products of a file, as they are.

    Args:
        path: an "items_shuffle*.json".
        progress: show a progress bar on stderr, on a terminal.

    Raises:
        DataError: the file cannot be read, or is no list of objects.
    """
    for number, item in enumerate(_stream(path, "list", progress)):
        if not isinstance(item, dict):
            raise DataError(f"Expected objects in {path}, found {item!r:.80} as number {number}.")
        yield item


def read_by_asin(path: Path, *, progress: bool) -> Iterator[tuple[str, Any]]:
    """Asins with what an "items_ins_v2*.json" or "items_human_ins.json" has for them; otherwise as `read_items`.

    Raises:
        DataError: the file cannot be read, or is no object.
    """
    return cast(Iterator[tuple[str, Any]], _stream(path, "object", progress))


def _stream(path: Path, kind: Literal["list", "object"], progress: bool) -> Iterator[Any]:
    with (
        reading_file(path),
        path.open("rb") as file,
        tqdm(
            desc=path.name,
            total=path.stat().st_size,
            unit="B",
            unit_scale=True,
            # None: only on a terminal.
            disable=None if progress else True,
        ) as bar,
    ):
        start = file.read(_CHUNK_BYTES)
        text = start.removeprefix(codecs.BOM_UTF8)
        if (first := text.lstrip()[:1]) != (b"[" if kind == "list" else b"{"):
            raise DataError(f"Expected a JSON {kind} in {path}, found {first!r} at its start. {remedy(text)}")
        file.seek(len(start) - len(text))
        counted = cast(BinaryIO, _Counted(file, bar, path))
        options = {"use_float": True, "buf_size": _CHUNK_BYTES}
        try:
            yield from (
                ijson.items(counted, "item", **options) if kind == "list" else ijson.kvitems(counted, "", **options)
            )
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise DataError(
                f"Expected whole and valid JSON in {path}, found an error: {str(error).strip()!r:.200}. "
                f"{remedy(text, _error_of_encoding(path))}"
            ) from error


def _error_of_encoding(path: Path) -> UnicodeDecodeError | None:
    """The first that a file holds; the parser says the same of a character that is cut off by the end."""
    try:
        with path.open(encoding="utf-8") as file:
            while file.read(_CHUNK_BYTES):
                pass
    except UnicodeDecodeError as error:
        return error
    return None


class _Counted:
    """A file whose reading moves a progress bar and stops at a nesting that no official file has."""

    def __init__(self, file: BinaryIO, bar: tqdm[Any], path: Path) -> None:
        self._file, self._bar, self._path = file, bar, path
        self._nesting = _Nesting()

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._bar.update(len(chunk))
        if self._nesting.deepest_in(chunk) > _MAX_DEPTH:
            raise DataError(
                f"Expected an official file in {self._path}, found lists or objects nested deeper than {_MAX_DEPTH}. "
                "Was it damaged? Delete it and fetch it again."
            )
        return chunk


class _Nesting:
    """How deep lists and objects of a JSON text are nested; texts in quotation marks do not count."""

    _TEXT = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
    _NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
    _CHANGES = np.array([1 if chr(code) in "[{" else -1 for code in range(256)], np.int64)

    def __init__(self) -> None:
        self._depth = 0
        self._open = b""

    def deepest_in(self, chunk: bytes) -> int:
        """The deepest nesting in the next part of the text."""
        rest = self._TEXT.sub(b"", self._open + chunk)
        start = rest.find(b'"')
        # A text that is still open: of it the quotation mark counts, and whether its last sign escapes the next one.
        opened = rest[start:] if start >= 0 else b""
        escapes = (len(opened) - len(opened.rstrip(b"\\"))) % 2
        self._open = opened[:1] + b"\\" * escapes
        brackets = rest[: len(rest) - len(opened)].translate(None, self._NO_BRACKETS)
        if not brackets:
            return self._depth
        depths = self._depth + np.cumsum(self._CHANGES[np.frombuffer(brackets, np.uint8)])
        self._depth = int(depths[-1])
        return int(depths.max())


def _pick_items(folder: Path) -> Path:
    found = _sizes(folder, _ITEMS)
    if not found:
        raise DataError(f"Expected {_ITEMS}.json or {_ITEMS}_1000.json in {folder}, found {_names(folder)}. {_HINT}")
    if math.inf not in found and len(found) > 1:
        names = ", ".join(sorted(path.name for path in found.values()))
        raise DataError(f"Expected one file of products in {folder}, found {names}. Pass the path of the one to take.")
    return found[max(found)]


def _sizes(folder: Path, stem: str) -> dict[float, Path]:
    """Files by the number of products that their names give; the full one has infinitely many."""
    return {
        _size(path, stem): path for path in sorted(folder.glob(f"{stem}*.json")) if _size(path, stem) and path.is_file()
    }


def _size(path: Path, stem: str) -> float:
    """How many products a file is for by its name; 0 for a name that is none of the official ones."""
    match = re.fullmatch(rf"{stem}(?:_(\d{{1,9}}))?\.json", path.name, re.ASCII)
    return 0 if match is None else int(match[1]) if match[1] else math.inf


def _names(folder: Path) -> str:
    """The official files there are, for messages."""
    return ", ".join(sorted(path.name for path in folder.glob("items_*.json"))) or "no file items_*.json"
