import collections
import dataclasses
import itertools
import json
import re
import textwrap

import gymnasium
import numpy as np
import pytest

import steppo_gym
from steppo_gym.actions import Invalid, format_tag, format_tool_call
from steppo_gym.envs.key_door.actions import (
    COLOURS,
    CONTAINERS,
    OpenContainer,
    OpenDoor,
    ReadNote,
    TakeKey,
    action_text,
    parse_action,
)
from steppo_gym.envs.key_door.env import KeyDoorEnv
from steppo_gym.envs.key_door.game import (
    READS_AGAIN,
    State,
    apply_action,
    expert_action,
    first_state,
    possible_actions,
)
from steppo_gym.envs.key_door.generate import SPLIT_SIZES, generate_task, split_of, task_ids

ALL_ACTIONS = [
    ReadNote(),
    *map(OpenContainer, CONTAINERS),
    *map(TakeKey, COLOURS),
    *map(OpenDoor, COLOURS),
]
TASKS = {split: [generate_task(task_id) for task_id in task_ids(split)] for split in SPLIT_SIZES}


def triples(split):
    return {(task.door, task.key, task.container) for task in TASKS[split]}


def reachable(task):
    """All states, by breadth-first search over every action there is."""
    states, waiting = {first_state(task)}, [first_state(task)]
    while waiting:
        state = waiting.pop()
        if state.outcome != "playing":
            continue
        for action in ALL_ACTIONS:
            after = apply_action(task, state, action).state
            if after not in states:
                states.add(after)
                waiting.append(after)
    return states


def fewest_actions(task, state):
    """Length of a shortest way to the open door."""
    layer, known, length = {state}, {state}, 0
    while not any(state.outcome == "opened" for state in layer):
        playing = [state for state in layer if state.outcome == "playing"]
        layer = {apply_action(task, state, action).state for state in playing for action in ALL_ACTIONS} - known
        known |= layer
        length += 1
    return length


def expert_length(task, state):
    for length in itertools.count():
        if state.outcome != "playing":
            assert state.outcome == "opened"
            return length
        state = apply_action(task, state, expert_action(task, state)).state


def play(env, task_id, choose):
    observation, info = env.reset(options={"task_id": task_id})
    texts, over = [observation], False
    while not over:
        observation, _, terminated, truncated, info = env.step(choose(env.unwrapped, info))
        texts.append(observation)
        over = terminated or truncated
    return texts, info


def test_all_tasks_differ():
    every = [task for tasks in TASKS.values() for task in tasks]
    assert len(set(every)) == len(every) == 1400


def test_no_triple_is_in_two_splits_but_every_pair_is_in_training():
    for one, other in itertools.combinations(SPLIT_SIZES, 2):
        assert not triples(one) & triples(other)
    for first, second in itertools.combinations(range(3), 2):
        pairs = {split: {(triple[first], triple[second]) for triple in triples(split)} for split in SPLIT_SIZES}
        assert pairs["validation"] | pairs["test"] <= pairs["train"]


def test_split_of_agrees_with_the_tasks():
    for split in SPLIT_SIZES:
        assert {split_of(*triple) for triple in triples(split)} == {split}


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_tasks_are_well_formed(split):
    for task in TASKS[split]:
        keys = [key for key in task.contents if key is not None]
        assert len(set(task.containers)) == 4 == len(task.contents)
        assert len(set(keys)) == 3 == len(keys)
        assert len(set(task.doors)) == 3
        assert task.door in task.doors
        assert task.contents[task.containers.index(task.container)] == task.key != task.door
        # The lure: a key in the colour of the door lies somewhere.
        assert task.door in keys
        if task.lock_key is not None:
            assert task.lock_container is not None
            assert task.contents[task.containers.index(task.lock_container)] == task.lock_key


