"""Dense retrieval with a tiny encoder, and the fusion of rankings."""

from __future__ import annotations

import gc
import hashlib
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_corpora import make_passages

from steppo_gym.errors import DataError
from steppo_gym.retrieval import Hit, Passage, open_retriever_for
from steppo_gym.retrieval.dense import load_encoder, open_dense
from steppo_gym.retrieval.fusion import FusedRetriever, reciprocal_rank_fusion

PASSAGES = make_passages(300)
QUERIES = ["moon crew", "", "unheard words", "apollo 8 \ud800"]


class HashingEncoder:
    """Bags of words, every word at a place and with a sign that its hash gives."""

    def __init__(self, dimensions=64):
        self.dimensions, self.num_texts, self.texts = dimensions, 0, []

    def encode(self, texts):
        self.num_texts += len(texts)
        self.texts += texts
        vectors = np.zeros((len(texts), self.dimensions))
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
                row[digest[0] % self.dimensions] += 1 if digest[1] % 2 else -1
        return vectors


def ids(hits):
    return [hit.passage.id for hit in hits]


def cosines(query, encoder):
    vectors = encoder.encode([f"{passage.title}\n{passage.text}" for passage in PASSAGES])
    (vector,) = encoder.encode([query])
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    return np.divide(vectors @ vector, lengths, out=np.zeros(len(PASSAGES)), where=lengths > 0)


def test_hits_are_the_highest_cosines():
    retriever = open_dense(PASSAGES, HashingEncoder(), "hashing 64")
    for query, hits in zip(QUERIES, retriever.search(QUERIES, 20), strict=True):
        expected = cosines(query, HashingEncoder())
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected, reverse=True)[:20], abs=1e-6)
        by_id = dict(zip(ids([Hit(passage, 0.0) for passage in PASSAGES]), expected, strict=True))
        assert [hit.score for hit in hits] == pytest.approx([by_id[identity] for identity in ids(hits)], abs=1e-6)
        places = {passage.id: place for place, passage in enumerate(PASSAGES)}
        keys = [(-hit.score, places[hit.passage.id]) for hit in hits]
        assert keys == sorted(keys)
    assert retriever.search([], 3) == []
    assert len(retriever) == 300
    assert len(retriever.search(["moon"], 999)[0]) == 300
    retriever.close()
    assert len(retriever.search(["moon"], 3)[0]) == 3


def test_a_batch_is_its_queries_one_by_one():
    retriever = open_dense(PASSAGES, HashingEncoder(), "hashing 64")
    assert retriever.search(QUERIES, 5) == [retriever.search([query], 5)[0] for query in QUERIES]


def test_embeddings_are_made_once():
    encoder = HashingEncoder()
    first = open_dense(PASSAGES, encoder, "hashing once").search(QUERIES, 5)
    assert encoder.num_texts == 300 + len(QUERIES)
    gc.collect()
    assert open_dense(PASSAGES, encoder, "hashing once").search(QUERIES, 5) == first
    assert encoder.num_texts == 300 + 2 * len(QUERIES)
    open_dense(PASSAGES, encoder, "hashing once", rebuild=True)
    open_dense(PASSAGES[1:], encoder, "hashing once")
    open_dense(PASSAGES, encoder, "hashing once", passage_prompt="passage: ")
    assert encoder.num_texts == 300 + 2 * len(QUERIES) + 300 + 299 + 300


def test_prompts_are_put_before_the_texts():
    encoder = HashingEncoder()
    retriever = open_dense(
        [Passage("1", "Moon", "dust")], encoder, "prompts", query_prompt="query: ", passage_prompt="passage: "
    )
    retriever.search(["crew"], 1)
    assert encoder.texts == ["passage: Moon\ndust", "query: crew"]


def test_an_encoder_that_is_another_one_is_refused():
    open_dense(PASSAGES, HashingEncoder(64), "hashing")
    retriever = open_dense(PASSAGES, HashingEncoder(32), "hashing")
    with pytest.raises(ValueError, match="The embeddings have 64 dimensions, the encoder gave 32"):
        retriever.search(["moon"], 3)


