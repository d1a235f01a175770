"""The environment and what it depends on: the contract, servers, scorers, failures, real files."""

from __future__ import annotations

import functools
import json
import threading

import gymnasium
import pytest
from json_server import Server
from paper_episodes import FIRST, ID, PAPERS, QUERIES, SEARCH, SECOND, play
from paper_rows import convert
from spar_papers import read_spar

from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.render import PROMPT_CHARS
from steppo_gym.envs.paper_search.serving.paper_server import PaperServer
from steppo_gym.errors import DataError, InfrastructureError
from steppo_gym.testing import check_text_env
from steppo_gym.testing.adversarial_texts import adversarial_texts

SPLITS = ("validation", "test")


def test_the_contract_on_files(files):
    # The first query alone: the expert can solve it.
    single = files["data"].with_name("single.jsonl")
    single.write_text(json.dumps(QUERIES[0]) + "\n", encoding="utf-8")
    make_env = functools.partial(gymnasium.make, ID, data=single, papers=files["papers"])
    check_text_env(make_env, tag="search", episodes=1)


@pytest.mark.parametrize("tag", ["search", "expand"])
def test_adversarial_texts(make, tag):
    argument = {"search": "query", "expand": "paper_id"}[tag]
    for action_format in ("tag", "tool_call"):
        env = make(action_format=action_format, any_text_stops=tag == "expand")
        over = True
        for _, text in adversarial_texts(tag, tag, argument):
            if over:
                env.reset(seed=0, options={"task_id": "q1"})
            observation, _, terminated, truncated, _ = env.step(text)
            assert observation in env.observation_space
            over = terminated or truncated


@pytest.fixture
def paper_server(files):
    with PaperServer(open_corpus(files["papers"]), port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_server_of_papers_gives_the_same_episodes(make, paper_server):
    responses = (SEARCH, FIRST + SECOND, "<search>rice</search><expand>nowhere</expand>", "<answer>done</answer>")
    assert play(make(papers=paper_server.url), *responses) == play(make(), *responses)


def test_a_failing_source_is_no_observation_and_leaves_no_half_step(make, files):
    answers = {"up": True}

    def answer(number, body):
        if not answers["up"]:
            return 400, {}, {"error": "closed"}
        return 200, {}, {"data": [{"index": index, "probs": [1.0, 0.0]} for index in range(len(body["input"]))]}

    with Server(answer) as server:
        env = make(relevance=server.url)
        env.reset(seed=0, options={"task_id": "q1"})
        *_, info = env.step(SEARCH)
        assert info["metrics"]["scored_by_selector"] == 1.0
        assert "scored_by_gold" not in info["metrics"]
        before = json.dumps(env.get_state())
        answers["up"] = False
        with pytest.raises(InfrastructureError, match="closed"):
            env.step(FIRST + SECOND)
        assert json.dumps(env.get_state()) == before
        answers["up"] = True
        _, reward, *_ = env.step(FIRST)
    assert reward == 1.0


def test_lexical_relevance_scores_what_it_finds(make):
    results, info = play(make(relevance="lexical"), SEARCH, "<search>rice</search>")
    assert info["metrics"]["scored_by_lexical"] == 1.0
    assert 0.0 < results[0][1] < 3.0
    # No word of the question is in it, so it is not admitted.
    assert results[1][1] == 0.0
    assert info["metrics"]["papers"] == 3.0


@pytest.mark.parametrize(
    ("answer", "change", "found"),
    [
        ("2001.00001", {"paper_id": "s2"}, "none"),
        ("w1", {"paper_id": "w1", "date": None}, "one without a date"),
        ("2001.00001", {"date": "2020-12-25"}, "one of 2020-12-25"),
    ],
)
def test_papers_without_any_answer_are_refused(make, tmp_path, answer, change, found):
    """All episodes would fail, and nothing would say why: ids of another kind, or no dates."""
    papers, asked = tmp_path / "papers.jsonl", tmp_path / "asked.jsonl"
    papers.write_text(json.dumps(PAPERS[0] | change), encoding="utf-8")
    asked.write_text(json.dumps(QUERIES[0] | {"answer_arxiv_id": [answer]}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"such as '{answer}' published by 2020-12-24, found {found} and no other"):
        make(papers=papers, data=asked)
    # Where answers are not what is paid, papers may be any.
    assert make(papers=papers, data=asked, relevance="lexical").task_ids == ("q1",)
    papers.write_text(json.dumps(PAPERS[-1]), encoding="utf-8")
    assert make(papers=papers).task_ids == ("q1", "q2")


def test_queries_without_an_answer_are_counted_where_they_are_most(make, tmp_path, capsys):
    asked = tmp_path / "asked.jsonl"

    def ask(*answers):
        rows = [QUERIES[1] | {"qid": f"q{n}", "answer_arxiv_id": [answer]} for n, answer in enumerate(answers)]
        asked.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        # Once in a process, however many environments there are.
        assert len({make(data=asked).task_ids for _ in range(2)}) == 1
        return capsys.readouterr().err

    assert ask("1805.00005", "unheard of") == ""
    assert ask("1805.00005", "unheard of", "2106.00006") == (
        f"2 of the 3 queries in {asked} have no answer among the papers that is published in time.\n"
    )
    make(data=asked, relevance="lexical")
    assert capsys.readouterr().err == "", "answers are not what is paid"


@pytest.mark.data
def test_experts_play_the_spar_bench(shared_data, tmp_path):
    """Its papers have no citations, so searches are all there is; no paper of the year of the questions is sure to be
    in time.
    """
    spar = shared_data / "papers" / "spar_bench.jsonl"
    assert convert("", read_spar, [str(spar), str(tmp_path / "papers.jsonl")]) == 0
    env = gymnasium.make(ID, split="test", data=spar, papers=tmp_path / "papers.jsonl").unwrapped
    assert env.source.info.edges == "none"
    recalls = []
    for task_id in env.task_ids:
        observation, info = env.reset(seed=0, options={"task_id": task_id})
        over = False
        while not over:
            assert len(observation) < PROMPT_CHARS + 3000
            observation, _, terminated, truncated, info = env.step(env.expert_response())
            over = terminated or truncated
        recalls.append(info["metrics"]["recall"])
    assert sum(recalls) / len(recalls) > 0.5
    env.close()


@pytest.mark.data
def test_a_real_test_set_is_not_validated_on(shared_data, files):
    folder, papers = shared_data / "pasa", files["papers"]
    with pytest.raises(DataError, match="is a test set"):
        gymnasium.make(ID, split="validation", data=folder / "AutoScholarQuery_test.jsonl", papers=papers)
    other = {"papers": papers, "relevance": "lexical"}
    sizes = {split: len(gymnasium.make(ID, split=split, data=folder, **other).unwrapped.task_ids) for split in SPLITS}
    assert sizes == {"validation": 1000, "test": 1000}