@pytest.mark.parametrize("split", SPLIT_SIZES)
def test_expert_solves_every_task(split):
    lengths = collections.Counter(expert_length(task, first_state(task)) for task in TASKS[split])
    assert lengths == {4: SPLIT_SIZES[split] // 2, 6: SPLIT_SIZES[split] // 2}


@pytest.mark.parametrize("task_id", ["train-0", "train-1", "test-8", "test-9"])
def test_rules_hold_in_every_reachable_state(task_id):
    task = generate_task(task_id)
    states = reachable(task)
    assert len(states) > 150
    for state in states:
        held = [state.held] if state.held else []
        # No key is ever lost or doubled.
        assert sorted(held + [key for key in state.contents if key]) == sorted(key for key in task.contents if key)
        # What is listed is exactly what changes something.
        changing = {action for action in ALL_ACTIONS if apply_action(task, state, action).state != state}
        assert set(possible_actions(task, state)) == (changing if state.outcome == "playing" else set())


@pytest.mark.parametrize("task_id", ["train-0", "train-1"])
def test_expert_takes_the_shortest_way_once_it_has_read_the_note(task_id):
    task = generate_task(task_id)
    states = [state for state in reachable(task) if state.outcome == "playing" and state.note_read]
    chosen = np.random.default_rng(0).permutation(len(states))[:60]
    ordered = sorted(states, key=repr)
    for state in (ordered[i] for i in chosen):
        assert expert_length(task, state) == fewest_actions(task, state)


@pytest.mark.parametrize("action_format", ["tag", "tool_call"])
def test_the_hasty_expert_reads_the_note_where_it_should_take_a_key(action_format):
    env = KeyDoorEnv(expert="hasty", action_format=action_format)
    faults = {True: 0, False: 0}
    for task_id in env.task_ids[:200]:
        env.reset(options={"task_id": task_id})
        over = False
        while not over:
            wanted = expert_action(env._task, env._state)
            response = env.expert_response()
            found = parse_action(response, action_format)
            if isinstance(wanted, TakeKey):
                assert found in (wanted, ReadNote())
                faults[found != wanted] += 1
            else:
                assert found == wanted
            _, _, terminated, truncated, info = env.step(response)
            assert info["invalid_action"] is None
            over = terminated or truncated
    assert faults[True] / sum(faults.values()) == pytest.approx(READS_AGAIN, abs=0.03)


def test_the_hasty_expert_runs_out_of_steps_in_many_tasks_and_into_no_other_harm():
    played = {expert: [] for expert in ("expert", "hasty")}
    for expert, infos in played.items():
        env = gymnasium.make("steppo/KeyDoor-v0", expert=expert, split="validation")
        infos += [play(env, task_id, lambda env, _: env.expert_response())[1] for task_id in env.unwrapped.task_ids]
    solved = {expert: np.mean([info["success"] for info in infos]) for expert, infos in played.items()}
    assert solved["expert"] == 1.0
    assert 0.3 < solved["hasty"] < 0.7
    assert not any(info["metrics"]["broken"] for info in played["hasty"])


def test_the_hasty_expert_is_the_same_in_every_episode_of_a_task_and_after_a_restart():
    def responses(env, over=False):
        written = []
        while not over:
            written.append(env.expert_response())
            over = any(env.step(written[-1])[2:4])
        return written

    env, other = KeyDoorEnv(expert="hasty"), KeyDoorEnv(expert="hasty")
    differing = set()
    for task_id in env.task_ids[:20]:
        env.reset(seed=1, options={"task_id": task_id})
        for _ in range(3):
            env.step(env.expert_response())
        snapshot = json.loads(json.dumps(env.get_state()))
        rest = responses(env)
        other.set_state(snapshot)
        assert responses(other) == rest
        for seed in (2, 3):
            other.reset(seed=seed, options={"task_id": task_id})
            assert responses(other)[3:] == rest
        differing.add(tuple(rest))
    assert len(differing) > 10


def test_state_key_is_one_to_one_with_the_state():
    env = KeyDoorEnv()
    env.reset(options={"task_id": "train-1"})
    keys = set()
    states = reachable(generate_task("train-1"))
    for state in states:
        task = json.loads(json.dumps(dataclasses.asdict(state)))
        env.set_state(env.get_state() | {"task": task, "over": state.outcome != "playing"})
        assert env._state == state
        keys.add(env._info(None)["state_key"])
    assert len(keys) == len(states)


def test_random_play_hardly_ever_wins():
    env, rng = gymnasium.make("steppo/KeyDoor-v0", split="validation"), np.random.default_rng(0)

    def choose(env, info):
        return format_tag("action", str(rng.choice(info["admissible_actions"])))

    wins = [play(env, task_id, choose)[1]["success"] for task_id in env.unwrapped.task_ids for _ in range(3)]
    assert 0 < np.mean(wins) < 0.10


@pytest.mark.parametrize("context", ["rebuilt", "append"])
def test_vocabulary_is_small(context):
    env, rng = gymnasium.make("steppo/KeyDoor-v0", context=context), np.random.default_rng(0)
    words, longest = set(re.findall(r"\w+|[^\w\s]", env.unwrapped.system_prompt)), 0
    responses = ["dance", *map(action_text, ALL_ACTIONS)]

    def choose(env, info):
        return format_tag("action", str(rng.choice([*info["admissible_actions"], *responses])))

    for task_id in env.unwrapped.task_ids[:300]:
        for text in play(env, task_id, choose)[0]:
            found = re.findall(r"\w+|[^\w\s]", text)
            words |= set(found)
            longest = max(longest, len(found))
    assert len(words) < 120
    assert longest < (200 if context == "rebuilt" else 40)


def test_text_of_an_action_reads_back():
    for action in ALL_ACTIONS:
        assert parse_action(format_tag("action", action_text(action)), "tag") == action
        call = format_tool_call("action", {"action": action_text(action)})
        assert parse_action(f"<think>so</think>{call}", "tool_call") == action


@pytest.mark.parametrize(
    ("text", "action"),
    [
        ("Open  the\tRED door", OpenDoor("red")),
        ("take THE gold key", TakeKey("gold")),
        ("open the bin", OpenContainer("bin")),
        ("read the note", ReadNote()),
    ],
)
def test_case_blanks_and_articles_do_not_matter(text, action):
    assert parse_action(format_tag("action", text), "tag") == action


@pytest.mark.parametrize(
    ("response", "action_format", "reason"),
    [
        ("open box", "tag", "exactly one <action>"),
        ("<action>dance</action>", "tag", "Expected one of: read note, open CONTAINER"),
        ("<action>open purple door</action>", "tag", "Expected one of"),
        ("<action>open the the</action>", "tag", "Expected one of"),
        ("<action>open box</action>", "tool_call", "exactly one <tool_call>"),
        (format_tool_call("move", {"action": "open box"}), "tool_call", "Expected a call of action, found 'move'"),
        (format_tool_call("action", {"action": 3}), "tool_call", 'the single argument "action" with a text'),
        (format_tool_call("action", {}), "tool_call", 'the single argument "action" with a text'),
    ],
)
def test_invalid_responses_say_what_was_expected(response, action_format, reason):
    found = parse_action(response, action_format)
    assert isinstance(found, Invalid)
    assert reason in found.reason
    env = KeyDoorEnv(action_format=action_format, context="append")
    env.reset(seed=0)
    observation, reward, terminated, _, info = env.step(response)
    assert (found.reason in observation, reward, terminated) == (True, 0.0, False)
    assert info["invalid_action"] == found.reason


@pytest.mark.parametrize(
    ("key", "door", "outcome"),
    [("right", "right", "opened"), ("right", "wrong", "broken"), ("lure", "right", "broken")],
)
def test_only_the_right_key_in_the_right_door_wins(key, door, outcome):
    task = generate_task("train-0")
    held = task.key if key == "right" else task.door
    colour = task.door if door == "right" else next(door for door in task.doors if door != task.door)
    state = State(contents=(None,) * 4, opened=(True,) * 4, held=held)
    after = apply_action(task, state, OpenDoor(colour)).state
    assert after.outcome == outcome
    assert possible_actions(task, after) == ()


def test_what_is_impossible_changes_nothing_and_is_no_invalid_response():
    env = KeyDoorEnv(context="append")
    _, before = env.reset(options={"task_id": "train-1"})
    task = generate_task("train-1")
    absent = next(name for name in CONTAINERS if name not in task.containers)
    expected = {
        f"open {task.container}": f"The {task.container} is locked.",
        f"open {absent}": f"There is no {absent}.",
        f"take {task.key} key": f"You see no {task.key} key to take.",
        f"open {task.door} door": f"The {task.door} door is locked.",
    }
    for action, feedback in expected.items():
        assert action not in before["admissible_actions"]
        observation, reward, *_, info = env.step(format_tag("action", action))
        assert (observation, reward, info["invalid_action"]) == (feedback, 0.0, None)
        assert info["state_key"] == before["state_key"]


@pytest.mark.parametrize(("protocol", "success", "penalty"), [("steppo", 1.0, 0.0), ("verl-agent", 10.0, -0.1)])
def test_rewards_of_the_protocols(protocol, success, penalty):
    env = KeyDoorEnv(protocol=protocol)
    env.reset(options={"task_id": "train-0"})
    rewards = [env.step("so")[1]]
    while not env._success():
        rewards.append(env.step(env.expert_response())[1])
    assert rewards == [penalty, 0.0, 0.0, 0.0, success]


@pytest.mark.parametrize(("protocol", "shown"), [("steppo", 4), ("verl-agent", 2)])
def test_history_of_the_protocols(protocol, shown):
    env = KeyDoorEnv(protocol=protocol)
    env.reset(options={"task_id": "train-0"})
    for action in ("read note", "open box", "dance", "take red key"):
        observation, *_ = env.step(format_tag("action", action))
    done = ["read note", "open box", "invalid", "take red key"][-shown:]
    assert f"Done: {', '.join(done)}.\n" in observation


def test_metrics_say_how_it_ended():
    env = KeyDoorEnv()
    env.reset(options={"task_id": "train-0"})
    task = generate_task("train-0")
    lure = task.containers[task.contents.index(task.door)]
    for action in (f"open {lure}", f"take {task.door} key", f"open {task.door} door"):
        _, reward, terminated, truncated, info = env.step(format_tag("action", action))
    assert (reward, terminated, truncated, info["success"]) == (0.0, True, False, False)
    assert info["metrics"] == {"success": 0.0, "broken": 1.0, "note_read": 0.0}
    assert info["admissible_actions"] == ()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"split": "dev"},
            steppo_gym.UnknownTaskError,
            "split must be one of 'train', 'validation', 'test', got 'dev'",
        ),
        ({"data": "games"}, ValueError, "data must be None, got 'games'"),
        ({"protocol": "ppo"}, ValueError, "protocol must be one of 'steppo', 'verl-agent', got 'ppo'"),
        ({"expert": "slow"}, ValueError, "expert must be one of 'expert', 'hasty', got 'slow'"),
        ({"max_steps": 0}, ValueError, "max_steps must be at least 1, got 0"),
        ({"action_format": "json"}, ValueError, "action_format must be one of"),
        ({"context": "all"}, ValueError, "context must be one of"),
        ({"render_mode": "human"}, ValueError, "render_mode must be one of"),
        ({"size": 3}, TypeError, "size"),
    ],
)
def test_arguments_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        KeyDoorEnv(**arguments)


