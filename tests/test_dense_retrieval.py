"""Dense retrieval with a tiny encoder, and the fusion of rankings."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import types

import gymnasium
import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from retrieval_corpora import make_passages

from steppo_gym.cli import main
from steppo_gym.envs.multihop_qa.data import ProceduralQuestions
from steppo_gym.errors import DataError, UnsupportedVersionError
from steppo_gym.retrieval import Hit, Passage, open_retriever, open_retriever_for
from steppo_gym.retrieval.dense import DenseRetriever, build_dense, load_encoder
from steppo_gym.retrieval.fusion import FusedRetriever, reciprocal_rank_fusion
from steppo_gym.retrieval.opening import index_corpus

PASSAGES = make_passages(300)
QUERIES = ["moon crew", "", "unheard words", "apollo 8 \ud800"]


class HashingEncoder:
    """Bags of words, every word at a place and with a sign that its hash gives."""

    def __init__(self, dimensions=64):
        self.dimensions, self.texts = dimensions, []

    def encode_query(self, texts):
        return self.encode("query: ", texts)

    def encode_document(self, texts):
        return self.encode("passage: ", texts)

    def encode(self, prompt, texts):
        self.texts += [prompt + text for text in texts]
        vectors = np.zeros((len(texts), self.dimensions))
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                digest = hashlib.sha256(word.encode("utf-8", "surrogatepass")).digest()
                row[digest[0] % self.dimensions] += 1 if digest[1] % 2 else -1
        return vectors


def open_with(encoder, folder, passages=PASSAGES):
    """A retriever over a new index."""
    folder.mkdir()
    assert build_dense(passages, folder, encoder, progress=False) == len(passages)
    return DenseRetriever(folder, encoder)


@pytest.fixture
def hashing(tmp_path):
    return open_with(HashingEncoder(), tmp_path / "hashing")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a real model, as small as they get: an embedding for each of six words."""
    transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = {word: number for number, word in enumerate(["[UNK]", "moon", "crew", "dust", "apollo", "find", "read"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    weights = np.random.default_rng(0).normal(size=(len(words), 16)).astype(np.float32)
    encoder = transformers.SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=weights)],
        prompts={"query": "find ", "document": "read "},
        device="cpu",
    )
    folder = tmp_path_factory.mktemp("models") / "six words"
    encoder.save(str(folder))
    return folder


def ids(hits):
    return [hit.passage.id for hit in hits]


def cosines(query, encoder):
    vectors = encoder.encode_document([f"{passage.title}\n{passage.text}" for passage in PASSAGES])
    (vector,) = encoder.encode_query([query.encode("utf-8", "replace").decode()])
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    return np.divide(vectors @ vector, lengths, out=np.zeros(len(PASSAGES)), where=lengths > 0)


def test_hits_are_the_highest_cosines(hashing):
    retriever = hashing
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


def test_a_batch_is_its_queries_one_by_one(hashing):
    assert hashing.search(QUERIES, 5) == [hashing.search([query], 5)[0] for query in QUERIES]


def test_queries_and_passages_are_encoded_as_such(tmp_path):
    encoder = HashingEncoder()
    open_with(encoder, tmp_path / "one", [Passage("1", "Moon", "dust \ud800")]).search(["crew \ud800"], 1)
    assert encoder.texts == ["passage: Moon\ndust ?", "query: crew ?"]


def test_an_encoder_that_is_another_one_is_refused(tmp_path):
    open_with(HashingEncoder(64), tmp_path / "index")
    retriever = DenseRetriever(tmp_path / "index", HashingEncoder(32))
    with pytest.raises(ValueError, match="The embeddings have 64 dimensions, the encoder gave 32"):
        retriever.search(["moon"], 3)
    with pytest.raises(ValueError, match="k must be at least 1"):
        retriever.search(["moon"], 0)


