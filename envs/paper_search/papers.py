"""A paper, a query, and the one protocol behind which papers are found.

>>> [arxiv_id_without_version(text) for text in ("2401.01234v2", "cs/0112017v1", "conv/1")]
['2401.01234', 'cs/0112017', 'conv/1']
"""

from __future__ import annotations

import calendar
import dataclasses
import re
from typing import Protocol

_VERSIONED = re.compile(r"(?P<id>\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})v\d+")


@dataclasses.dataclass(frozen=True, slots=True)
class Paper:
    """What is known of a paper.

    Attributes:
        paper_id: by which the agent and the scores name it: the arXiv id without version where there is one, else the
            source's own id.
        title: on one line.
        abstract: "" where the source has none.
        date: "YYYY-MM-DD", "YYYY-MM", "YYYY" or "" where it is unknown.
        authors: names.
        num_citations: as the source counts them, which may be more than the citing papers it holds.
    """

    paper_id: str
    title: str
    abstract: str = ""
    date: str = ""
    authors: tuple[str, ...] = ()
    num_citations: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Query:
    """A research question with its answers.

    Attributes:
        query_id: unique in its file.
        text: the question.
        answers: ids of the papers asked for, without versions, in the file's order.
        until: "YYYY-MM-DD", the last day of publication that may be returned; "" sets no limit.
        kind: of the question, for metrics by kind; "" where there are no kinds.
    """

    query_id: str
    text: str
    answers: tuple[str, ...]
    until: str = ""
    kind: str = ""


class PaperSource(Protocol):
    """Where papers come from: an embedded corpus or a server.

    Every method returns papers with a title, in a fixed order, without a paper that may be later than `until` (see
    `published_by`). An unknown id has no paper, no citations and no references. What cannot be reached raises
    `InfrastructureError`.
    """

    def search(self, query: str, *, limit: int, until: str = "") -> list[Paper]:
        """The papers that match a text best, best first; `query` may be any text."""
        ...

    def paper(self, paper_id: str) -> Paper | None:
        """One paper, None if it is unknown."""
        ...

    def citations(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """Papers that cite this one."""
        ...

    def references(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """Papers that this one cites."""
        ...

    def close(self) -> None:
        """Release files and connections."""
        ...


def published_by(date: str, until: str) -> bool:
    """Whether a paper was certainly published by a day.

    A month or year that may mean a later day is too late, and so is an unknown date: nothing may leak from after the
    query was written.

    Args:
        date: "YYYY-MM-DD", "YYYY-MM", "YYYY" or "".
        until: "YYYY-MM-DD", or "" for no limit.
    """
    if not until:
        return True
    return bool(date) and latest_day(date) <= until


def latest_day(date: str) -> str:
    """The last day that a date may mean: "2020-02" may be "2020-02-29".

    Args:
        date: "YYYY-MM-DD", "YYYY-MM" or "YYYY".
    """
    match date.split("-"):
        case [year]:
            return f"{year}-12-31"
        case [year, month]:
            return f"{date}-{calendar.monthrange(int(year), int(month))[1]}"
        case _:
            return date


def arxiv_id_without_version(paper_id: str) -> str:
    """An arXiv id without its version; any other text unchanged, also one with a "v" in it."""
    match = _VERSIONED.fullmatch(paper_id)
    return match["id"] if match else paper_id