def test_transcript_of_one_task():
    env = gymnasium.make("steppo/KeyDoor-v0", render_mode="ansi")
    play(env, "train-1", lambda env, info: env.expert_response())
    assert env.render() == textwrap.dedent(
        """\
        Goal: open the pink door. You see: note, chest, jar, bin, bag, red door, pink door, white door.
        > read note
        The red key opens the pink door. The red key is in the chest. """
        """The green key opens the chest. The green key is in the jar.
        > open jar
        You open the jar. You see a green key.
        > take green key
        You take the green key.
        > open chest
        You open the chest. You see a red key.
        > take red key
        You take the red key. You leave the green key in the chest.
        > open pink door
        You open the pink door. You win."""
    )


def test_rebuilt_observation_of_one_state():
    env = KeyDoorEnv()
    env.reset(options={"task_id": "train-1"})
    for action in ("open jar", "dance", "take green key"):
        observation, *_ = env.step(format_tag("action", action))
    assert observation == textwrap.dedent(
        """\
        Goal: open the pink door.
        Note: not read.
        Containers: chest closed, jar empty, bin closed, bag closed.
        Doors: red, pink, white.
        You hold: green key.
        Done: open jar, invalid, take green key.
        Result: You take the green key.
        You can: read note, open chest, open bin, open bag, open red door, open pink door, open white door."""
    )