@pytest.mark.parametrize(
    "vectors", [np.zeros(3), np.zeros((2, 4)), np.full((3, 4), np.nan), np.full((3, 4), np.inf), np.zeros((3, 4, 1))]
)
def test_vectors_that_make_no_sense_are_refused(tmp_path, vectors):
    class Odd(HashingEncoder):
        def encode(self, prompt, texts):
            return vectors

    with pytest.raises(ValueError, match="Expected 3 finite vectors from the encoder"):
        open_with(Odd(), tmp_path / "index", PASSAGES[:3])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match=r"pip install 'steppo-gym\[dense\]'"):
        load_encoder("intfloat/e5-base-v2")
    # And at once, not in every episode.
    for engine in ("dense:intfloat/e5-base-v2", "hybrid:intfloat/e5-base-v2"):
        with pytest.raises(ImportError, match=r"pip install 'steppo-gym\[dense\]'"):
            gymnasium.make("steppo/HotpotQA-v0", retriever=engine)


def test_a_version_that_knows_no_queries_is_named(monkeypatch):
    old = types.ModuleType("sentence_transformers")
    old.__dict__.update(SentenceTransformer=type("SentenceTransformer", (), {"encode": None}), __version__="4.1.0")
    monkeypatch.setitem(sys.modules, "sentence_transformers", old)
    with pytest.raises(UnsupportedVersionError, match=r"found 4\.1\.0\. Run: pip install -U 'steppo-gym\[dense\]'"):
        load_encoder("intfloat/e5-base-v2")


def test_a_real_model_is_an_engine(model):
    passages = [Passage("1", "moon", "dust"), Passage("2", "crew", "crew"), Passage("3", "moon", "moon")]
    (hits,) = open_retriever_for(passages, engine=f"dense:{model}").search(["moon"], 3)
    encoder, _ = load_encoder(str(model))
    query, *texts = (
        encoder.encode(text) for text in ("find moon", "read moon\ndust", "read crew\ncrew", "read moon\nmoon")
    )
    cosine = [query @ text / np.linalg.norm(query) / np.linalg.norm(text) for text in texts]
    assert ids(hits) == [str(number + 1) for number in np.argsort(cosine)[::-1]]
    assert [hit.score for hit in hits] == pytest.approx(sorted(cosine, reverse=True), abs=1e-5)


def test_a_model_that_has_changed_has_another_index(model, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path))
    transformers = pytest.importorskip("sentence_transformers")

    def indexes():
        return {path.name for path in (tmp_path / "retrieval").iterdir() if path.is_dir()}

    copy = tmp_path / "model"
    encoder = transformers.SentenceTransformer(str(model), device="cpu")
    encoder.save(str(copy))
    open_retriever_for(PASSAGES, engine=f"dense:{copy}")
    (first,) = indexes()
    load_encoder.cache_clear()
    open_retriever_for(PASSAGES, engine=f"dense:{copy}")
    assert indexes() == {first}
    encoder.prompts["query"] = "apollo "
    encoder.save(str(copy))
    load_encoder.cache_clear()
    open_retriever_for(PASSAGES, engine=f"dense:{copy}")
    assert len(indexes()) == 2
    gc.collect()
    with pytest.raises(DataError, match="was made with another state of the model"):
        open_retriever(tmp_path / "retrieval" / first)


def test_a_file_is_indexed_and_opened_by_its_folder(model, tmp_path, capsys):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(vars(passage)) + "\n" for passage in PASSAGES))
    assert main(["index", str(corpus), "--engine", f"dense:{model}", "--quiet"]) == 0
    folder = capsys.readouterr().out.strip()
    expected = open_retriever_for(PASSAGES, engine=f"dense:{model}").search(["moon crew"], 5)
    assert open_retriever(folder).search(["moon crew"], 5) == expected
    assert open_retriever(corpus, engine=f"dense:{model}").search(["moon crew"], 5) == expected


