"""Scorers of papers: gold membership, words in common, and a classifier behind a server."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from json_server import Server

from steppo_gym.envs.paper_search.files import read_queries
from steppo_gym.envs.paper_search.paper_ids import canonical_id
from steppo_gym.envs.paper_search.papers import Paper, Query
from steppo_gym.envs.paper_search.relevance import (
    OTHER_PAPER,
    SELECTOR_PROMPT,
    GoldMembership,
    LexicalRelevance,
    Selector,
    open_relevance,
)
from steppo_gym.errors import InfrastructureError

QUERY = Query("q", "Which papers prune graph networks?", ("2401.01234", "b"))


def titled(*titles):
    return [Paper(f"p{number}", title) for number, title in enumerate(titles)]


def test_gold_membership_knows_answers_without_versions():
    papers = [Paper(paper_id, "") for paper_id in ("2401.01234", "2401.01234v2", "b", "c", "2401.0123")]
    assert GoldMembership().scores(QUERY, papers) == [1.0, 1.0, 1.0, OTHER_PAPER, OTHER_PAPER]
    assert GoldMembership().scores(QUERY, []) == []


def test_lexical_relevance_by_hand():
    # "papers" and "which" only ask; graph, network and prune count. A title counts three times, so all three make 9
    # terms, k = 0.9 * (0.6 + 0.4 * 9 / 140), and each is worth 3 / (3 + k).
    k = 0.9 * (0.6 + 0.4 * 9 / 140)
    full, two, none, empty = LexicalRelevance().scores(
        QUERY, titled("Pruning graph networks", "Graphs of networks alone", "Protein folding", "")
    )
    assert full == pytest.approx(1 / (1 + math.exp(-15.7 * (3 / (3 + k) - 0.433))))
    assert two == pytest.approx(1 / (1 + math.exp(-15.7 * (2 / 3 * 3 / (3 + k) - 0.433))))
    # Below what is admitted to the pool.
    assert none == empty == pytest.approx(1 / (1 + math.exp(15.7 * 0.433)))
    assert none < 0.01 < two < full < 1


def test_lexical_relevance_of_a_question_that_only_asks():
    papers, graphs = LexicalRelevance().scores(Query("q", "Which papers?", ()), titled("Papers", "Graphs"))
    assert papers > 0.4 > 0.01 > graphs
    assert LexicalRelevance().scores(Query("q", "?", ()), titled("Papers")) == [graphs]


def test_a_long_abstract_counts_less():
    short = Paper("p", "Graph pruning", "Networks.")
    long = Paper("p", "Graph pruning", "Networks. " + "And something else entirely. " * 200)
    first, second = LexicalRelevance().scores(QUERY, [short, long])
    assert first > second


@given(st.text(), st.text(), st.text())
def test_lexical_relevance_is_a_share(text, title, abstract):
    (score,) = LexicalRelevance().scores(Query("q", text, ()), [Paper("p", title, abstract)])
    assert 0 <= score <= 1


def classify(number, body):
    """Calls papers "good" relevant with 0.75; the answers come in another order."""
    entries = [
        {"index": index, "label": "x", "probs": [0.75, 0.25] if "good" in text else [0.0, 1.0], "num_classes": 2}
        for index, text in enumerate(body["input"])
    ]
    return 200, {}, {"id": "classify-1", "object": "list", "data": entries[::-1]}


def test_selector_asks_for_each_paper():
    with Server(classify) as server:
        selector = Selector(server.url + "/", model="judge")
        papers = [Paper("1", "A good one", "On {query}."), Paper("2", "Another"), Paper("3", "good {abstract}")]
        assert selector.scores(QUERY, papers) == [0.75, 0.0, 0.75]
        selector.close()
    assert server.paths == ["/classify"]
    (body,) = server.bodies
    # What else may be asked for, such as "activation": false, makes raw scores of vLLM's probabilities.
    assert body.keys() == {"model", "input"}
    assert body["model"] == "judge"
    # Text of a paper is never taken for a field.
    assert body["input"][0] == SELECTOR_PROMPT.replace("{query}", QUERY.text).replace("{title}", "A good one").replace(
        "{abstract}", "On {query}."
    )
    assert "Title: good {abstract}\nAbstract: \n" in body["input"][2]


def test_selector_asks_in_batches_and_remembers():
    with Server(classify) as server:
        selector = Selector(server.url)
        papers = titled(*(f"{'good' if i % 3 else 'bad'} {i}" for i in range(70)))
        scores = selector.scores(QUERY, papers)
        assert scores == [0.75 if i % 3 else 0.0 for i in range(70)]
        assert [len(body["input"]) for body in server.bodies] == [32, 32, 6]
        assert "model" not in server.bodies[0]
        assert selector.scores(QUERY, papers[::-1]) == scores[::-1]
        assert selector.scores(QUERY, []) == []
        assert len(server.bodies) == 3
        # Another question is another answer.
        selector.scores(Query("r", "Else?", ()), papers[:1])
        assert len(server.bodies) == 4
        selector.close()


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (400, {"error": {"message": "no such model"}}, "no such model"),
        (500, "broken", "HTTP 500"),
        (429, "later", "asks to wait 60 s"),
        (200, "not json", "expected {'data'"),
        (200, {"data": []}, "expected 1 classifications, found 0"),
        (200, {"data": [{"probs": []}]}, "IndexError"),
        (200, {"data": [{"label": "x"}]}, "KeyError"),
        (200, {"data": [{"probs": [3.5]}]}, "expected probabilities from 0 to 1, found 1 - p = -2.5"),
        (200, '{"data": [{"probs": [NaN]}]}', "found 1 - p = nan"),
        (200, [1], "TypeError"),
    ],
)
def test_selector_failures_are_no_scores(status, answer, message):
    with Server(lambda number, body: (status, {"Retry-After": "60" if status == 429 else "0"}, answer)) as server:
        selector = Selector(server.url, max_retries=0)
        with pytest.raises(InfrastructureError, match="search: ") as error:
            selector.scores(QUERY, titled("a"))
        assert message in str(error.value)
        selector.close()


def test_selector_tries_again():
    def flaky(number, body):
        return classify(number, body) if number > 2 else (503, {"Retry-After": "0"}, "later")

    with Server(flaky) as server:
        selector = Selector(server.url)
        assert selector.scores(QUERY, titled("good")) == [0.75]
        selector.close()
    assert len(server.bodies) == 3


def test_selector_prompts_need_their_fields():
    with pytest.raises(ValueError, match=r"misses \['title'\]"):
        Selector("http://127.0.0.1:1", prompt="{query} {abstract}")


def test_scorers_by_name_and_address():
    assert [open_relevance(name).name for name in ("gold", "lexical")] == ["gold", "lexical"]
    selector = open_relevance("http://127.0.0.1:1/classify")
    assert isinstance(selector, Selector)
    assert selector.url == "http://127.0.0.1:1/classify"
    selector.close()
    with pytest.raises(ValueError, match="relevance must be one of 'gold', 'lexical' or the http address of a classif"):
        open_relevance("oracle")


@pytest.mark.data
def test_lexical_relevance_is_calibrated_on_real_papers(shared_data):
    path = shared_data / "papers" / "spar_bench.jsonl"
    papers = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        for answer in json.loads(line)["source_meta"]["answers"]:
            paper_id = canonical_id(answer["paperID"])
            papers[paper_id] = Paper(paper_id, answer["title"], answer["abstract"] or "")
    scored, ahead = [], []
    for query in list(read_queries(path, "test").values())[::2]:
        scores = dict(zip(papers, LexicalRelevance().scores(query, list(papers.values())), strict=True))
        scored += [(score, paper_id in query.answers) for paper_id, score in scores.items()]
        others = [score for paper_id, score in scores.items() if paper_id not in query.answers]
        ahead += [sum(scores[answer] > other for other in others) / len(others) for answer in query.answers]
    # The chance that an answer scores higher than another paper.
    assert sum(ahead) / len(ahead) > 0.9
    for low, high in ((0.0, 0.01), (0.01, 0.1), (0.1, 0.3), (0.3, 0.6)):
        within = [is_answer for score, is_answer in scored if low <= score < high]
        assert low / 2 <= sum(within) / len(within) <= high
