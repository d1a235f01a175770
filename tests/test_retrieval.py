"""What the engines find: against a slow BM25, and what must hold for any corpus and any query."""

from __future__ import annotations

import random
import subprocess
import sys

import bm25s
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_corpora import WORDS, bm25_slow, make_passages

from steppo_gym.retrieval import Passage, open_retriever_for
from steppo_gym.retrieval.analysis import STOP_WORDS, passage_terms, query_terms, terms
from steppo_gym.retrieval.bm25 import K1, B, BM25Retriever
from steppo_gym.retrieval.fusion import FusedRetriever
from steppo_gym.retrieval.remote.client import SearchClient
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS
from steppo_gym.retrieval.tantivy_index import TantivyRetriever
from steppo_gym.retrieval.top_k import top_k
from steppo_gym.testing.adversarial_texts import adversarial_texts

ENGINES = ("bm25", "tantivy")

texts = st.lists(st.sampled_from(WORDS), max_size=8).map(" ".join)
corpora = st.lists(st.tuples(texts, texts), min_size=1, max_size=12).map(
    lambda pairs: [Passage(f"p{i}", title, text) for i, (title, text) in enumerate(pairs)]
)


def ids(hits):
    return [hit.passage.id for hit in hits]


@pytest.fixture(scope="module", params=ENGINES)
def retriever(request):
    """300 passages, many of them with equal scores."""
    return open_retriever_for(make_passages(300), engine=request.param)


def test_terms():
    assert terms("The Magazines of APOLLO 8, by Malcolm X!") == ["magazin", "apollo", "8", "malcolm", "x"]
    assert terms("don't élan 東京 snake_case") == ["don", "t", "élan", "東京", "snake_cas"]
    assert terms("") == terms("the of and") == terms("?!… \0 \ud800") == []


def test_an_accent_is_part_of_its_letter_however_it_is_written():
    assert terms("Éric Rohmer, cafe\u0301s") == terms("E\u0301ric Rohmer, cafés") == ["éric", "rohmer", "café"]


def test_stop_words_are_lucenes():
    assert set(bm25s.stopwords.STOPWORDS_EN) == STOP_WORDS


@given(st.text(alphabet=st.characters() | st.sampled_from("\ud800\udfff\u2028\u00a0"), max_size=60))
def test_terms_are_plain_words_of_any_text(text):
    for term in terms(text):
        assert term
        assert not any(character.isspace() for character in term)
        term.encode()


def test_the_title_counts_three_times():
    assert passage_terms(Passage("1", "Moon", "dust")) == ["moon", "moon", "moon", "dust"]


def test_the_end_of_a_very_long_query_does_not_count():
    padding = "x " * (MAX_QUERY_CHARACTERS // 2)
    assert "moon" not in query_terms(padding + "moon")
    assert "moon" in query_terms(padding[:-6] + " moon rocket")


@given(st.lists(st.integers(-3, 3), max_size=30), st.integers(1, 35))
def test_top_k_is_the_beginning_of_all_in_order(values, k):
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))[:k]
    assert top_k(np.array(values, dtype=np.float32), k).tolist() == expected


@given(corpora, texts, st.integers(1, 14))
def test_bm25_is_the_slow_reference(passages, query, k):
    (hits,) = open_retriever_for(passages, engine="bm25").search([query], k)
    expected = dict(zip((passage.id for passage in passages), bm25_slow(passages, query, k1=K1, b=B), strict=True))
    matching = sum(score > 0 for score in expected.values())
    assert len(hits) == min(k, matching)
    for hit in hits:
        assert hit.score == pytest.approx(expected[hit.passage.id], rel=1e-5)
    left_out = [score for identity, score in expected.items() if identity not in ids(hits)]
    assert not hits or max(left_out, default=0.0) <= hits[-1].score * (1 + 1e-5)
    assert all(hit.passage in passages for hit in hits)


# Each writes an index; the formula is that of another project.
@settings(max_examples=40)
@given(corpora, texts)
def test_tantivy_is_nearly_the_slow_reference(passages, query):
    """It rounds lengths to one byte, exactly up to 40 terms, and has parameters of its own."""
    (hits,) = open_retriever_for(passages, engine="tantivy").search([query], len(passages))
    expected = dict(zip((passage.id for passage in passages), bm25_slow(passages, query, k1=1.2, b=0.75), strict=True))
    assert set(ids(hits)) == {identity for identity, score in expected.items() if score > 0}
    for hit in hits:
        assert hit.score == pytest.approx(2.2 * expected[hit.passage.id], rel=1e-4)


def test_order_is_by_score_and_then_by_place_in_the_corpus(retriever):
    order = {passage.id: i for i, passage in enumerate(make_passages(300))}
    ties = 0
    for hits in retriever.search(["moon", "apollo 8 moon", "crater"], 300):
        keys = [(-hit.score, order[hit.passage.id]) for hit in hits]
        assert keys == sorted(keys)
        ties += len(keys) - len({score for score, _ in keys})
    assert ties > 50


