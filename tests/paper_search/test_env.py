"""The environment: rewards, ends, observations, state keys, snapshots, metrics."""

from __future__ import annotations

import json

import gymnasium
import pytest
from paper_episodes import FIRST, SEARCH, SECOND, play

from steppo_gym.actions import format_tool_call
from steppo_gym.envs.paper_search.files import read_queries
from steppo_gym.envs.paper_search.reward import macro_average
from steppo_gym.errors import DataError, UnknownTaskError


def test_an_episode_by_hand(make):
    results, info = play(make(), SEARCH, FIRST, SECOND, "<answer>done</answer>")
    # Two answers and one other paper; one answer, since what has no abstract is dropped; one; nothing.
    assert [result[1] for result in results] == pytest.approx([2.01, 1.0, 1.0, 0.0])
    assert [result[2:4] for result in results] == [(False, False)] * 3 + [(True, False)]
    assert [result[4]["metrics"]["recall"] for result in results] == [0.5, 0.75, 1.0, 1.0]
    assert [result[4]["success"] for result in results] == [False, False, True, True]
    metrics = info["metrics"]
    assert (metrics["precision"], metrics["f1"]) == pytest.approx((4 / 5, 8 / 9))
    assert metrics["precision@25"] == metrics["precision"]
    done = {name: metrics[name] for name in ("papers", "searches", "expansions", "useless_calls", "scored_by_gold")}
    assert done == {"papers": 5.0, "searches": 1.0, "expansions": 2.0, "useless_calls": 0.0, "scored_by_gold": 1.0}


def test_several_calls_in_one_step(make):
    # An expansion may be of a paper that a call before it has found.
    response = SEARCH + FIRST + SEARCH + "<expand>1805.00005</expand>" + SECOND
    results, info = play(make(context="append"), response)
    assert results[0][1] == pytest.approx(2.01 + 1.0 - 0.5 - 0.5 + 1.0)
    assert info["metrics"]["useless_calls"] == 2.0
    assert results[0][0] == (
        "[Search] pruning: 3 new papers\n[2001.00001] [NEW] Pruning graphs\nWe prune.\n"
        "[2002.00002] [EXP] More pruning\nWe prune more.\n[1905.00005] [NEW] Pruning roses\nIn spring.\n"
        "[Expand] 2002.00002: 1 new paper\n[2003.00003] [EXP] Sparse networks\nThin.\n"
        "[Search] pruning: asked before\n[Expand] 1805.00005: no paper of the list\n"
        "[Expand] 2003.00003: 1 new paper\n[2004.00004] [NEW] Lottery tickets\nLuck."
    )


def test_tags_and_tool_calls_do_the_same(make):
    calls = [("search", "query", "pruning"), ("expand", "paper_id", "2002.00002")]
    tool_calls = "".join(format_tool_call(name, {argument: text}) for name, argument, text in calls)
    results, info = play(make(action_format="tool_call"), tool_calls, "<answer>done</answer>")
    tagged, other = play(make(), SEARCH + FIRST, "<answer>done</answer>")
    assert [result[1:4] for result in results] == [result[1:4] for result in tagged]
    assert info == other


def test_later_papers_are_never_returned(make):
    env = make()
    play(env, "<search>pruning anew</search>", "<expand>2001.00001</expand><expand>2002.00002</expand>")
    assert "2106.00006" not in json.dumps(env.get_state())


