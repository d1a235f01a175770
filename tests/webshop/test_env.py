"""The environment: protocols, what does nothing, hostile actions, snapshots, experts and controls."""

from __future__ import annotations

import json
import random
import string
from statistics import mean

import pytest
from webshop_play import act, expert, first_hit, make, open_product, play

from steppo_gym.actions import format_tag, format_tool_call
from steppo_gym.envs.webshop.built_in.generate import generate_files, write_files
from steppo_gym.envs.webshop.task_ids import TaskIds
from steppo_gym.errors import DataError, UnknownTaskError


@pytest.mark.parametrize("goals", ["human", "synthetic"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_expert_solves_the_built_in_goals_and_buying_the_first_hit_does_not(goals, split):
    env = make(split=split, goals=goals)
    solved = [play(env, task_id, expert) for task_id in env.task_ids[:40]]
    assert all(info["success"] and info["metrics"]["task_score"] == 1.0 for _, info in solved)
    assert all(total == 10.0 for total, _ in solved)
    bought = [play(env, task_id, first_hit)[1] for task_id in env.task_ids[:40]]
    assert mean(info["success"] for info in bought) <= 0.2
    assert 0.4 < mean(info["metrics"]["task_score"] for info in bought) < 0.8


@pytest.mark.parametrize("goals", ["human", "synthetic"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_expert_recovers_from_up_to_six_bad_steps(goals, split):
    env = make(goals=goals, split=split)
    for seed in range(80):
        rng = random.Random(seed)
        num_bad = rng.randrange(7)

        def choose(env, info, rng=rng, num_bad=num_bad):
            if env.num_steps >= num_bad:
                return env.expert_response()
            clicks = [action for action in info["admissible_actions"] if action != "click[buy now]"]
            return format_tag("action", rng.choice([*clicks, "nonsense", "search[lamp]", "search[<r>]", "click[x]"]))

        assert play(env, env.task_ids[seed], choose, seed)[1]["success"], seed


@pytest.mark.parametrize(("name", "least", "most"), [("hasty", 0.15, 0.75), ("heedless", 0.0, 0.25)])
def test_experts_with_a_fault_err_in_some_tasks_and_the_same_way_again(name, least, most):
    env = make(expert=name)
    results = [play(env, task_id, expert) for task_id in env.task_ids[:40]]
    assert least < mean(info["success"] for _, info in results) < most
    assert results == [play(env, task_id, expert) for task_id in env.task_ids[:40]]


def buy_something(protocol, task_id, **kwargs):
    return play(make(protocol=protocol, **kwargs), task_id, first_hit)


def test_protocols_pay_for_a_full_score_or_for_the_score():
    env = make()
    cheap = next(task_id for task_id in env.task_ids if not play(env, task_id, first_hit)[1]["success"])
    for protocol in ("steppo", "verl-agent"):
        total, info = buy_something(protocol, cheap)
        assert (total, info["success"]) == (0.0, False)
        assert 0 < info["metrics"]["task_score"] < 1
        assert play(make(protocol=protocol), cheap, expert)[0] == 10.0
    total, info = buy_something("official", cheap)
    assert total == info["metrics"]["task_score"]
    parts = info["metrics"]
    assert parts["bought"] == 1.0
    assert min(parts["r_type"], parts["r_att"], parts["r_option"], parts["r_price"]) >= 0
    assert play(make(protocol="official"), cheap, expert)[0] == 1.0


@pytest.mark.parametrize(("protocol", "steps"), [("steppo", 15), ("verl-agent", 15), ("official", 100)])
def test_step_limits(protocol, steps):
    assert make(protocol=protocol).max_steps == steps
    assert make(protocol=protocol, max_steps=7).max_steps == 7


@pytest.mark.parametrize("context", ["rebuilt", "append"])
def test_what_is_not_on_the_page_costs_a_step_and_changes_nothing(context):
    env = make(context=context)
    option = open_product(env)
    act(env, option)
    before = env.get_state()["task"]
    _, _, _, _, last = act(env, option)
    for command, reason in [
        ("click[next >]", "nothing of the label 'next >'"),
        ("click[b000000000]", "nothing of the label 'b000000000'"),
        ("click[search]", "nothing of the label 'search'"),
        ("clicks[buy now]", "Expected search[words] or click[label], found 'clicks[buy now]'"),
        ("search[]", "Expected search[words] or click[label], found 'search[]'"),
        ("buy", "Expected search[words]"),
    ]:
        observation, reward, terminated, _, info = act(env, command)
        assert reason in info["invalid_action"]
        assert reason in observation
        assert (reward, terminated) == (0.0, False)
        assert env.get_state()["task"] == before
        assert (info["state_key"], info["admissible_actions"]) == (last["state_key"], last["admissible_actions"])


NO_TAG = ("click[b000000000]", "", "<action>search[a]", "search[a]</action>")


@pytest.mark.parametrize("protocol", ["steppo", "verl-agent", "official"])
def test_each_protocol_charges_for_what_its_source_charges_for(protocol):
    env = make(protocol=protocol, max_steps=100)
    env.reset(seed=0)
    charge = 0.0 if protocol == "official" else -0.1
    for response in NO_TAG:
        _, reward, *_, info = env.step(response)
        assert (reward, info["invalid_action"] is None) == (charge, False), response
    # What the official shop ignores is no fault of form.
    for command in ("click[not there]", "dance", "search[]", "click[]", "search[" + "a" * 2000 + "]"):
        _, reward, *_, info = act(env, command)
        assert (reward, info["invalid_action"] is None) == (0.0, False), command
    # Two tags: the first counts in verl-agent, elsewhere the response has no one action.
    _, reward, *_, info = env.step("<action>dance</action><action>dance</action>")
    assert reward == (-0.1 if protocol == "steppo" else 0.0)
    *_, info = act(env, "Search[Shoe]")
    assert (info["invalid_action"] is None) == (protocol != "official")
    assert env.get_state()["task"]["session"]["keywords"] == ("" if protocol == "official" else "shoe")


@pytest.mark.parametrize("protocol", ["steppo", "verl-agent"])
def test_malformed_calls_are_charged_for_and_ignored_commands_are_not(protocol):
    env = make(protocol=protocol, action_format="tool_call", max_steps=100)
    env.reset(seed=0)
    good = format_tool_call("env_step", {"command": "dance"})
    calls = {
        "": -0.1,
        "search[a]": -0.1,
        "<tool_call>{</tool_call>": -0.1,
        format_tool_call("search", {"command": "search[a]"}): -0.1,
        format_tool_call("env_step", {"command": " "}): -0.1,
        good + good: -0.1,
        good: 0.0,
        format_tool_call("env_step", {"command": "click[not there]"}): 0.0,
    }
    for response, charge in calls.items():
        _, reward, *_, info = env.step(response)
        assert (reward, info["invalid_action"] is None) == (charge, False), response


def test_the_charge_can_be_set():
    env = make(invalid_action_reward=-0.25)
    env.reset(seed=0)
    assert [env.step("nonsense")[1], act(env, "nonsense")[1]] == [-0.25, 0.0]


def hostile_command(rng, labels):
    """A label of some page, or anything, in something like the grammar."""
    kind = rng.random()
    text = "".join(rng.choices(string.printable + "éß\u2028\ud800\0İ[]<>$", k=rng.randrange(30)))
    label = rng.choice(labels)
    if kind < 0.5:
        return f"click[{label if kind < 0.4 else text}]"
    if kind < 0.75:
        return f"search[{rng.choice(('<r>', '<a>', '<c>', '<q>', text, label))} {rng.choice((text, label, ''))}]"
    return rng.choice((text, f"{label}[{text}]", f"click[{text}[{label}]]", f"search[]{text}", "search[ ]", "click[]"))


def test_hostile_actions_never_crash():
    env, rng = make(context="append", max_steps=200), random.Random(0)
    labels = [
        "back to search",
        "next >",
        "< prev",
        "description",
        "features",
        "reviews",
        "search",
        "__class__",
        "../..",
    ]
    env.reset(seed=0)
    pages, invalid = set(), 0
    for step in range(10_000):
        known = [action[6:-1] for action in env._admissible_actions() if action.startswith("click")] or labels
        _, _, terminated, truncated, info = act(env, hostile_command(rng, rng.choice((labels, known))))
        pages.add(env.get_state()["task"]["session"]["page"])
        invalid += info["invalid_action"] is not None
        if terminated or truncated:
            env.reset(seed=step)
    assert pages == {"index", "results", "item", "description", "features", "reviews", "done"}
    assert 1000 < invalid < 9000


def test_a_snapshot_of_every_page_has_the_same_future():
    for goals in ("human", "synthetic"):
        env, other = make(goals=goals, context="append"), make(goals=goals, context="append")
        env.reset(seed=5)
        other.reset(seed=9)
        commands = ["search[<r>]", "click[next >]", "click[< prev]"]
        over = False
        while not over:
            response = format_tag("action", commands.pop(0)) if commands else env.expert_response()
            other.set_state(json.loads(json.dumps(env.get_state())))
            assert other.expert_response() == env.expert_response()
            result = env.step(response)
            assert other.step(response) == result
            over = result[2] or result[3]
        other.set_state(json.loads(json.dumps(env.get_state())))
        assert (other.get_state(), other._info(None)) == (env.get_state(), result[4])


def test_a_search_for_half_a_character_can_be_gone_back_to():
    env = make()
    env.reset(seed=0)
    env.step("<action>search[yellow \ud800 cardigan]</action>")
    state = json.loads(json.dumps(env.get_state()))
    assert state["task"]["session"]["keywords"] == "yellow ? cardigan"
    following = env.step("<action>click[next >]</action>")
    env.set_state(state)
    assert env.step("<action>click[next >]</action>") == following


def test_random_products_differ_from_search_to_search_and_not_from_run_to_run():
    def found(seed):
        env = make()
        env.reset(seed=seed, options={"task_id": env.task_ids[0]})
        results = []
        for command in ("search[<r>]", "search[<r>]", "click[next >]"):
            act(env, command)
            results.append(tuple(env.get_state()["task"]["session"]["results"]))
        return results

    assert len(set(found(0))) == 3
    assert found(0) == found(0) != found(1)


def test_state_keys_are_of_task_page_results_and_choices():
    env = make()
    first, second = env.task_ids[:2]

    def key(task_id, *commands):
        *_, info = env.reset(seed=0, options={"task_id": task_id})
        for command in commands:
            *_, info = act(env, command)
        return info["state_key"]

    assert key(first, "search[slim fit hoodie]") == key(first, "nonsense", "search[hoodie fit slim]")
    keys = [key(first), key(second), key(first, "search[lamp]"), key(first, "search[hoodie]")]
    keys += [key(first, "search[lamp]", "click[next >]")]
    assert len(set(keys)) == len(keys)


def test_pages_of_results_can_be_shorter():
    env = make(results_per_page=3)
    _, info = env.reset(seed=0)
    *_, info = act(env, info["admissible_actions"][0])
    assert len(info["admissible_actions"]) == 2 + 3
    *_, info = act(env, "click[next >]", "click[back to search]", "search[lamp]")
    assert len(info["admissible_actions"]) == 2 + 3
    assert all(play(env, task_id, expert)[1]["success"] for task_id in env.task_ids[:20])


def test_goals_can_be_split_as_in_published_work():
    numbers = {split: list(make(split=split, split_rule="first-500").task_ids.numbers) for split in ("test", "train")}
    assert (numbers["test"], numbers["train"]) == (list(range(500)), list(range(500, 1000)))
    # With a thousand goals the official rule leaves nothing to train on.
    with pytest.raises(ValueError, match="no human goals in the split 'train'"):
        make(split_rule="official")


def test_environments_of_a_process_share_one_shop():
    assert make().shop is make(split="test", goals="synthetic").shop


def test_a_snapshot_of_another_shop_is_refused_though_its_task_has_the_same_id(tmp_path):
    write_files(tmp_path, generate_files(60, seed=3))
    env, here = make(), make(data=tmp_path)
    task_id = next(task_id for task_id in here.task_ids if env.has_task(task_id))
    for other, said in ((here, "the instruction '.*' in this shop"), (make(results_per_page=3), "10 results per page")):
        other.reset(seed=0, options={"task_id": task_id})
        with pytest.raises(DataError, match=f"expected {said}, found"):
            env.set_state(other.get_state())


@pytest.mark.data
def test_the_expert_gets_as_far_as_the_wanted_real_products_go(shared_data):
    env = make(data=shared_data / "webshop" / "items_shuffle_100.json", goals="synthetic")
    infos = [play(env, task_id, expert)[1] for task_id in env.task_ids[:: len(env.task_ids) // 20]]
    assert len(infos) >= 20
    assert mean(info["success"] for info in infos) >= 0.9
    assert mean(info["metrics"]["task_score"] for info in infos) >= 0.98


@pytest.mark.parametrize("goals", ["human", "synthetic"])
def test_official_files_are_played(tmp_path, goals):
    write_files(tmp_path, generate_files(60, seed=3))
    env = make(data=tmp_path, goals=goals, split="test")
    assert len(env.task_ids) > 0
    assert mean(play(env, task_id, expert)[1]["success"] for task_id in env.task_ids[:20]) == 1


def test_task_ids():
    ids = TaskIds("human", [3, 5, 17])
    assert list(ids) == ["human/3", "human/5", "human/17"]
    assert (ids[-1], ids[1:]) == ("human/17", ["human/5", "human/17"])
    assert [text in ids for text in ("human/5", "human/17")] == [True, True]
    wrong = ["human/4", "human/05", "human/", "synthetic/5", "human/5 ", "human/\u0665", "human/" + "9" * 5000, 5, None]
    assert not any(text in ids for text in wrong)
    with pytest.raises(UnknownTaskError, match="human/x"):
        make().reset(options={"task_id": "human/x"})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"split": "dev"}, "split must be one of 'train', 'validation', 'test', got 'dev'"),
        ({"protocol": "react"}, "protocol must be one of"),
        ({"goals": "robot"}, "goals must be one of 'human', 'synthetic', got 'robot'"),
        ({"split_rule": "last"}, "split_rule must be one of None, 'official', 'first-500', got 'last'"),
        ({"observation_mode": "html"}, "observation_mode must be one of 'text', 'text_rich', got 'html'"),
        ({"nouns": "nltk"}, "nouns must be one of 'auto', 'spacy', 'words', got 'nltk'"),
        ({"expert": "oracle"}, "expert must be one of 'careful', 'clumsy', 'hasty', 'heedless', got 'oracle'"),
        ({"invalid_action_reward": 0.5}, "must be 0 or negative, got 0.5"),
        ({"invalid_action_reward": float("nan")}, "must be 0 or negative, got nan"),
        ({"results_per_page": 0}, "results_per_page must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
    ],
)
def test_arguments_are_checked(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make(**kwargs)


@pytest.mark.parametrize("context", ["rebuilt", "append"])
def test_what_is_rendered_begins_with_the_instruction(context):
    env = make(context=context, render_mode="ansi")
    assert env.render() == ""
    env.reset(seed=0)
    env.step("<action>search[hoodie]</action>")
    shown = env.render()
    assert shown.count(env.goal.instruction) == 1
    assert shown.index(env.goal.instruction) < shown.index("> search[hoodie]")
    env.set_state(env.get_state())
    assert env.render() == shown
