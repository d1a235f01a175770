"""Speed and size of the search engines, beside bm25s' own search and SQLite's full-text search in the same run.

    python benchmarks/retrieval.py --passages 10000 100000

The passages are generated, the same for the same seed: lengths and word frequencies are about those of Wikipedia
paragraphs (mean 76 words, Zipf's law with stop words on top, names that occur once or a few times). A query is 12 words
from the middle of a passage and its title, about as long as a question of HotpotQA. Every engine is measured in a
process of its own, bound to one processor, query by query, with the time to analyse the query and to read the passages
found (bm25s' own search reads none). Ours and bm25s index the same terms with the same parameters, so they must find
the same scores; if not, the script ends with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import bm25s
import numpy as np
from process_memory import MIB
from step_times import in_new_process
from tqdm import tqdm

from steppo_gym.retrieval import Passage, open_retriever, read_corpus
from steppo_gym.retrieval.analysis import STOP_WORDS, passage_terms, query_terms
from steppo_gym.retrieval.bm25 import K1, B
from steppo_gym.retrieval.opening import index_corpus

COLUMNS = ("engine", "index s", "index MiB", "load s", "resident MiB", "private MiB", "p50 ms", "p99 ms", "CPU ms", "n")
NUM_QUERIES = 1000
NUM_HITS = 5
NUM_ENVIRONMENTS = 32
AIMS = {100_000: 2.0, 1_000_000: 10.0}
"""Median milliseconds that our default engine is to stay under."""

Search = Callable[[str], list[float]]
"""The scores of the best `NUM_HITS` passages."""


@dataclass(frozen=True)
class Measured:
    """One engine on one corpus."""

    engine: str
    index_seconds: float
    index_bytes: int
    load_seconds: float
    """Until the first query is answered."""
    resident_bytes: int
    """Grown by loading and by all queries, pages shared with other processes included."""
    private_bytes: int
    """Of these, what every further process would add."""
    seconds: tuple[float, ...]
    """Wall time of each query, as many as there was time for."""
    cpu_seconds: float
    """Processor time of all of them."""
    scores: tuple[tuple[float, ...], ...]
    """What each of them found."""


def main() -> int:
    """Run the benchmark; the exit status is 1 if bm25s and our engine find different scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = "(default: %(default)s)"
    parser.add_argument(
        "--passages", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help=f"sizes of the corpus {shown}"
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help=f"what to measure {shown}")
    parser.add_argument("--seconds", type=float, default=30.0, help=f"longest time of an engine's queries {shown}")
    parser.add_argument("--seed", type=int, default=0, help=f"of the passages and queries {shown}")
    arguments = parser.parse_args()
    differences = 0
    for size in arguments.passages:
        with tempfile.TemporaryDirectory() as folder:
            corpus, queries = _write_corpus(Path(folder), size, arguments.seed)
            print(f"\n{size:,} passages, {corpus.stat().st_size / MIB:.0f} MiB of JSON lines, k = {NUM_HITS}")
            print("|", " | ".join(COLUMNS), "|")
            print("|---" * len(COLUMNS) + "|", flush=True)
            rows = {}
            for engine in arguments.engines:
                rows[engine] = _run(engine, corpus, queries, arguments.seconds)
                print(_row(rows[engine]), flush=True)
            differences += _compare(rows, size)
    return int(differences > 0)


def _row(row: Measured) -> str:
    milliseconds = 1000 * np.array(row.seconds)
    sizes = [f"{value / MIB:.0f}" for value in (row.resident_bytes, row.private_bytes)]
    times = [f"{np.percentile(milliseconds, percent):.2f}" for percent in (50, 99)]
    cpu = f"{1000 * row.cpu_seconds / len(row.seconds):.2f}"
    first = [row.engine, f"{row.index_seconds:.1f}", f"{row.index_bytes / MIB:.1f}", f"{row.load_seconds:.2f}"]
    return f"| {' | '.join([*first, *sizes, *times, cpu, str(len(row.seconds))])} |"