def test_fewer_hits_are_the_beginning_of_more(retriever):
    (all_hits,) = retriever.search(["moon crew"], 1000)
    assert len(all_hits) > 100
    for k in (1, 2, 7, 50, 51, len(all_hits) - 1):
        assert retriever.search(["moon crew"], k) == [all_hits[:k]]


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_passages_come_in_the_order_of_the_corpus(engine):
    passages = [Passage(f"p{i}", "Moon", "dust and dust") for i in reversed(range(200))]
    (hits,) = open_retriever_for(passages, engine=engine).search(["dust moon"], 7)
    assert ids(hits) == [f"p{i}" for i in range(199, 192, -1)]
    assert len({hit.score for hit in hits}) == 1


def test_a_batch_is_its_queries_one_by_one(retriever):
    rng = random.Random(1)
    queries = [" ".join(rng.choices(WORDS, k=rng.randint(0, 6))) for _ in range(40)]
    assert retriever.search(queries, 5) == [retriever.search([query], 5)[0] for query in queries]
    assert retriever.search([], 5) == []


def test_the_order_and_case_of_the_words_make_no_difference(retriever):
    first, second = retriever.search(["apollo crew moon moon 8", "8 Moon APOLLO moon, crew?"], 300)
    assert first == second


def test_a_word_said_twice_counts_twice(retriever):
    once, twice, both = (hits for hits in retriever.search(["moon crew", "moon moon crew", "moon moon crew crew"], 300))
    assert once != twice
    assert [hit.score for hit in both] == pytest.approx([2 * hit.score for hit in once], rel=1e-5)


@pytest.mark.parametrize("query", ["", " ", "the of", "unheard words", "?", "\0", "\ud800", "*:* OR [a TO z]"])
def test_a_query_without_a_known_word_finds_nothing(retriever, query):
    assert retriever.search([query, "moon"], 3)[0] == []
    assert len(retriever.search([query, "moon"], 3)[1]) == 3


def hostile_queries():
    yield from (text for _, text in adversarial_texts("search", "search", "query"))
    yield from ("moon " * 20_000, "x" * 100_000, "\u0301" * 100_000, "\0" * 100_000, "moon\0crew", '"moon" AND (crew')
    yield " ".join(f"word{i}" for i in range(20_000))
    yield "".join(map(chr, range(0x3000)))


def test_hostile_queries_are_just_texts(retriever):
    for query in hostile_queries():
        (hits,) = retriever.search([query], 10)
        assert len(hits) <= 10
    assert len(retriever.search(["moon\0crew"], 10)[0]) == 10


@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_passages_come_back_unchanged(engine):
    passages = [Passage(f"{i} \0\n", text[:50_000], f"moon {text}") for i, text in enumerate(hostile_queries())]
    retriever = open_retriever_for(passages, engine=engine)
    (hits,) = retriever.search(["moon"], 1000)
    found = {hit.passage.id: hit.passage for hit in hits}
    assert len(found) >= len(passages) - 1
    assert all(passage == found[passage.id] for passage in passages if passage.id in found)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("texts", [[""], ["the", "of it"], ["", "moon"]])
def test_corpora_with_next_to_no_words(engine, texts):
    retriever = open_retriever_for([Passage(str(i), "", text) for i, text in enumerate(texts)], engine=engine)
    (hits, others) = retriever.search(["moon", "the"], 5)
    assert ids(hits) == [str(i) for i, text in enumerate(texts) if text == "moon"]
    assert others == []


def test_k_below_one_is_refused(retriever):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        retriever.search(["moon"], 0)
    assert len(retriever.search(["moon"], 10**9)[0]) < 300


def test_a_text_is_not_taken_for_a_list_of_letters(retriever):
    for searched in (retriever, FusedRetriever([retriever]), SearchClient("http://127.0.0.1:1")):
        with pytest.raises(TypeError, match=r"Expected a list of queries, each a text, got \[b'moon'\]\."):
            searched.search([b"moon"], 1)
        with pytest.raises(ValueError, match=r"k must be a whole number, got 1\.5\."):
            searched.search(["moon"], 1.5)
        with pytest.raises(TypeError, match=r"Expected a list of queries, got the text 'moon'\. Pass it in a list"):
            searched.search("moon", 3)


def test_closing_changes_nothing_for_the_others(retriever):
    before = retriever.search(["moon"], 3)
    retriever.close()
    retriever.close()
    assert retriever.search(["moon"], 3) == before


def test_engines():
    passages = make_passages(5)
    assert isinstance(open_retriever_for(passages), BM25Retriever)
    assert isinstance(open_retriever_for(passages, engine="tantivy"), TantivyRetriever)
    assert len(open_retriever_for(passages)) == len(open_retriever_for(passages, engine="tantivy")) == 5
    with pytest.raises(ValueError, match="one of bm25, tantivy, dense:MODEL, hybrid:MODEL, got 'lucene'"):
        open_retriever_for(passages, engine="lucene")


def test_searching_loads_no_engine_it_does_not_need():
    code = (
        "import sys, steppo_gym.retrieval as r; r.open_retriever_for([r.Passage('1', 'Moon', 'dust')]);"
        "r.open_retriever_for([r.Passage('1', 'Moon', 'dust')]).search(['moon'], 1); print(*sys.modules)"
    )
    for _ in range(2):
        loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"bm25s", "tantivy", "httpx", "torch"} & set(loaded)
