"""Writing the folder of a paper corpus; see `steppo_gym.envs.paper_search.corpus.corpus`.

Papers are numbered from the newest to the oldest, those of one date by id, those of unknown date last. Citations are
stored as pairs of numbers: so whatever cites a paper comes in this order, and the papers published by a day are a range
of numbers. The text index has the papers in the order of their ids, which decides between equal scores.
"""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from tqdm import tqdm

from steppo_gym.envs.paper_search.papers import Paper, latest_day
from steppo_gym.errors import DataError
from steppo_gym.quoting import valid_text
from steppo_gym.retrieval.bm25 import build_bm25
from steppo_gym.retrieval.index_folder import VERSION, Description, build_folder
from steppo_gym.retrieval.opening import LARGE_CORPUS
from steppo_gym.retrieval.retriever import Passage
from steppo_gym.storage.cache import cache_dir

Edges = Literal["real", "generated", "none"]

FILE_NAME = "papers.sqlite"
ENGINES = {"bm25": "papers bm25", "tantivy": "papers tantivy"}
"""What the manifest calls a corpus, by the engine of its text index."""

_VERSION = 2
_NEVER = "~"
"""Later than every date, as text."""
_DATE = re.compile(r"(?!0000)\d{4}(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?", re.ASCII)
_SCHEMA = """
CREATE TABLE papers (number INTEGER PRIMARY KEY, paper_id TEXT NOT NULL UNIQUE, title TEXT NOT NULL,
    abstract TEXT NOT NULL, date TEXT NOT NULL, last_day TEXT NOT NULL, authors TEXT NOT NULL, num_citations INTEGER);
CREATE TABLE citations (cited INTEGER, citing INTEGER, PRIMARY KEY (cited, citing)) WITHOUT ROWID;
CREATE TABLE paper_references (citing INTEGER, cited INTEGER, PRIMARY KEY (citing, cited)) WITHOUT ROWID;
CREATE TABLE info (json TEXT NOT NULL);
ATTACH '' AS given;
CREATE TABLE given.papers (paper_id TEXT PRIMARY KEY, title TEXT, abstract TEXT, date TEXT, last_day TEXT, authors TEXT,
    num_citations INTEGER);
CREATE TABLE given.citations (citing TEXT, cited TEXT, PRIMARY KEY (citing, cited)) WITHOUT ROWID;
"""
_MEMORY = "PRAGMA main.cache_size = -200000; PRAGMA given.cache_size = -200000;"  # KiB each: both fit for most corpora.
# One paper given twice: the first record with the longest abstract.
_GIVE_PAPER = """
INSERT INTO given.papers VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (paper_id) DO UPDATE SET title = excluded.title,
    abstract = excluded.abstract, date = excluded.date, last_day = excluded.last_day, authors = excluded.authors,
    num_citations = excluded.num_citations WHERE length(excluded.abstract) > length(abstract)
"""
_GIVE_CITATION = "INSERT OR IGNORE INTO given.citations VALUES (?, ?)"
_NUMBER = f"""
INSERT INTO papers SELECT row_number() OVER (ORDER BY last_day = '{_NEVER}', last_day DESC, paper_id) - 1,
    paper_id, title, abstract, date, last_day, authors, num_citations FROM given.papers;
INSERT INTO paper_references SELECT citing.number, cited.number FROM given.citations AS pair
    JOIN papers AS citing ON citing.paper_id = pair.citing JOIN papers AS cited ON cited.paper_id = pair.cited
    ORDER BY 1, 2;
INSERT INTO citations SELECT cited, citing FROM paper_references ORDER BY 1, 2;
UPDATE papers SET num_citations =
    max(num_citations, (SELECT count(*) FROM citations WHERE citations.cited = papers.number));
CREATE INDEX papers_by_last_day ON papers (last_day);
"""


class Citation(NamedTuple):
    """One paper, by its id, cites another one."""

    citing: str
    cited: str


@dataclass(frozen=True, slots=True)
class CorpusInfo:
    """What a corpus was made of.

    Attributes:
        edges: "real" if its citations are those of the papers, "generated" if some were made up, "none" if it has none.
        source: where papers and citations come from, in words.
        num_papers: in the corpus.
        num_citations: pairs of a citing and a cited paper that are both in the corpus.
        num_outside: citations that were left out because one of the two papers is not in the corpus.
    """

    edges: Edges
    source: str
    num_papers: int
    num_citations: int
    num_outside: int


def corpus_folder(key: str) -> Path:
    """Where the cache keeps the corpus that is described by a key: everything that decides what is in it."""
    return cache_dir("papers", hashlib.sha256(f"{_VERSION}\n{VERSION}\n{key}".encode()).hexdigest()[:32])


