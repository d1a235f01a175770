"""Questions about the built-in field of research.

    generate_query("train", 17)
    # Query(text="Which papers from 2014 to 2019 use gated encoders for text summarisation, or the methods ...?", ...)

A question is about one line of work and names it by one method. The answers of later phases have other names for method
and problem, so no search with the question's words finds them: they cite what such a search finds, their titles have
the words to search for next, and so on. Every line belongs to one split.
"""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from steppo_gym.envs.paper_search.built_in.field import FIELD_VERSION, Line, builtin_field
from steppo_gym.envs.paper_search.corpus.build import Citation, build_corpus, corpus_folder
from steppo_gym.envs.paper_search.corpus.corpus import PaperCorpus, open_corpus
from steppo_gym.envs.paper_search.papers import Paper, Query
from steppo_gym.keywords import check_split

SPLIT_SIZES = {"train": 3000, "validation": 240, "test": 240}

KINDS = ("method", "years", "data_set", "builds_on")
"""What a question constrains: problem and method; these and the years; these and the data set; or the paper to build
on. A split runs through them in turn."""

_SPLIT_OF = ("validation", "test", *("train",) * 8)
"""Splits of the lines, in turn."""
_FEWEST_ANSWERS = 3
_LONG = 3
"""Phases of the long lines, a half of all."""
_LATER_START = 0.25
_EARLIER_END = 0.25
"""Shares of the questions about long lines that leave out the first phase, or the last by their date."""
_LONGEST_DELAY = 365
"""Days that a question may come after its last answer."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """The phases that a question is about.

    Attributes:
        papers: oldest first.
        data_sets: on which each of them is evaluated, "" for none.
        num_first: how many of the papers are of the first phase.
        method: of the first phase.
        topic: the problem as it was called then.
    """

    papers: tuple[Paper, ...]
    data_sets: tuple[str, ...]
    num_first: int
    method: str
    topic: str


def task_ids(split: str) -> tuple[str, ...]:
    """Ids of a split's questions, `<split>/<number>`; the first ones are a fair sample."""
    check_split(split, SPLIT_SIZES)
    return tuple(f"{split}/{index:05d}" for index in range(SPLIT_SIZES[split]))


def generate_query(split: str, index: int) -> Query:
    """One question.

    Args:
        split: a key of `SPLIT_SIZES`.
        index: below `SPLIT_SIZES[split]`.
    """
    lines = _lines(split)
    rng = np.random.default_rng([tuple(SPLIT_SIZES).index(split), index])
    kind = KINDS[index % len(KINDS)]
    line = lines[index // len(KINDS) % len(lines)]
    while True:
        asked, until = _asked(rng, line)
        text, answers = _QUESTIONS[kind](rng, asked)
        if len(answers) >= _FEWEST_ANSWERS:
            ids = tuple(paper.paper_id for paper in answers)
            return Query(f"{split}/{index:05d}", text, ids, until=until, kind=kind)


def builtin_corpus() -> PaperCorpus:
    """The papers of the built-in field: the index is built at the first use and then opened from the cache."""
    folder = corpus_folder(f"built-in field of research, version {FIELD_VERSION}")
    build_corpus(_records(), folder, edges="generated", source="procedural field of research", progress=False)
    return open_corpus(folder)


def _records() -> Iterator[Paper | Citation]:
    """Made only if the corpus has to be built."""
    field = builtin_field()
    yield from field.papers
    yield from itertools.starmap(Citation, field.citations)


@lru_cache(maxsize=len(SPLIT_SIZES))
def _lines(split: str) -> list[Line]:
    return [line for number, line in enumerate(builtin_field().lines) if _SPLIT_OF[number % len(_SPLIT_OF)] == split]


@lru_cache(maxsize=1)
def _papers() -> dict[str, Paper]:
    return {paper.paper_id: paper for paper in builtin_field().papers}


def _asked(rng: np.random.Generator, line: Line) -> tuple[_Asked, str]:
    """Draw which phases of a line a question is about, and its date."""
    start, stop = 0, len(line.phases)
    if len(line.phases) == _LONG:
        chance = rng.random()
        if chance < _LATER_START:
            start = 1
        elif chance < _LATER_START + _EARLIER_END:
            stop = _LONG - 1
    phases = line.phases[start:stop]
    papers = _papers()
    first = phases[0]
    asked = _Asked(
        papers=tuple(papers[paper_id] for phase in phases for paper_id in phase.papers),
        data_sets=tuple(data_set for phase in phases for data_set in phase.data_sets),
        num_first=len(first.papers),
        method=first.method,
        topic=first.topic,
    )
    last = datetime.date.fromisoformat(asked.papers[-1].date)
    until = last + datetime.timedelta(days=int(rng.integers(_LONGEST_DELAY)))
    if stop < len(line.phases):
        following = datetime.date.fromisoformat(papers[line.phases[stop].papers[0]].date)
        until = min(until, following - datetime.timedelta(days=1))
    return asked, until.isoformat()


def _ask_method(rng: np.random.Generator, asked: _Asked) -> tuple[str, Sequence[Paper]]:
    del rng
    return f"Which papers use {asked.method} for {asked.topic}, or the methods that replaced them?", asked.papers


def _ask_years(rng: np.random.Generator, asked: _Asked) -> tuple[str, Sequence[Paper]]:
    """From a year up to which the second phase began, so that its first paper, which leads to the others, counts."""
    years = [int(paper.date[:4]) for paper in asked.papers]
    first = int(rng.integers(years[0], years[asked.num_first] + 1))
    last = int(rng.choice([year for year in years[asked.num_first :] if year >= first]))
    answers = [paper for paper, year in zip(asked.papers, years, strict=True) if first <= year <= last]
    text = (
        f"Which papers from {first} to {last} use {asked.method} for {asked.topic}, or the methods that replaced them?"
    )
    return text, answers


def _ask_data_set(rng: np.random.Generator, asked: _Asked) -> tuple[str, Sequence[Paper]]:
    """The data set of the paper with which the second phase began, which all first papers of phases share."""
    del rng
    data_set = asked.data_sets[asked.num_first]
    answers = [paper for paper, other in zip(asked.papers, asked.data_sets, strict=True) if other == data_set]
    text = (
        f"Which papers evaluated on {data_set} use {asked.method} for {asked.topic}, or the methods that replaced them?"
    )
    return text, answers


def _ask_builds_on(rng: np.random.Generator, asked: _Asked) -> tuple[str, Sequence[Paper]]:
    number = int(rng.integers(asked.num_first))
    return f"Which later papers carry on the work of '{asked.papers[number].title}'?", asked.papers[number + 1 :]


_QUESTIONS: dict[str, Callable[[np.random.Generator, _Asked], tuple[str, Sequence[Paper]]]] = {
    "method": _ask_method,
    "years": _ask_years,
    "data_set": _ask_data_set,
    "builds_on": _ask_builds_on,
}
