"""Papers and their citations on this machine: built once, then shared by all environments and processes.

    records = [*papers, Citation("2201.00001", "1706.03762")]
    folder = build_corpus(records, corpus_folder("my field, seed 0"), edges="generated", source="a made field")
    corpus = open_corpus(folder)
    corpus.search("attention", limit=10, until="2021-12-31")
    corpus.citations("1706.03762", limit=30)

A corpus is a folder with a SQLite file, which has the papers and both directions of the citations, and a text index
over titles and abstracts (see `steppo_gym.retrieval`). Nothing in it changes after it is built. Every corpus says
whether its citations are real.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import weakref
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from steppo_gym.envs.paper_search.corpus.build import ENGINES, FILE_NAME, CorpusInfo
from steppo_gym.envs.paper_search.papers import Paper, arxiv_id_without_version
from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of
from steppo_gym.retrieval.bm25 import BM25Retriever
from steppo_gym.retrieval.index_folder import MANIFEST, check_folder, damaged
from steppo_gym.retrieval.retriever import Retriever, check_k
from steppo_gym.storage.sqlite import Connections, read_only

_COLUMNS = "paper_id, title, abstract, date, authors, num_citations"
_GROWTH = 4
"""How many times more hits are asked for where too few of the first were published in time."""

_OPEN: weakref.WeakValueDictionary[Path, PaperCorpus] = weakref.WeakValueDictionary()
_LOCK = threading.Lock()


def open_corpus(path: str | Path) -> PaperCorpus:
    """A corpus, open once within a process.

    Args:
        path: the folder that `build_corpus` or `steppo-gym index-papers` made, which is used as it is; or a file of
            papers, of which the corpus is built and cached (see
            `steppo_gym.envs.paper_search.corpus.formats`).

    Raises:
        DataError: there is no corpus and no file of papers, or a damaged one.
    """
    folder = path_of(path)
    if not (folder / MANIFEST).is_file():
        from steppo_gym.envs.paper_search.corpus.indexing import index_papers

        folder = index_papers([folder])
    folder = folder.resolve()
    with _LOCK:
        corpus = _OPEN.get(folder)
        if corpus is None:
            _OPEN[folder] = corpus = PaperCorpus(folder)
        return corpus


class PaperCorpus:
    """A `PaperSource` over the files of a corpus. Safe to use from several threads, and after a fork.

    Citations and references come newest first, those of one date by id and those of unknown date last. A search that
    finds equally good papers has them by id. Ids may carry an arXiv version, which is ignored.

    Attributes:
        folder: where it lies.
        info: what it was made of, and whether its citations are real.
        content: SHA-256 of all that is in it, in hex.

    Raises:
        DataError: there is no corpus in the folder, or a damaged one.
    """

    def __init__(self, folder: Path) -> None:
        description = check_folder(folder)
        self.folder, self.content = folder, description.corpus
        self._retriever = _open_index(folder, description.engine)
        self._connections = Connections(partial(read_only, folder / FILE_NAME))
        try:
            ((text,),) = self._execute("SELECT json FROM info")
            self.info = CorpusInfo(**json.loads(text))
            ((self._num_dated,),) = self._execute("SELECT count(*) FROM papers WHERE date != ''")
        except (ValueError, TypeError) as error:
            raise damaged(folder, f"{FILE_NAME} does not describe itself ({error})") from error

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same folder."""
        return open_corpus, (self.folder,)

    def __len__(self) -> int:
        return self.info.num_papers

    def search(self, query: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`: BM25 over title and abstract."""
        check_k(limit)
        wanted = self._published_by(until)
        if not wanted:
            return []
        # As many more as there are papers that will not do, so that one search is mostly enough.
        asked = limit if not until else 2 * limit * len(self) // len(wanted)
        while True:
            asked = min(max(asked, limit), len(self))
            (hits,) = self._retriever.search([query], asked)
            numbers = [number for hit in hits if (number := int(hit.passage.id)) in wanted]
            if len(numbers) >= limit or len(hits) < asked or asked == len(self):
                return [self._paper(number) for number in numbers[:limit]]
            asked *= _GROWTH

    def paper(self, paper_id: str) -> Paper | None:
        """See `PaperSource`."""
        number = self._number(paper_id)
        return None if number is None else self._paper(number)

    def citations(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        return self._neighbours(
            "SELECT citing FROM citations WHERE cited = ? AND citing >= ? AND citing < ? ORDER BY citing LIMIT ?",
            paper_id,
            limit,
            until,
        )

    def references(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        return self._neighbours(
            "SELECT cited FROM paper_references WHERE citing = ? AND cited >= ? AND cited < ? ORDER BY cited LIMIT ?",
            paper_id,
            limit,
            until,
        )

    def num_references(self, paper_id: str) -> int:
        """How many papers of the corpus a paper cites."""
        number = self._number(paper_id)
        ((count,),) = self._execute("SELECT count(*) FROM paper_references WHERE citing = ?", (number,))
        return count

    def paper_ids(self) -> list[str]:
        """Ids of all papers, sorted."""
        return [paper_id for (paper_id,) in self._execute("SELECT paper_id FROM papers ORDER BY paper_id")]

    def close(self) -> None:
        """Does nothing: the corpus is shared, and is released with the last one who uses it."""

    def _neighbours(self, statement: str, paper_id: str, limit: int, until: str) -> list[Paper]:
        check_k(limit)
        number, wanted = self._number(paper_id), self._published_by(until)
        if number is None:
            return []
        # SQLite takes no numbers of NumPy, and none of any size.
        rows = self._execute(statement, (number, wanted.start, wanted.stop, min(int(limit), len(self))))
        return [self._paper(neighbour) for (neighbour,) in rows]

    def _published_by(self, until: str) -> range:
        """Numbers of the papers that were certainly published by a day: they are numbered by date."""
        if not until:
            return range(len(self))
        statement = (
            "SELECT min(number) FROM papers WHERE last_day = (SELECT max(last_day) FROM papers WHERE last_day <= ?)"
        )
        ((newest,),) = self._execute(statement, (until,))
        return range(0) if newest is None else range(newest, self._num_dated)

    def _number(self, paper_id: str) -> int | None:
        statement = "SELECT number FROM papers WHERE paper_id = ?"
        try:
            rows = self._execute(statement, (paper_id,)) or self._execute(
                statement, (arxiv_id_without_version(paper_id),)
            )
        except UnicodeEncodeError:
            # Half of a surrogate pair, which no id has.
            return None
        return rows[0][0] if rows else None

    def _paper(self, number: int) -> Paper:
        rows = self._execute(f"SELECT {_COLUMNS} FROM papers WHERE number = ?", (number,))
        if not rows:
            raise damaged(self.folder, f"{FILE_NAME} has no paper number {number}")
        paper_id, title, abstract, date, authors, num_citations = rows[0]
        return Paper(paper_id, title, abstract, date, tuple(json.loads(authors)), num_citations)

    def _execute(self, statement: str, parameters: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._connections.execute(statement, tuple(parameters)).fetchall()
        except sqlite3.DatabaseError as error:
            raise damaged(self.folder, f"{FILE_NAME} cannot be read ({error})") from error


def _open_index(folder: Path, engine: str) -> Retriever:
    if engine == ENGINES["bm25"]:
        return BM25Retriever(folder)
    if engine == ENGINES["tantivy"]:
        from steppo_gym.retrieval.tantivy_index import TantivyRetriever

        return TantivyRetriever(folder)
    raise DataError(f"Expected a corpus of papers in {folder}, found an index of {engine!r:.80}.")
