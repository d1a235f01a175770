"""Made papers with citations, corpora of them, and servers in front of these."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
import threading

from steppo_gym.envs.paper_search.corpus.build import Citation, build_corpus
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.envs.paper_search.serving.paper_server import PaperServer
from steppo_gym.storage.http_server import JsonServer

WORDS = (
    *("graph", "neural", "search", "policy", "reward", "moon", "language"),
    *("model", "citation", "ranking", "sparse", "dense", "query", "agent"),
)


def make_papers(count, seed=0):
    """Papers with dates of every kind, equal ones among them. Only arXiv ids come with a month, as on the server."""
    rng = random.Random(seed)
    papers = []
    for index in range(count):
        year, month = rng.randint(18, 21), rng.randint(1, 12)
        kind = rng.choice(["day", "day", "month", "year", "none"])
        paper_id = f"{year}{month:02}.{index:05}" if kind == "month" else f"P{index:05}"
        date = {"day": f"20{year}-{month:02}-{rng.randint(1, 28):02}", "month": f"20{year}-{month:02}"}
        papers.append(
            Paper(
                paper_id,
                " ".join(rng.choices(WORDS, k=3)).title(),
                " ".join(rng.choices(WORDS, k=rng.randint(0, 12))),
                {**date, "year": f"20{year}", "none": ""}[kind],
                tuple(rng.choices(["A. Turing", "Emmy Noether", "Žižek, S."], k=rng.randint(0, 2))),
                rng.choice([0, 50]),
            )
        )
    return papers


def make_citations(papers, per_paper=4, seed=0):
    rng = random.Random(seed)
    ids = [paper.paper_id for paper in papers]
    return sorted({(citing, cited) for citing in ids for cited in rng.choices(ids, k=per_paper) if citing != cited})


def counted(papers, citations):
    """The papers with at least as many citations as the corpus holds."""
    held = {paper.paper_id: 0 for paper in papers}
    for _, cited in citations:
        held[cited] += 1
    return [
        dataclasses.replace(paper, num_citations=max(paper.num_citations, held[paper.paper_id])) for paper in papers
    ]


def make_corpus(folder, papers, citations=(), **options):
    options = {"edges": "generated", "source": "made papers"} | options
    return open_corpus(build_corpus([*papers, *itertools.starmap(Citation, citations)], folder, **options))


@contextlib.contextmanager
def running(server: JsonServer):
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def serving_papers(corpus):
    return running(PaperServer(corpus, port=0))