@pytest.mark.parametrize("name", ["dense", "hybrid", "bm25", "tantivy"])
def test_environments_search_their_own_corpus_with_it(model, name):
    engine = f"{name}:{model}" if name in ("dense", "hybrid") else name
    default = gymnasium.make("steppo/HotpotQA-v0").unwrapped
    env = gymnasium.make("steppo/HotpotQA-v0", retriever=engine).unwrapped
    task_id = env.task_ids[0]
    questions = [env.questions.load(task_id).text]
    found = env.questions.retriever(task_id).search(questions, 100)
    if name == "bm25":
        assert found == default.questions.retriever(task_id).search(questions, 100)
    elif name == "hybrid":
        parts = [ProceduralQuestions("hotpotqa", "train", part) for part in (None, f"dense:{model}")]
        rankings = [ids(part.retriever(task_id).search(questions, 100)[0]) for part in parts]
        assert ids(found[0]) == list(reciprocal_rank_fusion(rankings))[:100]
    _, info = env.reset(seed=0, options={"task_id": task_id})
    while not env.step(env.expert_response())[2]:
        assert env.num_steps < env.max_steps
    env.close()
    default.close()
    del info


def test_questions_of_files_are_searched_with_it(model, tmp_path):
    context = [["Moon", ["dust"]], ["Crew", ["apollo"]]]
    row = {"_id": "a", "question": "moon?", "answer": "dust", "type": "b", "supporting_facts": [], "context": context}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    texts = set()
    for retriever in (None, f"dense:{model}"):
        env = gymnasium.make("steppo/HotpotQA-v0", data=str(tmp_path / "rows.json"), retriever=retriever).unwrapped
        (hits,) = env.questions.retriever("a").search(["unheard of"], 5)
        texts.add(tuple(sorted(ids(hits))))
        env.close()
    # Words that are nowhere find nothing, vectors always something.
    assert texts == {(), ("0", "1")}


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("dense", "got 'dense': dense needs the folder or the hub's name"),
        ("dense:", "got 'dense:': dense needs the folder or the hub's name"),
        ("hybrid", "got 'hybrid': hybrid needs the folder or the hub's name"),
        ("bm25:x", "one of bm25, tantivy, dense:MODEL, hybrid:MODEL, got 'bm25:x'"),
    ],
)
def test_an_engine_that_is_none_is_named(engine, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("steppo/HotpotQA-v0", retriever=engine)
    with pytest.raises(ValueError, match=message):
        open_retriever_for(PASSAGES, engine=engine)


def test_what_is_no_corpus_or_model_is_named(tmp_path, model):
    with pytest.raises(ValueError, match="an address to search, got the engine 'bm25'"):
        open_retriever("bm25")
    with pytest.raises(ValueError, match="hybrid searches two indexes and has none of its own"):
        index_corpus(retrieval_file(tmp_path), engine=f"hybrid:{model}")
    with pytest.raises(DataError, match=r"The encoder .*/none cannot be loaded .*Pass the folder") as caught:
        open_retriever_for(PASSAGES, engine=f"dense:{tmp_path}/none")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="at least one passage"):
        open_retriever_for([], engine=f"dense:{model}")


def retrieval_file(folder):
    path = folder / "corpus.jsonl"
    path.write_text('{"title": "Moon", "text": "dust"}')
    return path


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


def test_damage_that_sizes_cannot_show_is_found_by_the_search(tmp_path):
    retriever = open_with(HashingEncoder(), tmp_path / "index")
    path = tmp_path / "index" / "passages.bin"
    with path.open("r+b") as file:
        file.write(b"{" * path.stat().st_size)
    for damaged in (retriever, FusedRetriever([retriever])):
        with pytest.raises(DataError, match="damaged: its content has changed"):
            damaged.search(["moon"], 3)


def test_fused_retrievers(hashing):
    sparse, dense = open_retriever_for(PASSAGES), hashing
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
