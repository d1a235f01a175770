"""The environments: protocols, scores, history, snapshots, retrievers."""

from __future__ import annotations

import json
import re
from collections import Counter

import gymnasium
import pytest
from expert_play import play_with_slips
from retold_episodes import episode

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.actions import format_tool_call
from steppo_gym.envs.multihop_qa.expert import HASTE, name_of

IDS = ("steppo/HotpotQA-v0", "steppo/2WikiMultihopQA-v0", "steppo/MuSiQue-v0")
PARIS = {
    "_id": "q1",
    "question": "What is the capital of France?",
    "answer": "Paris",
    "type": "bridge",
    "supporting_facts": [["France", 0], ["Paris", 0]],
    "context": [
        ["France", ["France is a country in Europe."]],
        ["Paris", ["Paris is the capital of France."]],
        ["Lyon", ["Lyon is a large city."]],
    ],
}


def make(env_id=IDS[0], **kwargs):
    return gymnasium.make(env_id, **kwargs).unwrapped


@pytest.fixture
def paris(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps([PARIS]), encoding="utf-8")
    return path


def play_expert(env, task_id, seed=0):
    _, info = env.reset(seed=seed, options={"task_id": task_id})
    over, total = False, 0.0
    while not over:
        _, reward, terminated, truncated, info = env.step(env.expert_response())
        over, total = terminated or truncated, total + reward
    return total, info


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("kwargs", [{}, {"top_k": 2}, {"protocol": "search-r1"}], ids=["steppo", "top 2", "search-r1"])
def test_the_expert_solves_the_built_in_questions(env_id, kwargs):
    env = make(env_id, split="test", **kwargs)
    for task_id in env.task_ids[:20]:
        total, info = play_expert(env, task_id)
        assert total == 1.0
        assert info["success"]
        assert info["metrics"]["recall"] == 1.0


def test_first_search_is_free_in_the_steppo_protocol():
    observation, info = make(context="append").reset(seed=3)
    assert observation.splitlines()[0].startswith("Question: ")
    assert [line.split()[0] for line in observation.splitlines()[1:]] == ["[1]", "[2]", "[3]", "[4]", "[5]"]
    assert info["metrics"]["searches"] == 0.0
    observation, _ = make(context="append", protocol="search-r1").reset(seed=3)
    assert len(observation.splitlines()) == 1


def test_passages_are_shown_once(paris):
    env = make(data=paris, context="append", protocol="search-r1", top_k=2)
    env.reset(seed=0)
    observation, *_ = env.step("<search>France</search>")
    assert {line[:4] for line in observation.splitlines()} == {"[1] ", "[2] "}
    assert "France: France is a country in Europe." in observation
    observation, *_, info = env.step("<search> france </search>")
    assert observation == "Nothing new."
    assert (info["metrics"]["searches"], info["metrics"]["repeats"]) == (2.0, 1.0)
    observation, *_ = env.step("<search>Lyon</search>")
    assert observation == "[3] Lyon: Lyon is a large city."


def test_several_searches_in_one_step(paris):
    env = make(data=paris, context="append", protocol="steppo", top_k=1, action_format="tool_call")
    env.reset(seed=0)
    calls = [format_tool_call("search", {"query": query}) for query in ("Lyon", "France", "Lyon", "nonsense")]
    observation, *_, info = env.step("".join(calls))
    assert observation.splitlines()[:2] == ["Lyon:", "[2] Lyon: Lyon is a large city."]
    assert observation.splitlines()[-4:] == ["Lyon:", "Nothing new.", "nonsense:", "Nothing new."]
    assert (info["metrics"]["searches"], info["metrics"]["repeats"]) == (4.0, 1.0)
    # Of five calls the recipe takes four.
    *_, info = env.step("".join(calls) + format_tool_call("search", {"query": "Paris"}))
    assert info["invalid_action"] is None
    assert (info["metrics"]["searches"], "Paris" in env.get_state()["task"]["search"]["queries"]) == (8.0, False)


@pytest.mark.parametrize(
    ("answer", "em", "f1"), [("the paris", 1.0, 1.0), ("Paris, France", 0.0, 2 / 3), ("London", 0.0, 0.0)]
)
@pytest.mark.parametrize("reward", ["em", "f1"])
def test_answers_are_scored_and_end_the_episode(paris, answer, em, f1, reward):
    env = make(data=paris, reward=reward)
    env.reset(seed=0)
    _, paid, terminated, truncated, info = env.step(f"<answer>{answer}</answer>")
    assert (terminated, truncated) == (True, False)
    assert paid == pytest.approx(em if reward == "em" else f1)
    assert (info["metrics"]["em"], info["metrics"]["f1"]) == pytest.approx((em, f1))
    assert info["metrics"]["em/bridge"] == em
    assert info["success"] == (em == 1.0)