def build_corpus(
    records: Iterable[Paper | Citation],
    folder: Path,
    *,
    edges: Edges,
    source: str,
    rebuild: bool = False,
    progress: bool = True,
) -> Path:
    """Build a corpus, if it is not there. Of several processes that call this at once, one builds, the others wait.

    Args:
        records: papers and citations in any order, not touched where nothing is built. Of papers with the same id the
            first one with the longest abstract counts. Left out are citations of a paper by itself, repeated ones, and
            those with a paper that is not in the corpus.
        folder: where the corpus will lie, for example `corpus_folder(key)`.
        edges: whether the citations are real, see `CorpusInfo`; a corpus that holds none has "none" whatever is said
            here.
        source: where they come from, in words.
        rebuild: build it again.
        progress: show progress bars, on a terminal.

    Returns:
        `folder`, for `open_corpus`.

    Raises:
        DataError: there are no papers.
        ValueError: a paper without id or title, or a date that is none.
    """
    if edges not in get_args(Edges):
        raise ValueError(f"Expected edges to be one of {', '.join(get_args(Edges))}, got {edges!r}.")

    def fill(target: Path) -> Description:
        connection = sqlite3.connect(target / FILE_NAME, isolation_level=None)
        try:
            return _fill(connection, target, records, edges, source, progress)
        finally:
            connection.close()

    build_folder(folder, fill, rebuild=rebuild)
    return folder


def last_day(date: str) -> str:
    """A text that is not above a day exactly if `published_by` says so: the last day that the date may mean.

    Raises:
        ValueError: no date that a paper may have.
    """
    if not date:
        return _NEVER
    if not _DATE.fullmatch(date):
        raise ValueError(f'Expected a date as "YYYY-MM-DD", "YYYY-MM", "YYYY" or "", got {date!r:.80}.')
    return latest_day(date)


def _fill(
    connection: sqlite3.Connection,
    folder: Path,
    records: Iterable[Paper | Citation],
    edges: Edges,
    source: str,
    progress: bool,
) -> Description:
    # The file appears whole or not at all (`build_folder`), so nothing has to survive a crash.
    connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA + _MEMORY)
    connection.execute("BEGIN")
    for record in tqdm(records, desc="Papers and citations", unit="", disable=None if progress else True):
        if isinstance(record, Paper):
            connection.execute(_GIVE_PAPER, _row(record))
        elif record.citing != record.cited:
            connection.execute(_GIVE_CITATION, tuple(map(valid_text, record)))
    connection.execute("COMMIT")
    connection.executescript(f"BEGIN; {_NUMBER} COMMIT;")
    num_papers, num_citations, num_given = (
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("papers", "citations", "given.citations")
    )
    if num_papers == 0:
        raise DataError(f"Expected at least one paper with a title in {source}, found none.")
    info = CorpusInfo(edges if num_citations else "none", source, num_papers, num_citations, num_given - num_citations)
    connection.execute("INSERT INTO info VALUES (?)", (json.dumps(asdict(info)),))
    connection.executescript("DETACH given; ANALYZE;")
    passages = _passages(connection)
    if num_papers <= LARGE_CORPUS:
        engine = "bm25"
        build_bm25(passages, folder, progress=progress)
    else:
        from steppo_gym.retrieval.tantivy_index import build_tantivy

        engine = "tantivy"
        build_tantivy(passages, folder)
    return Description(ENGINES[engine], _hash(connection), num_papers)


def _row(paper: Paper) -> tuple[Any, ...]:
    if not paper.paper_id or not paper.title:
        raise ValueError(f"Expected a paper with an id and a title, got {paper!r:.200}.")
    authors = json.dumps(list(map(valid_text, paper.authors)))
    texts = map(valid_text, (paper.paper_id, paper.title, paper.abstract))
    return (*texts, paper.date, last_day(paper.date), authors, paper.num_citations)


def _passages(connection: sqlite3.Connection) -> Iterator[Passage]:
    for number, title, abstract in connection.execute("SELECT number, title, abstract FROM papers ORDER BY paper_id"):
        yield Passage(str(number), title, abstract)


def _hash(connection: sqlite3.Connection) -> str:
    """SHA-256 of all papers and citations, in hex: the same in whatever order they were given."""
    digest = hashlib.sha256()
    for statement in ("SELECT * FROM papers ORDER BY number", "SELECT * FROM info"):
        for row in connection.execute(statement):
            digest.update(json.dumps(row).encode() + b"\n")
    for pair in connection.execute("SELECT citing, cited FROM paper_references ORDER BY citing, cited"):
        digest.update(b"%d %d\n" % pair)
    return digest.hexdigest()
