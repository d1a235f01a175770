"""The folder an index lies in: built whole or not at all, described by a manifest, checked when it is opened.

`manifest.json` names the format and its version, the engine, the corpus by the SHA-256 of its content, the number of
passages, and every other file with its size and, up to a mebibyte, its SHA-256. Larger files are compared by size
alone, so that opening an index does not read it. No file is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from steppo_gym.errors import DataError
from steppo_gym.storage.cache import make_once
from steppo_gym.storage.file_stamps import file_sha256

MANIFEST = "manifest.json"
FORMAT = "steppo-gym index"
VERSION = 3
"""Raised with every change of the files, of what is read into them or of the analysis: others are refused."""

_CHECKSUM_BYTES = 2**20
_MAX_MANIFEST_BYTES = 2**20
_HINT = "Build it again from its corpus with rebuild=True or `steppo-gym index --rebuild`, or delete the folder."


@dataclass(frozen=True)
class Description:
    """What an index was made of."""

    engine: str
    corpus: str
    """SHA-256 of the corpus' content, in hex."""
    num_passages: int


def damaged(folder: Path, problem: str) -> DataError:
    """The error for an index that cannot be used."""
    return DataError(f"The index in {folder} is damaged: {problem}. {_HINT}")


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Report content that has changed in a way that the sizes of the files could not show.

    Raises:
        DataError: what was read makes no sense.
    """
    try:
        yield
    except (IndexError, json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise damaged(folder, f"its content has changed ({error})") from error


def build_folder(folder: Path, fill: Callable[[Path], Description], *, rebuild: bool) -> None:
    """Make an index folder, if it is not there; see `steppo_gym.storage.cache.make_once`.

    Args:
        folder: where the index will lie.
        fill: writes the files into the folder it is given.
        rebuild: replace what is there.

    Raises:
        Exception: whatever `fill` raised; nothing is left behind.
    """

    def make(unfinished: Path) -> None:
        unfinished.mkdir()
        _write_manifest(unfinished, fill(unfinished))

    make_once(folder, make, again=rebuild)


def check_folder(folder: Path) -> Description:
    """Read the manifest and compare the files with it.

    Raises:
        DataError: the folder holds no index, one of another version, or a damaged one.
    """
    manifest = _read_manifest(folder)
    if manifest.get("format") != FORMAT:
        raise DataError(f"Expected an index of steppo-gym in {folder}, {MANIFEST} says {manifest.get('format')!r:.80}.")
    if manifest.get("version") != VERSION:
        raise DataError(
            f"The index in {folder} has version {manifest.get('version')!r:.80}, expected {VERSION}. {_HINT}"
        )
    match manifest:
        case {"engine": str(engine), "corpus": str(corpus), "num_passages": int(num_passages), "files": dict(files)}:
            try:
                for name, expected in files.items():
                    _check_file(folder, name, expected)
            except OSError as error:
                raise DataError(f"The index in {folder} cannot be read: {error}.") from error
            return Description(engine, corpus, num_passages)
        case _:
            raise damaged(folder, f"{MANIFEST} is not complete")


def load_array(folder: Path, name: str, dtype: DTypeLike, num_dimensions: int = 1) -> np.ndarray:
    """Map an array of an index, read-only.

    Raises:
        DataError: there is no such array, or it is of another type.
    """
    try:
        mapped = np.load(folder / name, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises many kinds of errors on a damaged header.
        raise damaged(folder, f"{name} cannot be read ({error})") from error
    if mapped.dtype != dtype or mapped.ndim != num_dimensions:
        raise damaged(folder, f"{name} has type {mapped.dtype} and shape {mapped.shape}")
    # A plain array over the same memory: indexing a memmap costs microseconds more each time.
    return np.asarray(mapped)


def _write_manifest(folder: Path, description: Description) -> None:
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "engine": description.engine,
        "corpus": description.corpus,
        "num_passages": description.num_passages,
        "files": {path.relative_to(folder).as_posix(): _measure(path) for path in _data_files(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise damaged(folder, f"{MANIFEST} has more than {_MAX_MANIFEST_BYTES} bytes")
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"Expected an index in {folder}, found no {MANIFEST} there.") from None
    except OSError as error:
        raise DataError(f"The index in {folder} cannot be read: {error}.") from error
    except (ValueError, RecursionError):
        raise damaged(folder, f"{MANIFEST} is not JSON") from None
    if not isinstance(manifest, dict):
        raise damaged(folder, f"{MANIFEST} is not a JSON object")
    return manifest


def _data_files(folder: Path) -> list[Path]:
    # Engines leave lock files, which come and go.
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def _measure(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    return {"bytes": size, "sha256": file_sha256(path) if size <= _CHECKSUM_BYTES else None}


def _check_file(folder: Path, name: str, expected: object) -> None:
    if not isinstance(expected, Mapping):
        raise damaged(folder, f"{MANIFEST} is not complete")
    path = folder / name
    if not path.is_file():
        raise damaged(folder, f"{name} is missing")
    if path.stat().st_size != expected.get("bytes"):
        raise damaged(folder, f"{name} has {path.stat().st_size} bytes, {expected.get('bytes')!r:.80} were written")
    if expected.get("sha256") is not None and file_sha256(path) != expected.get("sha256"):
        raise damaged(folder, f"the content of {name} has changed")
