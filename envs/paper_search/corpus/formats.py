"""Files of papers, one record at a time, in either of two formats.

| format | a row has | citations |
|---|---|---|
| our own | paper_id, title; abstract, date, authors, references, num_citations | real unless told otherwise |
| Semantic Scholar | paperId; what the API has, also citations and references in it | real |

A file holds JSON lines, a JSON list, or one JSON object; a Semantic Scholar answer with a "data" list counts as a list.
Names that end in ".gz" are decompressed. Semantic Scholar's records without an id or a title are left out: nobody could
ask for them. The scripts in `converters/` write other formats as our own.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

from steppo_gym.envs.paper_search.corpus.build import Citation, last_day
from steppo_gym.envs.paper_search.paper_ids import canonical_id
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.envs.paper_search.semantic_scholar.records import (
    Record,
    arxiv_month,
    one_line,
    paper_of,
)
from steppo_gym.errors import DataError
from steppo_gym.storage.data_lines import json_value, numbered_lines, whole_value

Format = Literal["own", "semantic_scholar"]

DESCRIPTIONS: dict[Format, str] = {
    "own": "papers with references",
    "semantic_scholar": "Semantic Scholar records with the citations in them",
}
"""What each format is called where a corpus says what it was made of."""

_MOST_CITATIONS = 2**62


def format_of(path: Path) -> Format:
    """The format of a file, by its first row.

    Raises:
        DataError: nothing is there, or neither format.
    """
    for place, row in json_rows(path):
        return _kind(row, place)
    raise DataError(f"Expected papers in {path}, found nothing.")


def read_records(path: Path) -> Iterator[Paper | Citation]:
    """The papers and citations of a file, in its order; a paper may come several times.

    Raises:
        DataError: it is missing, damaged, or in neither format.
    """
    kind = format_of(path)
    for place, row in json_rows(path):
        if _kind(row, place) != kind:
            raise DataError(f"Expected rows of one format, found {_kind(row, place)} after {kind} in {place}.")
        yield from _own(row, place) if kind == "own" else _semantic_scholar(row)


def _kind(row: object, place: str) -> Format:
    match row:
        case {"paper_id": str(), "title": str()}:
            return "own"
        case {"paperId": _} | {"citingPaper": _} | {"citedPaper": _}:
            return "semantic_scholar"
        case _:
            raise DataError(
                f"Expected a paper with paper_id and title, or one of Semantic Scholar (paperId), in {place}, found "
                f"{row!r:.80}. Files of PaSa, unarXive and the SPAR bench become such with the scripts in converters/."
            )


def _own(row: Mapping[str, Any], place: str) -> Iterator[Paper | Citation]:
    paper_id, title = canonical_id(row["paper_id"]), one_line(row["title"])
    if not paper_id or not title:
        raise DataError(f"Expected an id and a title that are not empty in {place}, found {row!r:.80}.")
    abstract, count = row.get("abstract") or "", row.get("num_citations") or 0
    date = row.get("date") or arxiv_month(paper_id)
    authors, references = row.get("authors") or [], row.get("references") or []
    is_count = type(count) is int and 0 <= count < _MOST_CITATIONS
    if not isinstance(abstract, str) or not _is_date(date) or not is_count:
        raise DataError(
            f'Expected abstract as text, date as "YYYY-MM-DD", "YYYY-MM" or "YYYY", num_citations as a whole number '
            f"from 0 in {place}, found {abstract!r:.40}, {date!r:.40}, {count!r:.40}."
        )
    for name, texts in {"authors": authors, "references": references}.items():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise DataError(f"Expected {name} as a list of texts in {place}, found {texts!r:.80}.")
    yield Paper(paper_id, title, abstract, date, tuple(authors), count)
    yield from (Citation(paper_id, canonical_id(cited)) for cited in references)


def _semantic_scholar(row: Record) -> Iterator[Paper | Citation]:
    inner = row.get("citingPaper") or row.get("citedPaper")
    row = inner if isinstance(inner, Mapping) else row
    paper = paper_of(row)
    if paper:
        yield paper
    for name, key in (("citations", "citingPaper"), ("references", "citedPaper")):
        entries = row.get(name)
        for entry in entries if isinstance(entries, list) else ():
            other = paper_of(entry.get(key, entry) if isinstance(entry, Mapping) else None)
            if other:
                yield other
            if paper and other:
                ids = (other.paper_id, paper.paper_id)
                yield Citation(*(ids if name == "citations" else reversed(ids)))


def _is_date(date: object) -> bool:
    try:
        return isinstance(date, str) and bool(last_day(date))
    except ValueError:
        return False


def json_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Place and value of every row of a file: its lines, or what is in its list. Nulls are none.

    Raises:
        DataError: the file is missing or damaged.
    """
    number = 0
    for value in _values(path):
        for row in _elements(value):
            number += 1
            if row is not None:
                yield f"row {number} of {path}", row


def _values(path: Path) -> Iterator[object]:
    if path.is_dir():
        raise DataError(f"Expected a file of papers or the folder of a corpus, found another folder in {path}.")
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield from _values_in(numbered_lines(cast(BinaryIO, file), path), path)
    except FileNotFoundError:
        raise DataError(
            f"Expected papers in {path}, found no such file. The address of a server begins with http:// or https://."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The papers in {path} cannot be read: {error}.") from error


def _values_in(lines: Iterator[tuple[int, bytes]], path: Path) -> Iterator[object]:
    number, first = next(lines, (0, b""))
    if not first:
        return
    try:
        value = json.loads(first)
    except RecursionError:
        raise DataError(f"Line {number} of {path} is nested too deep to be read. Is it the right file?") from None
    except ValueError:
        # The first line is no value: the whole file is one.
        yield whole_value(first, lines, path)
        return
    yield value
    for number, line in lines:
        yield json_value(line, number, path)


def _elements(value: object) -> list[object]:
    match value:
        case list(rows) | {"data": list(rows)}:
            return rows
        case {"data": None}:
            return []
        case _:
            return [value]