@pytest.mark.parametrize(
    "vectors", [np.zeros(3), np.zeros((2, 4)), np.full((3, 4), np.nan), np.full((3, 4), np.inf), np.zeros((3, 4, 1))]
)
def test_vectors_that_make_no_sense_are_refused_and_leave_no_index(tmp_path, monkeypatch, vectors):
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path))

    class Odd(HashingEncoder):
        def encode(self, texts):
            return vectors

    with pytest.raises(ValueError, match="Expected 3 finite vectors from the encoder"):
        open_dense(PASSAGES[:3], Odd(), "odd")
    assert [path for path in (tmp_path / "retrieval").iterdir() if path.is_dir()] == []
    assert open_dense(PASSAGES[:3], HashingEncoder(), "odd").search(["moon"], 1)[0]


def test_corpora_that_make_no_sense_are_refused():
    with pytest.raises(DataError, match="at least one passage"):
        open_dense([], HashingEncoder(), "empty")
    with pytest.raises(ValueError, match="passages with different ids"):
        open_dense([PASSAGES[0]] * 2, HashingEncoder(), "twice")
    with pytest.raises(ValueError, match="k must be at least 1"):
        open_dense(PASSAGES, HashingEncoder(), "hashing 64").search(["moon"], 0)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'steppo-gym\[dense\]'"):
        load_encoder("intfloat/e5-base-v2")


def test_a_real_sentence_transformer():
    models = pytest.importorskip("sentence_transformers.models")
    transformers = pytest.importorskip("sentence_transformers")
    encoder = transformers.SentenceTransformer(modules=[models.BoW(["moon", "crew", "dust"])], device="cpu")
    passages = [Passage("1", "moon", "dust"), Passage("2", "crew", "crew"), Passage("3", "moon", "moon")]
    (hits,) = open_dense(passages, encoder, "bag of three words").search(["moon"], 2)
    assert ids(hits) == ["3", "1"]
    assert [hit.score for hit in hits] == pytest.approx([1.0, 0.5**0.5])


def test_reciprocal_rank_fusion():
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "d"], ["b"]])
    assert list(fused) == ["b", "c", "a", "d"]
    assert fused["b"] == pytest.approx(1 / 62 + 1 / 61)
    assert fused["c"] == pytest.approx(1 / 63 + 1 / 61)
    assert fused["a"] == pytest.approx(1 / 61)
    assert reciprocal_rank_fusion([]) == reciprocal_rank_fusion([[], []]) == {}
    assert reciprocal_rank_fusion([["a"]], constant=0) == {"a": 1.0}


rankings = st.lists(st.lists(st.sampled_from("abcdefg"), unique=True), max_size=4)


@given(rankings)
def test_fusion_is_its_definition_and_best_first(lists):
    fused = reciprocal_rank_fusion(lists)
    assert set(fused) == {identity for ranking in lists for identity in ranking}
    for identity, score in fused.items():
        ranks = [ranking.index(identity) + 1 for ranking in lists if identity in ranking]
        assert score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert list(fused.values()) == sorted(fused.values(), reverse=True)
    assert reciprocal_rank_fusion(lists[::-1]) == fused


def test_fused_retrievers():
    sparse, dense = open_retriever_for(PASSAGES), open_dense(PASSAGES, HashingEncoder(), "hashing 64")
    fused = FusedRetriever([sparse, dense], depth=50)
    for query, hits in zip(QUERIES, fused.search(QUERIES, 7), strict=True):
        found = [retriever.search([query], 50)[0] for retriever in (sparse, dense)]
        expected = reciprocal_rank_fusion([ids(each) for each in found])
        assert {hit.passage.id: hit.score for hit in hits} == dict(list(expected.items())[:7])
        assert all(hit.passage in PASSAGES for hit in hits)
    assert len(fused.search(["moon"], 80)[0]) == 80
    assert FusedRetriever([sparse]).search(["moon"], 5)[0] != sparse.search(["moon"], 5)[0]
    assert ids(FusedRetriever([sparse]).search(["moon"], 5)[0]) == ids(sparse.search(["moon"], 5)[0])
    with pytest.raises(ValueError, match="k must be at least 1"):
        fused.search(["moon"], 0)


def test_closing_a_fused_retriever_closes_its_parts():
    class Part:
        closed = 0

        def close(self):
            self.closed += 1

    parts = [Part(), Part()]
    FusedRetriever(parts).close()
    assert [part.closed for part in parts] == [1, 1]
    for arguments in (([],), (parts, 0)):
        with pytest.raises(ValueError, match="Expected a retriever and a depth of at least 1"):
            FusedRetriever(arguments[0], **({"depth": arguments[1]} if len(arguments) > 1 else {}))
