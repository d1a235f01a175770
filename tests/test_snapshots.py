"""Snapshots that were tampered with, or are another environment's, are refused at once or can be played on with."""

from __future__ import annotations

import json
from typing import Any, Literal, TypedDict

import gymnasium
import numpy as np
import pytest
from snapshot_tampering import tampered

import steppo_gym
from steppo_gym.env import TextEnv
from steppo_gym.envs.key_door.game import State
from steppo_gym.errors import DataError, EpisodeOverError, UnknownTaskError
from steppo_gym.snapshot import restored

IDS = steppo_gym.registered_ids()
SMALL = {"steppo/ALFWorld-v0": {"difficulty": "easy"}}
SAMPLE = 250


class Walk(TypedDict):
    position: int
    speed: float
    goal: str | None
    visited: list[tuple[str, bool]]
    mood: Literal["glad", "sad"]
    more: Any


WALK = {"position": 2, "speed": 0.5, "goal": None, "visited": [["hall", True]], "mood": "sad", "more": {}}


def started(env_id, seed=0, steps=2):
    """An environment in the middle of an episode, and its snapshot as a file would give it back."""
    env: Any = gymnasium.make(env_id, **SMALL.get(env_id, {})).unwrapped
    env.reset(seed=seed)
    for step in range(steps):
        env.step(env.expert_response() if step % 2 == 0 else "I do not know.")
    return env, json.loads(json.dumps(env.get_state()))


def is_refused(env, state):
    """Whether `set_state` says no; where it does not, the episode goes on to its end without an error."""
    try:
        env.set_state(state)
    except (DataError, ValueError):
        with pytest.raises(EpisodeOverError):
            env.step("x")
        return True
    over = env.get_state()["over"]
    while not over:
        over = any(env.step(env.expert_response())[2:4])
    return False


@pytest.mark.parametrize("env_id", IDS)
def test_tampered_snapshots_are_refused_at_once(env_id):
    env, state = started(env_id)
    assert not is_refused(env, state)
    cases = list(tampered(state))
    rng = np.random.default_rng(7)
    refused = 0
    for number in rng.permutation(len(cases))[:SAMPLE]:
        what, changed = cases[int(number)]
        try:
            refused += is_refused(env, changed)
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    assert refused > 0.75 * SAMPLE
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_every_part_of_a_snapshot_is_needed_and_no_other(env_id):
    env, state = started(env_id)
    task = state["task"]
    for key in state:
        assert is_refused(env, {name: state[name] for name in state if name != key}), key
    for key in task:
        assert is_refused(env, state | {"task": {name: task[name] for name in task if name != key}}), key
    assert is_refused(env, state | {"another": 1})
    assert is_refused(env, state | {"task": task | {"another": 1}})
    env.close()


def family(env):
    """The class below `TextEnv`: the three environments of questions share theirs."""
    classes = type(env).__mro__
    return classes[classes.index(TextEnv) - 1]


@pytest.mark.parametrize("env_id", IDS)
def test_a_foreign_state_is_refused_or_is_one_of_this_task_too(env_id):
    env, state = started(env_id)
    for other_id in IDS:
        other, foreign = started(other_id, seed=1)
        refused = is_refused(env, state | {"task": foreign["task"]})
        assert refused or family(env) is family(other), other_id
        if other_id != env_id:
            with pytest.raises((UnknownTaskError, DataError)):
                env.set_state(foreign)
        other.close()
    env.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 3}, "expected as many steps as exchanges, found 3 and 2"),
        ({"num_steps": -1}, "expected a count in num_steps, found -1"),
        ({"num_steps": True}, "expected a count in num_steps, found True"),
        ({"history": [["a", "b"], ["c"]]}, r"expected 2 items in history\[1\], found \['c'\]"),
        ({"random": {"bit_generator": "MT19937"}}, "expected the state of a PCG64 generator in random"),
        ({"num_steps": 10, "history": [["a", "b"]] * 10}, "expected an end after 10 steps"),
        ({"task": None}, "expected an object with contents, opened, note_read, held, outcome, found None"),
        ({"random": [1]}, r"expected an object in random, found \[1\]"),
        ({"over": 0}, "expected true or false in over, found 0"),
    ],
)
def test_what_is_wrong_is_said(change, message):
    env, state = started("steppo/KeyDoor-v0")
    with pytest.raises(DataError, match=f"No snapshot of this environment: {message}"):
        env.set_state(state | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contents": ["red"] * 4}, "expected the keys of the task"),
        ({"opened": [True]}, "expected 4 containers"),
        ({"held": 3}, "expected text or nothing in held, found 3"),
        ({"outcome": "lost"}, "expected 'playing' or 'opened' or 'broken' in outcome, found 'lost'"),
    ],
)
def test_key_door_knows_what_cannot_be(change, message):
    env, state = started("steppo/KeyDoor-v0")
    with pytest.raises(DataError, match=message):
        env.set_state(state | {"task": state["task"] | change})


def test_questions_are_not_repeated_more_often_than_asked():
    env, state = started("steppo/HotpotQA-v0")
    search = state["task"]["search"]
    changed = state["task"] | {"search": search | {"repeats": len(search["queries"]) + 1}}
    with pytest.raises(DataError, match="no more repeats than queries, found 2"):
        env.set_state(state | {"task": changed})


@pytest.mark.parametrize("env_id", IDS)
def test_a_snapshot_goes_on_no_more_once_the_task_is_over(env_id):
    env: Any = gymnasium.make(env_id, **SMALL.get(env_id, {}), max_steps=50).unwrapped
    env.reset(seed=0)
    while not env.step(env.expert_response())[2]:
        pass
    state = json.loads(json.dumps(env.get_state()))
    with pytest.raises(DataError, match="expected an end, as the task is over"):
        env.set_state(state | {"over": False})
    env.set_state(state)
    assert json.loads(json.dumps(env.get_state())) == state
    env.close()


def test_what_is_restored_has_the_types_that_were_asked_for():
    assert restored(WALK, Walk) == WALK | {"visited": [("hall", True)]}
    state = {"contents": ["red", None], "opened": [True, False], "note_read": True, "held": None, "outcome": "opened"}
    assert restored(state, State) == State(("red", None), (True, False), True, None, "opened")
    assert restored([1, 2], list[int]) == [1, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"position": 1.0}, "a count in position, found 1.0"),
        ({"position": 2**63}, "a count in position"),
        ({"speed": float("nan")}, "a finite number in speed, found nan"),
        ({"speed": 10**400}, "a finite number in speed"),
        ({"speed": True}, "a finite number in speed, found True"),
        ({"goal": 4}, "text or nothing in goal, found 4"),
        ({"goal": "\ud800"}, "text or nothing in goal"),
        ({"visited": {}}, "a list in visited, found {}"),
        ({"visited": [["hall", 1]]}, r"true or false in visited\[0\]\[1\], found 1"),
        ({"visited": [["hall"]]}, r"2 items in visited\[0\]"),
        ({"mood": "bored"}, "'glad' or 'sad' in mood, found 'bored'"),
        ({"extra": 1}, "exactly position, speed, goal, visited, mood, more, found"),
    ],
)
def test_what_has_another_type_is_not_restored(change, message):
    with pytest.raises(DataError, match=f"expected {message}"):
        restored(WALK | change, Walk)