def test_nothing_from_the_last_week_before_the_query_is_returned(files, tmp_path):
    """Published on 2021-01-01: PaSa searches for papers from before 2020-12-25."""
    dates = {"2011.00001": "2020-11", "2012.00002": "2020-12-24", "2012.00003": "2020-12-25", "2012.00004": "2020-12"}
    old = {"paper_id": "2001.00001", "title": "Pruning", "abstract": "Of it.", "date": "2020-01-05"}
    rows = [
        {"paper_id": paper_id, "title": "Thinning", "abstract": "So.", "date": date, "references": ["2001.00001"]}
        for paper_id, date in dates.items()
    ]
    papers = tmp_path / "papers.jsonl"
    papers.write_text("".join(json.dumps(row) + "\n" for row in (old, *rows)), encoding="utf-8")
    env = gymnasium.make("steppo/PaperSearch-v0", data=files["data"], papers=papers).unwrapped
    for response in ("<search>thinning</search>", "<search>pruning</search><expand>2001.00001</expand>"):
        play(env, response)
        found = {entry["paper"]["paper_id"] for entry in env.get_state()["task"]["pool"]["papers"]}
        assert found - {"2001.00001"} == {"2011.00001", "2012.00002"}
    env.close()


def test_invalid_responses_get_feedback_and_the_episode_goes_on(make):
    env = make(context="append", invalid_action_reward=-0.25)
    (result, after), info = play(env, "I think that will do.", SEARCH)
    assert result[0].startswith("Your response was not understood. Expected 1 to 5 calls <search>...</search> or")
    assert (result[1], result[2], result[4]["invalid_action"] is None) == (-0.25, False, False)
    assert (after[1], info["invalid_action"]) == (pytest.approx(2.01), None)


def test_any_text_stops_where_it_is_asked_for(make):
    env = make(any_text_stops=True)
    (result,), _ = play(env, "I think that will do.")
    assert (result[1], result[2], result[4]["invalid_action"]) == (0.0, True, None)
    (result,), info = play(env, "<search>pruning")
    assert not result[2]
    assert "Expected </search>" in info["invalid_action"]


def test_an_episode_ends_after_five_steps(make):
    results, _ = play(make(), *[SEARCH] * 5)
    assert [result[2:4] for result in results] == [(False, False)] * 4 + [(False, True)]
    assert sum(result[1] for result in results) == pytest.approx(2.01 - 4 * 0.5)


def test_rebuilt_prompts_hold_the_whole_state(make):
    env = make(listed_papers=1, abstract_words=1)
    results, _ = play(env, SEARCH, "What?", FIRST)
    assert results[0][0].startswith("Question: Which papers prune networks?\n\nCalls so far:\n[Search] pruning: 3 new")
    assert (
        "Calls so far:\n[Search] pruning: 3 new papers\n[Expand] 2002.00002: 1 new paper\n\nPapers found:\n"
        "The newest of 4 by [id]; [EXP] was expanded, [NEW] was not.\n"
        "[2003.00003] [NEW] Sparse networks\nThin.\n[2002.00002] [EXP] More pruning\nWe ...\n\n"
        "Responses that were not understood:\n- Expected 1 to 5"
    ) in results[2][0]
    assert "Steps left: 2." in results[2][0]


def test_state_key_is_of_what_was_found_asked_expanded_and_ended(make):
    env = make()

    def key(*responses, task_id="q1"):
        return play(env, *responses, task_id=task_id)[1]["state_key"]

    assert key() == key("what?") == key("<expand>2001.00001</expand>")
    assert key(SEARCH, FIRST) == key(SEARCH + FIRST) == key(SEARCH, "what?", SEARCH, FIRST)
    assert key(SEARCH, "<search>rice</search>") == key("<search>RICE</search>", SEARCH)
    rose = "<expand>1905.00005</expand>"
    distinct = [
        key(),
        key(task_id="q2"),
        key(SEARCH),
        # Finds the same papers, but another query may be asked again.
        key("<search>pruning pruning</search>"),
        # Finds nothing, and may not be asked again.
        key("<search>zebra</search>"),
        # Brings nothing, and may not be expanded again.
        key(SEARCH, rose),
        key(SEARCH, FIRST),
        key(SEARCH, FIRST, rose),
        key("<answer>done</answer>"),
        key(SEARCH, "<answer>done</answer>"),
    ]
    assert len(set(distinct)) == len(distinct)