def test_malformed_responses_get_feedback_and_the_episode_goes_on(paris):
    env = make(data=paris, context="append", invalid_action_reward=-0.25)
    env.reset(seed=0)
    observation, reward, terminated, *_ = env.step("Paris, I think.")
    assert observation.startswith("Your response was not understood. Expected exactly one <search>...</search> or")
    assert (reward, terminated) == (-0.25, False)
    _, reward, *_ = env.step("<answer>Paris</answer>")
    assert reward == 1.0


def test_rebuilt_prompts_hold_the_whole_state(paris):
    env = make(data=paris, protocol="search-r1", top_k=1)
    env.reset(seed=0)
    env.step("What?")
    env.step("<search>Lyon</search>")
    observation, *_ = env.step("<search>France</search>")
    assert "Question: What is the capital of France?" in observation
    assert "Searches so far:\n- Lyon\n- France\n" in observation
    assert "Passages found:\n[1] Lyon: Lyon is a large city.\n[2] France: " in observation
    assert "Responses that were not understood:\n- Expected exactly one" in observation
    assert "Steps left: 2." in observation


def test_state_key_is_of_what_was_found_and_answered(paris):
    env = make(data=paris, protocol="search-r1", top_k=1)

    def key(*responses):
        *_, info = env.reset(seed=0)
        for response in responses:
            *_, info = env.step(response)
        return info["state_key"]

    lyon, france = "<search>Lyon</search>", "<search>France</search>"
    assert key() == key("what?") == key("<search>nonsense</search>")
    assert key(lyon, france) == key(france, "<search>large city</search>")
    answers = [f"<answer>{answer}</answer>" for answer in ("Paris", "paris")]
    keys = [key(), key(lyon), key(france), key(lyon, france), *(key(lyon, answer) for answer in answers)]
    assert len(set(keys)) == len(keys)


def test_a_snapshot_holds_passages_and_problems(paris):
    env, other = (make(data=paris, protocol="search-r1", top_k=1) for _ in range(2))
    env.reset(seed=0)
    env.step("What?")
    env.step("<search>Lyon</search>")
    other.set_state(json.loads(json.dumps(env.get_state())))
    for response in ("<search>Lyon </search>", "<search>France</search>", "<answer>\ud800</answer>"):
        assert env.step(response) == other.step(response)
    assert json.loads(json.dumps(env.get_state())) == json.loads(json.dumps(other.get_state()))


def test_another_corpus_knows_supporting_passages_by_their_titles(paris, tmp_path):
    corpus = tmp_path / "wiki.jsonl"
    lines = [
        {"id": "0", "contents": '"Paris"\nParis lies on the Seine.'},
        {"id": "1", "contents": '"Bordeaux"\nBordeaux lies on the Garonne.'},
    ]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    env = make(data=paris, retriever=corpus, protocol="search-r1", top_k=1, context="append")
    env.reset(seed=0)
    observation, *_, info = env.step("<search>Seine</search>")
    assert observation == "[1] Paris: Paris lies on the Seine."
    assert info["metrics"]["recall"] == 0.5
    env.close()


def test_titles_are_known_however_their_accents_are_written(tmp_path):
    data, corpus = tmp_path / "train.json", tmp_path / "wiki.jsonl"
    row = {**PARIS, "supporting_facts": [["Orl\u00e9ans", 0]], "context": [["Orl\u00e9ans", ["A city."]]]}
    data.write_text(json.dumps([row]), encoding="utf-8")
    corpus.write_text(json.dumps({"title": "Orle\u0301ans", "text": "It lies on the Loire."}) + "\n", encoding="utf-8")
    env = make(data=data, retriever=corpus, protocol="search-r1")
    env.reset(seed=0)
    *_, info = env.step("<search>Loire</search>")
    assert info["metrics"]["recall"] == 1.0
    *_, info = env.step("<search>Orl\u00e9ans</search>")
    *_, info = env.step("<search>orle\u0301ans</search>")
    assert info["metrics"]["repeats"] == 1.0


def test_recall_counts_supporting_passages_that_the_row_lacks(tmp_path):
    # As in HotpotQA's fullwiki file, where a row has what a search found.
    lyon = {**PARIS, "_id": "q2", "supporting_facts": [["Lyon", 0], ["Seine", 0]], "context": [["Loire", ["A river."]]]}
    path = tmp_path / "fullwiki.json"
    path.write_text(json.dumps([PARIS, lyon]), encoding="utf-8")
    env = make(data=path, protocol="search-r1", top_k=1)
    _, info = env.reset(seed=0, options={"task_id": "q2"})
    assert info["metrics"]["recall"] == 0.0
    *_, info = env.step("<search>Lyon</search>")
    assert info["metrics"]["recall"] == 0.5


def test_the_expert_reads_what_it_answers(paris, tmp_path):
    # The careful expert never finds France here; what it found says nothing of Paris.
    corpus = tmp_path / "wiki.jsonl"
    corpus.write_text(json.dumps({"title": "Bordeaux", "text": "A city."}) + "\n", encoding="utf-8")
    env = make(data=paris, retriever=corpus)
    assert play_expert(env, "q1")[0] == 0.0
    assert env.history[-1].action == "answer unknown"
    # Here it reads the answer, although one passage is missing.
    corpus.write_text(json.dumps({"title": "Paris", "text": "A city."}) + "\n", encoding="utf-8")
    env = make(data=paris, retriever=corpus)
    assert play_expert(env, "q1")[0] == 1.0
    assert len(env.history) > 2


