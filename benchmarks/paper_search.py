"""Speed and memory of `steppo/PaperSearch-v0` on a large generated corpus, beside a plain one in memory.

    python benchmarks/paper_search.py --num-papers 100000 --episodes 320 --plain-episodes 2

Everything is measured in fresh processes: one generates a field of research and builds the corpus, one records what the
environment's own expert does, one does that again with 1 and then with 32 environments in turn on the one corpus, one
does the first of these episodes in an environment whose papers are Python objects, with citations in dictionaries and
every search scored over all papers by rank_bm25. Times are those of `reset` and `step` alone. Rates are also given in
processor time, which a busy machine changes little. Memory is resident memory of the whole process. The plain papers
need `pip install rank-bm25`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expert_episodes import Episodes, measure_replays, record_expert, replay
from process_memory import MIB, resident
from step_times import StepTimes, in_new_process

if TYPE_CHECKING:
    from steppo_gym.envs.paper_search.papers import Paper

_KINDS = ("search", "expand", "stop")
_CORPUS, _QUERIES = "corpus", "queries.jsonl"


class PlainPapers:
    """A source of papers without any index: lists and dictionaries, and rank_bm25 over all papers for each search.

    Args:
        papers: in any order.
        citations: pairs of ids, the citing paper first.
    """

    def __init__(self, papers: Sequence[Paper], citations: Sequence[tuple[str, str]]) -> None:
        from rank_bm25 import BM25Okapi  # pyright: ignore[reportMissingImports]

        self._papers = sorted(papers, key=lambda paper: paper.date, reverse=True)
        self._by_id = {paper.paper_id: paper for paper in papers}
        self._citing, self._cited = defaultdict(list), defaultdict(list)
        for citing, cited in citations:
            self._citing[cited].append(citing)
            self._cited[citing].append(cited)
        self._index = BM25Okapi([f"{paper.title} {paper.abstract}".lower().split() for paper in self._papers])

    def search(self, query: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        scores = self._index.get_scores(query.lower().split())
        ranked = sorted(range(len(scores)), key=lambda number: -scores[number])
        found = (self._papers[number] for number in ranked if scores[number] > 0)
        return _first(found, limit, until)

    def paper(self, paper_id: str) -> Paper | None:
        """See `PaperSource`."""
        return self._by_id.get(paper_id)

    def citations(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        return self._newest(self._citing[paper_id], limit, until)

    def references(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        return self._newest(self._cited[paper_id], limit, until)

    def close(self) -> None:
        """Nothing to release."""

    def _newest(self, ids: Sequence[str], limit: int, until: str) -> list[Paper]:
        papers = sorted((self._by_id[paper_id] for paper_id in ids), key=lambda paper: paper.date, reverse=True)
        return _first(papers, limit, until)


def main() -> None:
    """Measure and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-papers", type=int, default=100_000, help="size of the corpus")
    parser.add_argument("--episodes", type=int, default=320, help="episodes in all, for each number of environments")
    parser.add_argument(
        "--plain-episodes", type=int, default=2, help="episodes with the plain papers; 0 leaves them out"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEPPO_GYM_CACHE"] = str(Path(folder, "cache"))
        print(f"{options.num_papers} papers", flush=True)
        in_new_process(build, folder, options.num_papers, options.episodes)
        episodes = in_new_process(record, folder, options.episodes)
        in_new_process(measure, folder, episodes)
        if options.plain_episodes:
            in_new_process(measure_plain, folder, episodes[: options.plain_episodes], options.num_papers)


def build(folder: str, num_papers: int, num_queries: int) -> None:
    """Generate a field, build its corpus, and write questions about its lines of work."""
    from steppo_gym.envs.paper_search.built_in.field import Line, generate_field
    from steppo_gym.envs.paper_search.corpus.build import Citation, build_corpus

    started = time.perf_counter()
    field = generate_field(num_papers)
    print(f"  generate the field {time.perf_counter() - started:.2f} s, {len(field.citations)} citations", flush=True)
    target = Path(folder, _CORPUS)
    started = time.perf_counter()
    records = [*field.papers, *itertools.starmap(Citation, field.citations)]
    build_corpus(records, target, edges="generated", source="benchmark", progress=False)
    size = sum(path.stat().st_size for path in target.rglob("*")) / MIB
    print(f"  build the corpus {time.perf_counter() - started:.2f} s, {size:.0f} MiB on disk", flush=True)

    def row(number: int, line: Line) -> dict[str, Any]:
        first = line.phases[0]
        return {
            "qid": f"line {number}",
            "question": f"Which papers use {first.method} for {first.topic}, or the methods that replaced them?",
            "answer": [],
            "answer_arxiv_id": [paper_id for phase in line.phases for paper_id in phase.papers],
            "source_meta": {"published_time": "20240101"},
        }

    lines = random.Random(0).sample(field.lines, min(num_queries, len(field.lines)))
    texts = [json.dumps(row(number, line)) for number, line in enumerate(lines)]
    Path(folder, _QUERIES).write_text("\n".join(texts) + "\n", encoding="utf-8")


def record(folder: str, num_episodes: int) -> Episodes:
    """What the expert does in each of these episodes."""
    return record_expert(_maker(folder)(), num_episodes)


def measure(folder: str, episodes: Episodes) -> None:
    """Print the environment's times and memory."""
    measure_replays(_maker(folder), episodes, _kind, _KINDS)


def measure_plain(folder: str, episodes: Episodes, num_papers: int) -> None:
    """Print the times for the same responses with the plain papers."""
    from steppo_gym.envs.paper_search.built_in.field import generate_field

    # The environment opens its own corpus too, before memory is measured.
    env = _maker(folder)()
    field = generate_field(num_papers)
    before = resident()
    started = time.perf_counter()
    env.source = PlainPapers(field.papers, field.citations)
    print(f"  plain papers: start {time.perf_counter() - started:.2f} s", flush=True)
    times = StepTimes("reset", *_KINDS)
    for episode in episodes:
        replay([env], [episode], _kind, times)
    print(f"  plain papers, 1 env: {resident() - before:.0f} MiB more than with the papers alone")
    times.report()


def _maker(folder: str) -> Callable[[], Any]:
    import gymnasium

    import steppo_gym  # noqa: F401 - registers the environments
    from steppo_gym.envs.paper_search import env  # noqa: F401 - imports are not part of the start

    data, papers = Path(folder, _QUERIES), Path(folder, _CORPUS)
    return lambda: gymnasium.make("steppo/PaperSearch-v0", split="train", data=data, papers=papers).unwrapped


def _kind(response: str) -> str:
    return "search" if "<search>" in response else "expand" if "<expand>" in response else "stop"


def _first(papers: Iterable[Paper], limit: int, until: str) -> list[Paper]:
    """The first papers that were published by a day."""
    return list(itertools.islice((paper for paper in papers if not until or paper.date <= until), limit))


if __name__ == "__main__":
    main()
