"""Where queries and papers come from: the generator, official files, an embedded corpus, or a server.

ProceduralQueries("train").load("train/00017")
QueryFile("~/pasa", "validation").load("AutoScholarQuery_dev_3")
open_source("corpus.jsonl", "~/pasa"), open_source("http://127.0.0.1:4000/graph/v1", "~/pasa")
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from steppo_gym.envs.paper_search.built_in.generate import SPLIT_SIZES, builtin_corpus, generate_query, task_ids
from steppo_gym.envs.paper_search.corpus.corpus import PaperCorpus, open_corpus
from steppo_gym.envs.paper_search.files import find_file, read_queries
from steppo_gym.envs.paper_search.papers import PaperSource, Query, published_by
from steppo_gym.envs.paper_search.semantic_scholar.client import SemanticScholar
from steppo_gym.errors import DataError, UnknownTaskError
from steppo_gym.keywords import check_split, path_of, unknown_task_message
from steppo_gym.storage.file_stamps import FileStamp, file_stamps


class ProceduralQueries:
    """The generator's queries.

    Args:
        split: a key of `SPLIT_SIZES`.

    Raises:
        UnknownTaskError: an unknown split.
    """

    def __init__(self, split: str) -> None:
        check_split(split, SPLIT_SIZES)
        self.split = split
        self.task_ids: Sequence[str] = task_ids(split)
        self._indices = {task_id: index for index, task_id in enumerate(self.task_ids)}

    def has(self, task_id: str) -> bool:
        """Whether there is a query of this id."""
        return task_id in self._indices

    def load(self, task_id: str) -> Query:
        """Generate a query.

        Raises:
            UnknownTaskError: no such id.
        """
        if task_id not in self._indices:
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        return generate_query(self.split, self._indices[task_id])


class QueryFile:
    """Queries of an official file. Ids are the file's own, or its name and the row where it has none.

    Args:
        data: a file, or the folder that holds the official files (see `find_file`).
        split: which of the files of a folder; a single file is what it is, but a test set is for "test" alone.

    Raises:
        DataError: there is no such file, it is damaged, or it is a test set and asked for as another split.
        UnknownTaskError: an unknown split.
    """

    def __init__(self, data: str | Path, split: str) -> None:
        check_split(split, SPLIT_SIZES)
        self._made_with = (path_of(data), split)
        self.split = split
        self.stamps = file_stamps([find_file(data, split)])
        """Of the file."""
        self._queries = _read_file(*self.stamps, split)
        self.task_ids: Sequence[str] = tuple(self._queries)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and another process, opens the same file."""
        return QueryFile, self._made_with

    def has(self, task_id: str) -> bool:
        """Whether there is a query of this id."""
        return task_id in self._queries

    def load(self, task_id: str) -> Query:
        """Look up a query.

        Raises:
            UnknownTaskError: no such id.
        """
        if task_id not in self._queries:
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        return self._queries[task_id]


def open_source(papers: str | Path | None, data: str | Path | None) -> PaperSource:
    """Where papers come from.

    Args:
        papers: None for the built-in corpus; the folder or file of an embedded corpus, see `open_corpus`; or the
            address of a server in Semantic Scholar's shape, see `SemanticScholar`.
        data: where the queries come from, None for the built-in ones; those and the built-in corpus go together.

    Raises:
        DataError: no corpus there, or none was given with queries from files.
        ValueError: a corpus for the built-in queries, which have no answers in it.
    """
    if data is None and papers is not None:
        raise ValueError(
            f"The built-in queries are about the built-in papers, got papers={str(papers)!r} without data. Pass the "
            "file of queries that belongs to these papers as data=."
        )
    if papers is None:
        if data is not None:
            raise DataError(
                "Queries from files need papers to be searched, found papers=None. Pass the file or folder of a corpus "
                "or the address of a Semantic Scholar server as papers=."
            )
        return builtin_corpus()
    if str(papers).startswith(("http://", "https://")):
        return SemanticScholar(str(papers))
    return open_corpus(papers)


def check_answers(queries: QueryFile, papers: PaperSource) -> None:
    """See that an embedded corpus can answer the queries; a server is not asked.

    Where most queries have no answer in it and in time, a line on stderr says how many, once in a process.

    Raises:
        DataError: none has, so that no search could be paid.
    """
    if isinstance(papers, PaperCorpus):
        _check_answers(*queries.stamps, queries.split, papers.folder, papers.content)


@lru_cache(maxsize=4)
def _check_answers(stamp: FileStamp, split: str, folder: Path, content: str) -> None:
    """Once for all environments of a process; what is refused is looked at each time."""
    del content
    queries, papers = _read_file(stamp, split), open_corpus(folder)
    num_answered, late = 0, None
    for query in queries.values():
        held = list(filter(None, map(papers.paper, query.answers)))
        if any(published_by(paper.date, query.until) for paper in held):
            num_answered += 1
            if 2 * num_answered >= len(queries):
                return
        elif held:
            late = query, held[-1]
    if num_answered:
        print(
            f"{len(queries) - num_answered} of the {len(queries)} queries in {stamp[0]} have no answer among the "
            "papers that is published in time.",
            file=sys.stderr,
        )
        return
    if late is None:
        query, found = next(iter(queries.values())), "none"
        answer = query.answers[0]
    else:
        query, paper = late
        answer, found = paper.paper_id, f"one of {paper.date}" if paper.date else "one without a date"
    raise DataError(
        f"Expected papers that answer the queries, such as {answer!r} published by {query.until}, found {found} and no "
        f"other answer among papers such as {papers.paper_ids()[0]!r}. Ids must be of one kind, and papers have dates."
    )


@lru_cache(maxsize=4)
def _read_file(stamp: FileStamp, split: str) -> Mapping[str, Query]:
    """One copy for all environments of a process; a file that has changed is read again."""
    return read_queries(stamp[0], split)
