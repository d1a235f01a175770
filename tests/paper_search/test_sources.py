"""What holds for every source of papers: the embedded corpus, and the client of a server of it."""

from __future__ import annotations

import numpy as np
import pytest
from paper_corpora import WORDS, counted, make_citations, make_corpus, make_papers, serving_papers

from steppo_gym.envs.paper_search.papers import published_by
from steppo_gym.envs.paper_search.semantic_scholar.client import SemanticScholar
from steppo_gym.retrieval import Passage, open_retriever_for
from steppo_gym.testing.adversarial_texts import adversarial_texts

PAPERS = make_papers(150)
CITATIONS = make_citations(PAPERS)
HELD = {paper.paper_id: paper for paper in counted(PAPERS, CITATIONS)}
DAYS = ["", "2017-12-31", "2019-01-01", "2019-06-30", "2020-02-29", "2021-12-31", "2030-01-01"]


@pytest.fixture(scope="module", params=["embedded", "server"])
def source(request, tmp_path_factory, isolated_cache):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        corpus = make_corpus(tmp_path_factory.mktemp("corpus") / "papers", PAPERS, CITATIONS)
        if request.param == "embedded":
            yield corpus
            return
        with serving_papers(corpus) as server:
            client = SemanticScholar(server.url, cache=tmp_path_factory.mktemp("cache") / "answers.sqlite")
            yield client
            client.close()


def newest_first(ids, until, limit):
    """From the definition: what was published in time, newest first, then by id, those of unknown date last."""
    papers = sorted((HELD[paper_id] for paper_id in ids), key=lambda paper: paper.paper_id)
    # A month or a year counts as its end.
    papers.sort(key=lambda paper: paper.date.ljust(10, "~") if paper.date else "", reverse=True)
    return [paper for paper in papers if published_by(paper.date, until)][:limit]


def test_every_paper_comes_back_as_it_was_given(source):
    for paper_id, paper in HELD.items():
        assert source.paper(paper_id) == paper


@pytest.mark.parametrize("until", DAYS)
@pytest.mark.parametrize("limit", [1, 3, np.int64(7), 10**30])
def test_neighbours_are_those_of_the_definition(source, until, limit):
    for paper_id in list(HELD)[:40]:
        citing = [one for one, other in CITATIONS if other == paper_id]
        cited = [other for one, other in CITATIONS if one == paper_id]
        assert source.citations(paper_id, limit=limit, until=until) == newest_first(citing, until, limit)
        assert source.references(paper_id, limit=limit, until=until) == newest_first(cited, until, limit)


@pytest.mark.parametrize("until", DAYS)
@pytest.mark.parametrize("limit", [1, np.int64(7), 100, 10**30])
def test_searches_are_those_of_the_definition(source, until, limit):
    by_id = sorted(HELD.values(), key=lambda paper: paper.paper_id)
    everything = open_retriever_for([Passage(paper.paper_id, paper.title, paper.abstract) for paper in by_id])
    for query in ["moon", "Dense language MODELS", " ".join(WORDS), "unheard of"]:
        (hits,) = everything.search([query], len(by_id))
        papers = [HELD[hit.passage.id] for hit in hits]
        expected = [paper for paper in papers if published_by(paper.date, until)][:limit]
        assert source.search(query, limit=limit, until=until) == expected
    assert source.search("moon", limit=limit, until="2017-12-31") == []


def test_a_version_of_an_arxiv_paper_is_the_paper(source):
    paper = next(paper for paper in HELD.values() if "." in paper.paper_id)
    assert source.paper(f"{paper.paper_id}v3") == paper
    assert source.citations(f"{paper.paper_id}v3", limit=99) == source.citations(paper.paper_id, limit=99)


UNKNOWN = ["", ".", "..", "../..", "P99999", "P00000/citations", "search", "batch", "search/match", "a b", "a?b=c"]
UNKNOWN += [
    "a#b",
    "%2e%2e",
    "P00000?fields=unknown",
    "http://127.0.0.1/",
    "x" * 10_000,
    "月",
    "\ud800",
    "\0",
    "2101.99999",
]


@pytest.mark.parametrize(
    "paper_id", [*UNKNOWN, *(text for _, text in adversarial_texts("expand", "expand", "paper_id"))]
)
def test_an_id_of_unknown_origin_is_nobody(source, paper_id):
    assert source.paper(paper_id) is None
    assert source.citations(paper_id, limit=5) == source.references(paper_id, limit=5) == []


@pytest.mark.parametrize("query", ["", " \n", "\ud800", "\0", "?", "a&limit=0", "moon#x", "月", "moon " * 10_000])
def test_any_text_may_be_searched_for(source, query):
    found = source.search(query, limit=3)
    assert bool(found) == ("moon" in query)
    assert all("moon" in f"{paper.title} {paper.abstract}".lower() for paper in found)


def test_adversarial_texts_may_be_searched_for(source):
    for _, text in adversarial_texts("search", "search", "query"):
        assert len(source.search(text, limit=3)) <= 3


@pytest.mark.parametrize("limit", [0, -1])
def test_at_least_one_paper_must_be_asked_for(source, limit):
    for ask in (source.search, source.citations, source.references):
        with pytest.raises(ValueError, match=f"must be at least 1, got {limit}"):
            ask(PAPERS[0].paper_id, limit=limit)