def test_a_snapshot_continues_with_the_same_bytes(make):
    env, other = make(), make()
    play(env, SEARCH, "What?")
    other.set_state(json.loads(json.dumps(env.get_state())))
    for response in (SEARCH + FIRST, SECOND + "<expand>nowhere</expand>", "<answer>\ud800</answer>"):
        assert env.step(response) == other.step(response)
    assert json.dumps(env.get_state()) == json.dumps(other.get_state())


@pytest.mark.parametrize("expert", ["search-expand", "hasty", "oracle"])
def test_experts_play_files(make, expert):
    env = make(expert=expert)
    over = False
    _, info = env.reset(seed=0, options={"task_id": "q1"})
    while not over:
        response = env.expert_response()
        assert env.expert_response() == response
        _, _, terminated, truncated, info = env.step(response)
        over = terminated or truncated
    assert info["invalid_action"] is None
    if expert == "oracle":
        assert info["metrics"]["recall"] == 1.0


def test_metrics_of_episodes_average_as_the_scores_of_their_lists(make, files):
    env = make()
    found, episodes = {}, []
    for task_id, response in (("q1", SEARCH), ("q2", "<search>rice</search>")):
        episodes.append(play(env, response, task_id=task_id)[1]["metrics"])
        found[task_id] = [entry["paper"]["paper_id"] for entry in env.get_state()["task"]["pool"]["papers"]]
    average = macro_average(found, list(read_queries(files["data"], "train").values()))
    for name in ("precision", "recall", "f1"):
        assert average[name] == pytest.approx(sum(metrics[name] for metrics in episodes) / 2)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "dev"}, "split must be one of 'train', 'validation', 'test', got 'dev'"),
        ({"protocol": "react"}, "protocol must be one of 'steppo', got 'react'"),
        ({"expert": "random"}, "expert must be one of 'search-expand', 'clumsy', 'hasty', 'oracle', got 'random'"),
        ({"show_gold": True, "relevance": "lexical"}, "show_gold shows the scores of relevance='gold', got"),
        ({"relevance": "oracle"}, "relevance must be one of 'gold', 'lexical' or the http address"),
        ({"listed_papers": 0}, "listed_papers must be at least 1, got 0"),
        ({"abstract_words": -1}, "abstract_words must be 0 or more, got -1"),
        ({"invalid_action_reward": 0.5}, "must be 0 or negative, got 0.5"),
        ({"invalid_action_reward": float("nan")}, "must be 0 or negative, got nan"),
    ],
)
def test_bad_arguments(make, kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def test_scores_of_the_answers_are_shown_on_request_alone(make):
    results, _ = play(make(show_gold=True, listed_papers=2, abstract_words=0), SEARCH)
    lines = results[0][0].splitlines()
    assert "The best of 3 by [id] (relevance); [EXP] was expanded, [NEW] was not." in lines
    assert lines.index("[2001.00001] (1.00) [NEW] Pruning graphs") < lines.index(
        "[2002.00002] (1.00) [NEW] More pruning"
    )
    lexical, _ = play(make(relevance="lexical"), SEARCH)
    assert "(relevance)" in lexical[0][0]


def test_the_built_in_queries_are_not_asked_of_other_papers(files):
    for papers in (files["papers"], "http://127.0.0.1:9"):
        with pytest.raises(ValueError, match=r"about the built-in papers, got papers='.*' without data. Pass the file"):
            gymnasium.make("steppo/PaperSearch-v0", papers=papers)


def test_files_need_papers_and_a_validation_that_is_no_test(make, files, tmp_path):
    with pytest.raises(DataError, match="Queries from files need papers to be searched, found papers=None"):
        make(papers=None)
    test = tmp_path / "AutoScholarQuery_test.jsonl"
    test.write_bytes(files["data"].read_bytes())
    with pytest.raises(DataError, match="is a test set"):
        make(data=test, split="validation")
    assert make(data=test, split="test").task_ids == ("q1", "q2")
    with pytest.raises(UnknownTaskError, match="2 tasks, for example 'q1', 'q2'"):
        make().queries.load("q3")