def _compare(rows: dict[str, Measured], size: int) -> int:
    """Say whether the aim is met, and count the queries where bm25s and ours found different scores."""
    if "bm25" not in rows:
        return 0
    ours = rows["bm25"]
    if size in AIMS:
        median = 1000 * float(np.median(ours.seconds))
        print(f"Aim: median under {AIMS[size]} ms: {'met' if median < AIMS[size] else 'MISSED'}, {median:.2f} ms.")
    if "bm25s default" not in rows:
        return 0
    pairs = list(zip(ours.scores, rows["bm25s default"].scores, strict=False))
    differences = sum(not np.allclose(first, second[: len(first)], rtol=1e-4) for first, second in pairs)
    print(f"Scores of ours and of bm25s' own search: {len(pairs)} queries compared, {differences} differences.")
    return differences


def _run(engine: str, corpus: Path, queries: Sequence[str], seconds: float) -> Measured:
    folder = corpus.parent / engine.replace(" ", "-")
    folder.mkdir()
    start = time.perf_counter()
    in_new_process(_build, engine, corpus, folder)
    index_seconds = time.perf_counter() - start
    index_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return in_new_process(_measure, engine, corpus, folder, index_seconds, index_bytes, queries, seconds)


def _build(engine: str, corpus: Path, folder: Path) -> None:
    os.environ["STEPPO_GYM_CACHE"] = str(folder)
    ENGINES[engine][0](corpus, folder)


def _measure(
    engine: str,
    corpus: Path,
    folder: Path,
    index_seconds: float,
    index_bytes: int,
    queries: Sequence[str],
    seconds: float,
) -> Measured:
    os.environ["STEPPO_GYM_CACHE"] = str(folder)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    resident, private = _memory()
    start = time.perf_counter()
    search = ENGINES[engine][1](corpus, folder)
    search(queries[-1])
    load_seconds = time.perf_counter() - start
    times, scores, cpu = [], [], time.process_time()
    deadline = time.perf_counter() + seconds
    while len(times) < len(queries) and (not times or time.perf_counter() < deadline):
        start = time.perf_counter()
        found = search(queries[len(times)])
        times.append(time.perf_counter() - start)
        scores.append(tuple(found))
    cpu = time.process_time() - cpu
    after = _memory()
    grown = after[0] - resident, after[1] - private
    return Measured(engine, index_seconds, index_bytes, load_seconds, *grown, tuple(times), cpu, tuple(scores))


