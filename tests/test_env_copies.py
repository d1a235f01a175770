"""Copies of environments on files and behind servers go on alike, and share what is large."""

from __future__ import annotations

import contextlib
import copy
import json
import pickle
import threading

import gymnasium
import pytest
from json_server import Server
from paper_episodes import PAPERS, QUERIES

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.serving.paper_server import PaperServer
from steppo_gym.retrieval import open_retriever
from steppo_gym.retrieval.remote.server import SearchServer

PASSAGES = {"France": "France is a country.", "Paris": "Paris is its capital.", "Lyon": "Lyon is a city."}
QUESTION = {
    "_id": "q1",
    "question": "What is the capital of France?",
    "answer": "Paris",
    "supporting_facts": [["Paris", 0]],
    "context": [[title, [text]] for title, text in PASSAGES.items()],
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    corpus = [{"title": title, "text": text} for title, text in PASSAGES.items()]
    written = {"questions": [QUESTION], "corpus": corpus, "papers": PAPERS, "queries": QUERIES}
    for name, rows in written.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(tmp_path / f"{name}.jsonl") for name in written}


@contextlib.contextmanager
def served(server):
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def judge(number, body):
    return 200, {}, {"data": [{"probs": [0.75, 0.25]} for _ in body["input"]]}


@contextlib.contextmanager
def questions_with(files, **retriever):
    yield {"id": "steppo/HotpotQA-v0", "data": files["questions"], **retriever}


@contextlib.contextmanager
def questions_with_a_server(files):
    with served(SearchServer(open_retriever(files["corpus"]), port=0)) as url:
        yield {"id": "steppo/HotpotQA-v0", "data": files["questions"], "retriever": url}


@contextlib.contextmanager
def papers_of_a_server(files):
    with served(PaperServer(open_corpus(files["papers"]), port=0)) as url:
        yield {"id": "steppo/PaperSearch-v0", "data": files["queries"], "papers": url}


@contextlib.contextmanager
def papers_with_a_classifier(files):
    with Server(judge) as server:
        papers = {"data": files["queries"], "papers": files["papers"]}
        yield {"id": "steppo/PaperSearch-v0", "relevance": server.url, **papers}


SOURCES = {
    "questions with their paragraphs": questions_with,
    "questions with another engine": lambda files: questions_with(files, retriever="tantivy"),
    "questions with a corpus": lambda files: questions_with(files, retriever=files["corpus"]),
    "questions with a server": questions_with_a_server,
    "papers of a server": papers_of_a_server,
    "papers with a classifier": papers_with_a_classifier,
}


@pytest.mark.parametrize("source", SOURCES)
def test_copies_go_on_alike_and_apart(files, source):
    with SOURCES[source](files) as arguments:
        env = gymnasium.make(**arguments).unwrapped
        env.reset(seed=0)
        env.step("<search>pruning France</search>")
        copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
        results = [one.step("<search>capital rice</search>") for one in (env, *copies)]
        assert results[0] == results[1] == results[2]
        env.close()
        results = [one.step("<answer>Paris</answer>") for one in copies]
        assert results[0] == results[1]
        for one in copies:
            one.close()


@pytest.mark.parametrize(
    ("env_id", "rows", "row", "number"),
    [("HotpotQA", "questions", QUESTION, "_id"), ("PaperSearch", "queries", QUERIES[0], "qid")],
)
def test_copies_share_the_rows_of_files(files, tmp_path, env_id, rows, row, number):
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps(row | {number: f"q{i}", "question": f"{i}" * 1000}) + "\n" for i in range(100)))
    papers = {"papers": files["papers"]} if rows == "queries" else {}
    env = gymnasium.make(f"steppo/{env_id}-v0", data=path, **papers).unwrapped
    env.reset(seed=0)
    assert len(pickle.dumps(env)) < 20_000
