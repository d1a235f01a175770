"""Records of the Semantic Scholar Graph API: pages of them, and the papers they describe.

Nothing but nulls is lost when a page is read: its records stay the JSON objects they were, and `Page.message` gives the
answer back. `paper_of` takes from a record what a `Paper` has.

    {"total": 70499, "offset": 0, "next": 100, "data": [{"paperId": "7cbc2a78...", "title": "Using ..."}, ...]}
    {"offset": 50, "data": [{"citedPaper": {"paperId": null, "title": "Does Gender Matter ..."}}]}
    {"total": 0, "offset": 0}                     (no hit: there is no "data")
    {"data": null, "citingPaperInfo": {...}}      (a list that the publisher withholds)

See https://api.semanticscholar.org/api-docs/graph.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steppo_gym.envs.paper_search.papers import Paper, arxiv_id_without_version
from steppo_gym.quoting import valid_text

Record = Mapping[str, Any]

FIELDS = ("externalIds", "title", "abstract", "year", "publicationDate", "authors", "citationCount")
"""What `paper_of` needs; `paperId` always comes."""

SEARCH_PAGE, SEARCH_DEPTH = 100, 1000
"""The server gives at most so many papers at a time, and of the papers that fit one query."""
LIST_PAGE, LIST_DEPTH = 1000, 9999
"""The same for citations and references."""
BATCH = 500
"""Papers in one batch request."""

_DATE = re.compile(r"(?!0000)\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])", re.ASCII)
_ARXIV_MONTH = re.compile(
    r"(?:[a-z-]+(?:\.[A-Z]{2})?/(?=\d{7}$)|(?=\d{4}\.\d{4,5}$))(?P<year>\d\d)(?P<month>0[1-9]|1[0-2])[\d.]+",
    re.ASCII,
)
_FIRST_ARXIV_YEAR = 91
_MOST_CITATIONS = 2**62


@dataclass(frozen=True)
class Page:
    """One answer with a list.

    Attributes:
        records: papers, or what joins two of them: {"citingPaper": ...} or {"citedPaper": ...} with more keys.
        offset: of the first record in the whole list; None if the answer has none.
        next: offset of the next page; None on the last one.
        total: length of the whole list as the server estimates it; citations and references have none.
    """

    records: tuple[Record, ...]
    offset: int | None = None
    next: int | None = None
    total: int | None = None

    def message(self) -> dict[str, Any]:
        """The answer as it is sent."""
        positions = {"total": self.total, "offset": self.offset, "next": self.next}
        message: dict[str, Any] = {name: value for name, value in positions.items() if value is not None}
        return message if self.total == 0 else message | {"data": list(self.records)}


def read_page(message: object) -> Page:
    """Read an answer with a list.

    Raises:
        ValueError: it is not one.
    """
    if not isinstance(message, dict):
        raise ValueError("Expected a JSON object.")
    if "data" not in message and message.get("total") != 0:
        raise ValueError('Expected a list in "data", found none.')
    records = [] if message.get("data") is None else message["data"]
    if not isinstance(records, list) or not all(isinstance(record, dict | None) for record in records):
        raise ValueError('Expected a list of objects in "data".')
    positions = {name: message.get(name) for name in ("offset", "next", "total")}
    if not all(value is None or (type(value) is int and value >= 0) for value in positions.values()):
        raise ValueError(f"Expected numbers from 0, got {positions!r:.200}.")
    return Page(tuple(record for record in records if record is not None), **positions)


def paper_of(record: object) -> Paper | None:
    """The paper that a record describes; None for one without an id or a title, which nothing can be done with."""
    if not isinstance(record, Mapping):
        return None
    arxiv_id = _arxiv_id(record)
    paper_id = arxiv_id or record.get("paperId")
    title = one_line(record.get("title"))
    if not isinstance(paper_id, str) or not paper_id or not title:
        return None
    paper_id = valid_text(paper_id)
    abstract, authors, count = record.get("abstract"), record.get("authors"), record.get("citationCount")
    return Paper(
        paper_id,
        title,
        valid_text(abstract) if isinstance(abstract, str) else "",
        best_date(record.get("publicationDate"), arxiv_id, record.get("year")),
        author_names(authors),
        count if type(count) is int and 0 <= count < _MOST_CITATIONS else 0,
    )


def best_date(day: object, arxiv_id: str, year: object) -> str:
    """The most that is known of a date: the day; else the month that an arXiv id says; else the year; else ""."""
    if isinstance(day, str) and _DATE.fullmatch(day):
        return day
    if month := arxiv_month(arxiv_id):
        return month
    text = str(year)
    return text if text.isascii() and text.isdecimal() and len(text) == 4 and text != "0000" else ""


def arxiv_month(paper_id: str) -> str:
    """The month in which a paper was first sent to arXiv, as its id says it; "" for other ids.

    >>> arxiv_month("1706.03762"), arxiv_month("cs/0112017"), arxiv_month("hep-th/9407001"), arxiv_month("P1706")
    ('2017-06', '2001-12', '1994-07', '')
    """
    match = _ARXIV_MONTH.fullmatch(paper_id)
    if not match:
        return ""
    century = 1900 if "/" in paper_id and int(match["year"]) >= _FIRST_ARXIV_YEAR else 2000
    return f"{century + int(match['year'])}-{match['month']}"


def one_line(text: object) -> str:
    """A title on one line, "" for what is no text."""
    return " ".join(valid_text(text).split()) if isinstance(text, str) else ""


def author_names(authors: object) -> tuple[str, ...]:
    """Names of authors that are given as {"name": ...} or as names."""
    if not isinstance(authors, list):
        return ()
    names = (author.get("name") if isinstance(author, Mapping) else author for author in authors)
    return tuple(filter(None, map(one_line, names)))


def _arxiv_id(record: Record) -> str:
    ids = record.get("externalIds")
    found = ids.get("ArXiv") if isinstance(ids, Mapping) else None
    return arxiv_id_without_version(found) if isinstance(found, str) else ""
