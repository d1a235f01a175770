"""A made field of research: papers on two dozen problems, the methods of three eras, and who cites whom.

    field = generate_field(6000)
    field.papers[0], field.citations[0], field.lines[0].phases[1].name

Most papers belong to a *line* of work: one problem, treated with one method after the other. When a line takes up a new
method, in the next era, the problem goes by a new name too, so the papers of two phases have no telling word in common.
What joins them are citations: the first paper of a phase cites all papers of the phase before. The other papers of a
phase share its words and do not cite each other. Around the lines are single papers, which look like theirs, papers
that found a family of methods or present a data set, and surveys.

Ids are in arXiv form: year and month of the first version and a number within the month.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from steppo_gym.envs.paper_search.built_in.citing import draw_citations
from steppo_gym.envs.paper_search.built_in.drafts import Draft, LineDraft, draw_drafts
from steppo_gym.envs.paper_search.built_in.wording import abstract_of, title_of
from steppo_gym.envs.paper_search.built_in.words import GIVEN_NAMES, SURNAMES
from steppo_gym.envs.paper_search.papers import Paper

FIELD_VERSION = 1
"""To be raised with every change of what `generate_field` makes, since corpora of it are cached."""
NUM_PAPERS = 6000
"""Of the built-in corpus."""
MIN_PAPERS, MAX_PAPERS = 500, 100_000

_FOUR_DIGITS_UNTIL = 2014
"""Up to this year arXiv numbered the papers of a month with four digits, later with five."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The papers of a line that use one method.

    Attributes:
        method: its name.
        topic: what the problem is called.
        papers: ids, oldest first; the first one cites all of the phase before.
        data_sets: on which each of them is evaluated, "" for none.
    """

    method: str
    topic: str
    papers: tuple[str, ...]
    data_sets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A problem and the methods it was treated with: two or three phases, oldest first."""

    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Field:
    """A made field of research.

    Attributes:
        papers: oldest first.
        citations: pairs of ids, the citing paper first; it is never the older one.
        lines: of work.
    """

    papers: list[Paper]
    citations: list[tuple[str, str]]
    lines: list[Line]


def generate_field(num_papers: int = NUM_PAPERS, seed: int = 0) -> Field:
    """Make a field; the same arguments give the same one in any process.

    Args:
        num_papers: from `MIN_PAPERS` to `MAX_PAPERS`.
        seed: of all draws, 0 or more.

    Raises:
        ValueError: an argument outside its range.
    """
    if not MIN_PAPERS <= num_papers <= MAX_PAPERS:
        raise ValueError(f"num_papers must be from {MIN_PAPERS} to {MAX_PAPERS}, got {num_papers}.")
    if seed < 0:
        raise ValueError(f"seed must be 0 or more, got {seed}.")
    rng = np.random.default_rng([num_papers, seed])
    drafts, lines = draw_drafts(rng, num_papers)
    ids = _ids(drafts)
    pairs = draw_citations(rng, drafts, lines)
    num_citations = np.bincount(pairs[:, 1], minlength=len(drafts)).tolist()
    authors = _authors(rng, len(drafts))
    papers = [
        Paper(
            paper_id=ids[number],
            title=title_of(draft),
            abstract=abstract_of(draft),
            date=_date(draft).isoformat(),
            authors=authors[number],
            num_citations=num_citations[number],
        )
        for number, draft in enumerate(drafts)
    ]
    citations = [(ids[citing], ids[cited]) for citing, cited in pairs.tolist()]
    return Field(papers, citations, [_line(line, drafts, ids) for line in lines])


@lru_cache(maxsize=2)
def builtin_field() -> Field:
    """The field that the built-in corpus and queries are about."""
    return generate_field()


def _date(draft: Draft) -> datetime.date:
    return datetime.date.fromordinal(draft.day)


def _ids(drafts: list[Draft]) -> list[str]:
    """Papers of a month are numbered in the order of their dates."""
    ids: list[str] = []
    month, number = "", 0
    for draft in drafts:
        date = _date(draft)
        written = f"{date.year % 100:02}{date.month:02}"
        number = number + 1 if month == written else 1
        month = written
        ids.append(f"{month}.{number:0{4 if date.year <= _FOUR_DIGITS_UNTIL else 5}}")
    return ids


def _authors(rng: np.random.Generator, num_papers: int) -> list[tuple[str, ...]]:
    """Two or three people for each paper."""
    given = rng.integers(len(GIVEN_NAMES), size=(num_papers, 3)).tolist()
    family = rng.integers(len(SURNAMES), size=(num_papers, 3)).tolist()
    counts = rng.integers(2, 4, size=num_papers).tolist()
    return [
        tuple(
            dict.fromkeys(
                f"{GIVEN_NAMES[one]} {SURNAMES[other]}" for one, other in zip(first[:n], last[:n], strict=True)
            )
        )
        for first, last, n in zip(given, family, counts, strict=True)
    ]


def _line(line: LineDraft, drafts: list[Draft], ids: list[str]) -> Line:
    return Line(
        tuple(
            Phase(
                method=drafts[numbers[0]].method,
                topic=drafts[numbers[0]].topic_words,
                papers=tuple(ids[number] for number in numbers),
                data_sets=tuple(drafts[number].data_set for number in numbers),
            )
            for numbers in line.phases
        )
    )