def _memory() -> tuple[int, int]:
    """Bytes of this process in memory, and those of them that no other process shares."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        fields[name] = 1024 * int(value.split()[0])
    # Pages of a file that only this process has mapped so far are shared with the next process that maps it.
    return fields["Rss"], fields["Private_Dirty"]


def _load_ours(engine: str) -> Callable[[Path, Path], Search]:
    def load(corpus: Path, folder: Path) -> Search:
        retrievers = [open_retriever(corpus, engine=engine) for _ in range(NUM_ENVIRONMENTS)]
        return lambda query: [hit.score for hit in retrievers[0].search([query], NUM_HITS)[0]]

    return load


def _build_bm25s(corpus: Path, folder: Path) -> None:
    words: dict[str, str] = {}
    passages = tqdm(read_corpus(corpus), desc="Passages", leave=False, disable=None)
    documents = [[words.setdefault(term, term) for term in passage_terms(passage)] for passage in passages]
    index = bm25s.BM25(k1=K1, b=B)
    index.index(documents, show_progress=False)
    index.save(folder, show_progress=False)


def _load_bm25s(corpus: Path, folder: Path) -> Search:
    index = bm25s.BM25.load(folder)

    def search(query: str) -> list[float]:
        _, scores = index.retrieve([query_terms(query)], k=NUM_HITS, show_progress=False)
        return scores[0].tolist()

    return search


def _build_sqlite(corpus: Path, folder: Path) -> None:
    passages = tqdm(read_corpus(corpus), desc="Passages", leave=False, disable=None)
    with sqlite3.connect(folder / "fts.sqlite") as connection:
        connection.execute("CREATE VIRTUAL TABLE passages USING fts5(title, text, tokenize = 'porter')")
        rows = ((passage.title, passage.text) for passage in passages)
        connection.executemany("INSERT INTO passages VALUES (?, ?)", rows)
        connection.execute("INSERT INTO passages (passages) VALUES ('optimize')")
    connection.close()


def _load_sqlite(corpus: Path, folder: Path) -> Search:
    connection = sqlite3.connect(folder / "fts.sqlite")
    command = (
        "SELECT title, text, bm25(passages, 3, 1) AS score FROM passages WHERE passages MATCH ? ORDER BY score LIMIT ?"
    )

    def search(query: str) -> list[float]:
        words = " OR ".join(f'"{word}"' for word in query.split() if word not in STOP_WORDS)
        return [-score for _, _, score in connection.execute(command, (words, NUM_HITS))]

    return search


ENGINES: dict[str, tuple[Callable[[Path, Path], object], Callable[[Path, Path], Search]]] = {
    "bm25": (lambda corpus, _: index_corpus(corpus, engine="bm25"), _load_ours("bm25")),
    "tantivy": (lambda corpus, _: index_corpus(corpus, engine="tantivy"), _load_ours("tantivy")),
    "bm25s default": (_build_bm25s, _load_bm25s),
    "SQLite FTS5": (_build_sqlite, _load_sqlite),
}
"""How to build the index of a corpus in a folder, and how to search it."""


def _write_corpus(folder: Path, size: int, seed: int) -> tuple[Path, list[str]]:
    """Write the corpus and draw the queries."""
    rng = np.random.default_rng(seed)
    path, queries = folder / "corpus.jsonl", []
    asked = set(rng.integers(size, size=NUM_QUERIES).tolist())
    with path.open("w", encoding="utf-8") as file:
        for passage in tqdm(_passages(rng, size), total=size, desc="Corpus", leave=False, disable=None):
            file.write(json.dumps(vars(passage)) + "\n")
            if int(passage.id) in asked:
                words = passage.text.split()
                queries.append(" ".join([passage.title, *words[len(words) // 3 :][:12]]))
    return path, queries


def _passages(rng: np.random.Generator, size: int) -> Iterator[Passage]:
    words = np.array(_vocabulary(rng, 200_000), dtype=object)
    # Zipf's law as Mandelbrot corrected it; drawing by inverse of the distribution function.
    frequencies = 1 / (np.arange(len(words)) + 2.7) ** 1.05
    cumulative = np.cumsum(frequencies / frequencies.sum())
    lengths = np.maximum(rng.lognormal(np.log(62), 0.64, size=size).astype(int), 5)
    for start in range(0, size, 1000):
        chunk = lengths[start : start + 1000]
        text = words[np.minimum(np.searchsorted(cumulative, rng.random(int(chunk.sum()))), len(words) - 1)]
        # Names are rare: a space of them ten times the vocabulary, larger the more passages there are.
        names = rng.zipf(1.3, size=(len(chunk), 4)) % (10 * len(words))
        ends = np.cumsum(chunk)
        for row, (end, length) in enumerate(zip(ends, chunk, strict=True)):
            first, second, *others = (f"{words[name % len(words)]}{name // len(words)}" for name in names[row])
            body = [f"{first} {second}", *text[end - length : end], *others]
            yield Passage(str(start + row), f"{first} {second}", " ".join(body))


def _vocabulary(rng: np.random.Generator, size: int) -> list[str]:
    """Stop words, most frequent first as in the texts, and made-up words of two to four syllables."""
    syllables = [consonant + vowel for consonant in "bcdfghjklmnprstvwz" for vowel in "aeiou"]
    words = dict.fromkeys(sorted(STOP_WORDS))
    while len(words) < size:
        drawn = rng.integers(len(syllables), size=(size, 4))
        kept = rng.integers(2, 5, size=size)
        rows = zip(drawn, kept, strict=True)
        words |= dict.fromkeys("".join(syllables[i] for i in row[:count]) for row, count in rows)
    return list(words)[:size]


if __name__ == "__main__":
    sys.exit(main())
