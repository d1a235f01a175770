r"""Corpus files: one passage a line, as JSON, or a JSON list of passages.

Two forms are read, also mixed and also compressed with gzip (a name that ends in ".gz"):

    {"title": "Apollo 8", "text": "Apollo 8 was the first ...", "id": "17"}
    {"id": "17", "contents": "\"Apollo 8\"\nApollo 8 was the first ..."}

The second is that of Search-R1 (https://github.com/PeterGriffinJin/Search-R1). The id may be called "_id", as in BEIR's
corpora. Where there is none, the number of the passage, from 0, is its id.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of
from steppo_gym.quoting import valid_text
from steppo_gym.retrieval.records import Records, write_records
from steppo_gym.retrieval.retriever import Passage
from steppo_gym.storage.data_lines import json_value, numbered_lines, whole_value

_PASSAGES = "passages"
_CHUNK_BYTES = 2**20


def read_corpus(path: str | Path) -> Iterator[Passage]:
    """The passages of a corpus file in their order, one at a time. Empty lines are skipped.

    Raises:
        DataError: the file is not there or damaged, a line is not a passage, or an id appears twice.
    """
    path = path_of(path)
    seen: set[str] = set()
    with _opened(path) as file:
        for place, record in _records(file, path):
            passage = _passage(record, place, default_id=str(len(seen)))
            if passage.id in seen:
                raise DataError(f"Expected every id once, found {passage.id!r:.80} again in {place}.")
            seen.add(passage.id)
            yield passage


def scan_corpus(path: str | Path) -> tuple[str, int]:
    """SHA-256 of a corpus file's content, in hex, and its number of lines; the same compressed or not.

    Raises:
        DataError: the file is not there or damaged.
    """
    path = path_of(path)
    digest, num_lines = hashlib.sha256(), 0
    with _opened(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            num_lines += chunk.count(b"\n")
    return digest.hexdigest(), num_lines


def split_contents(contents: str) -> tuple[str, str]:
    """Title and text of Search-R1's `contents`: the first line without the quotes around it, and the rest."""
    title, _, text = contents.partition("\n")
    quoted = len(title) >= 2 and title[0] == title[-1] == '"'
    return title[1:-1] if quoted else title, text


def join_contents(passage: Passage) -> str:
    """Search-R1's `contents` of a passage."""
    return f'"{passage.title}"\n{passage.text}'


def hash_passages(passages: Iterable[Passage]) -> str:
    """SHA-256 of passages in memory, in hex: equal exactly when all ids, titles and texts are, and their order."""
    digest = hashlib.sha256()
    for passage in passages:
        digest.update(_encode(passage) + b"\n")
    return digest.hexdigest()


def write_passages(folder: Path, passages: Iterable[Passage]) -> int:
    """Write passages so that `Passages` finds each by its position, and return how many there were."""
    return write_records(folder, _PASSAGES, map(_encode, passages))


class Passages:
    """The passages of an index by their position in the corpus, read from a memory map."""

    def __init__(self, folder: Path) -> None:
        self._records = Records(folder, _PASSAGES)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, position: int) -> Passage:
        return Passage(*json.loads(self._records[position].decode("utf-8", "surrogatepass")))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield cast(BinaryIO, file)
    except FileNotFoundError:
        raise DataError(f"Expected a corpus of JSON lines in {path}, found no such file.") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The corpus {path} cannot be read: {error}.") from error


def _encode(passage: Passage) -> bytes:
    fields = [passage.id, passage.title, passage.text]
    # JSON files can hold half of a surrogate pair, which UTF-8 proper cannot.
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _records(file: BinaryIO, path: Path) -> Iterator[tuple[str, Any]]:
    """Place and value of every line, or of every row where the file is a list."""
    lines = numbered_lines(file, path)
    number, first = next(lines, (0, b""))
    if first.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        rows = whole_value(first, lines, path)
        yield from ((f"row {row} of {path}", record) for row, record in enumerate(rows))
    elif first:
        yield f"line {number} of {path}", json_value(first, number, path)
        for number, line in lines:
            yield f"line {number} of {path}", json_value(line, number, path)


def _passage(record: Any, place: str, default_id: str) -> Passage:
    match record:
        case {"title": str(title), "text": str(text)}:
            pass
        case {"contents": str(contents)}:
            title, text = split_contents(contents)
        case _:
            raise DataError(
                f'Expected a JSON object with the strings "title" and "text", or "contents", in {place}, '
                f"found {record!r:.80}."
            )
    identity = record.get("id", record.get("_id", default_id))
    if isinstance(identity, bool) or not isinstance(identity, str | int):
        raise DataError(f"Expected a string or an integer as id in {place}, found {identity!r:.80}.")
    return Passage(*map(valid_text, (str(identity), title, text)))