def test_the_built_in_questions_are_not_asked_of_another_corpus(tmp_path):
    for retriever in (tmp_path / "wiki.jsonl", "http://127.0.0.1:9"):
        with pytest.raises(
            ValueError, match=r"about the built-in encyclopaedias, got retriever='.*' without data. Pass"
        ):
            make(retriever=retriever)


def test_broken_calls_cost_what_the_protocol_says(paris):
    good, broken = format_tool_call("search", {"query": "Lyon"}), "<tool_call>{</tool_call>"
    for protocol, is_done in (("steppo", True), ("search-r1", False)):
        env = make(data=paris, protocol=protocol, action_format="tool_call")
        env.reset(seed=0)
        *_, info = env.step(broken + good)
        assert (info["invalid_action"] is None) == is_done
        _, reward, terminated, _, info = env.step(broken + "<answer>Lyon</answer> <answer>Paris</answer>")
        assert (reward, terminated, info["invalid_action"] is None) == (
            (1.0, True, True) if is_done else (0.0, False, False)
        )


def test_the_hasty_expert_takes_the_bridge_for_the_answer():
    env = make(expert="hasty", top_k=2, split="validation")
    task_ids = env.task_ids[:200]
    ends, slips, _ = play_with_slips(env, task_ids)
    assert sum(end["success"] for end in ends) / 200 == pytest.approx(1 - HASTE, abs=0.1)
    assert slips > 5
    bridges = [
        end["response"]
        in {f"<answer> {page.title.split(' (')[0]} </answer>" for page in env.questions.load(task_id).supporting}
        for task_id, end in zip(task_ids, ends, strict=True)
        if end["terminated"] and not end["success"]
    ]
    # Rarely the first search does not bring both things that are compared, and the other one is the name it lacks.
    assert all(bridges)


def test_one_seed_for_all_tasks_does_not_make_the_hasty_expert_err_in_all():
    env = make(expert="hasty", split="validation")
    assert 0 < sum(play_expert(env, task_id, seed=0)[1]["success"] for task_id in env.task_ids[:30]) < 30


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "dev"}, "split must be one of"),
        ({"protocol": "react"}, "protocol must be one of 'steppo', 'search-r1', got 'react'"),
        ({"reward": "bleu"}, "reward must be one of 'em', 'f1', got 'bleu'"),
        ({"expert": "oracle"}, "expert must be one of 'search', 'clumsy', 'hasty', got 'oracle'"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"invalid_action_reward": 0.5}, "must be 0 or negative, got 0.5"),
        ({"invalid_action_reward": float("nan")}, "must be 0 or negative, got nan"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


def responses(env, task_id):
    """What the expert writes in an episode, which it has to solve."""
    texts, success = episode(env, task_id)
    assert success, task_id
    return texts[1::2]


def test_on_2wiki_the_expert_thinks_once_where_it_can_compare():
    env = make(IDS[1], split="validation", top_k=2)
    thoughts = Counter()
    for task_id in env.task_ids[:60]:
        said = [response for response in responses(env, task_id) if "<think>" in response]
        question = env._question
        assert len(said) == (question.kind in ("comparison", "bridge_comparison"))
        for response in said:
            compared = re.fullmatch(r"<think>(.+) (\d{4}) (.+) (\d{4}) (\w+) (.+)</think><\w+> (.+) </\w+>", response)
            one, first, other, second, order, chosen, then = compared.groups()
            pages = {name_of(page.title): page.text for page in question.supporting}
            assert all(
                re.match(rf"{name} is .* {year}\.", pages[name]) for name, year in ((one, first), (other, second))
            )
            assert f" {order} of " in question.text
            assert chosen == (min if order == "older" else max)((first, one), (second, other))[1]
            assert then in pages[chosen], "what it does next stands on the page of the chosen one"
            thoughts[question.kind] += 1
    assert set(thoughts.values()) == {12}
    # The start of HotpotQA was made by one that does not.
    hotpot = make(split="validation", top_k=2)
    assert not any("<think>" in response for response in responses(hotpot, hotpot.task_ids[4]))
    assert hotpot._question.kind == "comparison"


def test_on_files_nothing_is_taken_for_a_year_to_compare(tmp_path):
    row = {
        **PARIS,
        "question": "Which is the older of the cities, Lyon or Paris?",
        "type": "comparison",
        "supporting_facts": [["Paris", 0], ["Lyon", 0]],
        "context": [["Paris", ["Paris was rebuilt in 1853."]], ["Lyon", ["Lyon had a fair in 1420."]]],
    }
    path = tmp_path / "train.json"
    path.write_text(json.dumps([row]), encoding="utf-8")
    assert not any("<think>" in response for response in responses(make(IDS[1], data=path), "q1"))
