"""The base of all environments: what it asks of a task, what it does without being asked, and Gymnasium's wrappers."""

from __future__ import annotations

import functools
import json
import pickle
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import (
    DelayObservation,
    FrameStackObservation,
    RecordEpisodeStatistics,
    TimeAwareObservation,
)

import steppo_gym
from steppo_gym import EnvProtocol, Invalid, TextEnv, Transition
from steppo_gym.actions import format_text, parse_text
from steppo_gym.envs.key_door.env import KeyDoorEnv
from steppo_gym.snapshot import restored
from steppo_gym.testing import check_text_env

INVALID = "I do not know."
SMALL = {"steppo/ALFWorld-v0": {"difficulty": "easy"}}


class CountEnv(TextEnv):
    """Count to the number of the task, with the required members alone and an expert."""

    task_ids = ("2", "3", "4")

    def __init__(self, **common):
        super().__init__(EnvProtocol(max_steps=6), **common)

    @property
    def system_prompt(self):
        return "Count."

    def _start(self, task_id):
        self.count = 0
        return f"Count to {task_id}."

    def _apply(self, response):
        said = parse_text(response, self.action_format)
        if said != str(self.count + 1):
            reason = said.reason if isinstance(said, Invalid) else f"Expected {self.count + 1}."
            return Transition(reason, "nothing", invalid_action=reason)
        self.count += 1
        done = self.count == int(self.task_id)
        return Transition(f"{self.count} it is.", said, float(done), terminated=done, success=done or None)

    def _get_task_state(self):
        return self.count

    def _set_task_state(self, state):
        self.count = restored(state, int)

    def expert_response(self):
        return format_text(str(self.count + 1), self.action_format)


def make(env_id, **kwargs):
    return gymnasium.make(env_id, **SMALL.get(env_id, {}), **kwargs)


def episode(env, response=INVALID):
    """The results of all steps of an episode of one response, or of the expert's."""
    env.reset(seed=0)
    results = []
    while not results or not (results[-1][2] or results[-1][3]):
        results.append(env.step(response or env.unwrapped.expert_response()))
    return results


def test_all_that_is_missing_is_named_when_an_environment_is_made():
    class Half(TextEnv):
        def _start(self, task_id):
            return ""

    with pytest.raises(TypeError, match="_apply, _get_task_state, _set_task_state, system_prompt"):
        Half(EnvProtocol(max_steps=3))  # type: ignore[abstract]


def test_the_required_members_are_enough_to_keep_the_contract():
    check_text_env(CountEnv)
    assert TextEnv.__abstractmethods__ == {
        "system_prompt", "_start", "_apply", "_get_task_state", "_set_task_state"
    }  # fmt: skip


def test_task_ids_that_are_no_texts_are_named():
    class Numbered(CountEnv):
        def __init__(self):
            TextEnv.__init__(self, EnvProtocol(max_steps=6))
            self.task_ids = range(3)  # type: ignore[assignment]

    for options in (None, {"task_id": 2}, {"task_id": "2"}):
        with pytest.raises(TypeError, match="Numbered must have texts as task_ids, found 0"):
            Numbered().reset(options=options)


def test_what_an_environment_does_without_being_asked():
    env = CountEnv()
    _, info = env.reset(options={"task_id": "3"})
    key, others = info["state_key"], [info[name] for name in ("admissible_actions", "success", "metrics")]
    assert others == [None, False, {}]
    assert env.step("<action>one</action>")[0] == "Count to 3.\n> nothing\nExpected 1."
    assert env._info(None)["state_key"] == key
    observation, *_, info = env.step("<action>1</action>")
    assert observation == "Count to 3.\n> nothing\nExpected 1.\n> 1\n1 it is."
    assert info["state_key"] != key
    env.set_state(json.loads(json.dumps(env.get_state())))
    assert env.step("<action>2</action>")[4]["success"] is False
    assert env.step("<action>3</action>")[4]["success"] is True
    other = CountEnv()
    other.set_state(env.get_state())
    assert other._info(None)["success"] is True
    assert env.reset(options={"task_id": "3"})[1]["success"] is False


def test_the_history_of_a_rebuilt_prompt_is_as_long_as_the_protocol_says():
    class Short(CountEnv):
        def __init__(self):
            TextEnv.__init__(self, EnvProtocol(max_steps=6, history_length=1))

    env = Short()
    env.reset(options={"task_id": "4"})
    env.step("<action>1</action>")
    assert env.step("<action>2</action>")[0] == "1 it is.\n> 2\n2 it is."
    assert CountEnv(context="append").reset(options={"task_id": "4"})[0] == "Count to 4."


def test_success_stays_as_it_is_until_a_transition_says_otherwise():
    class Early(CountEnv):
        def _apply(self, response):
            return {
                "yes": Transition("", "", success=True), "no": Transition("", "", success=False)
            }.get(response) or super()._apply(response)  # fmt: skip

    env = Early()
    env.reset(options={"task_id": "4"})
    found = [env.step(response)[4]["success"] for response in ("hm", "yes", "hm", "no", "hm")]
    assert found == [False, True, True, False, False]


def test_a_snapshot_can_be_written_where_steps_have_booleans_of_numpy():
    class Numpy(CountEnv):
        def _apply(self, response):
            done = np.bool_(response == "done")
            return Transition("", "", np.float32(done), terminated=done, success=done)

    env = Numpy()
    env.reset(seed=0)
    for response, over in (("go on", False), ("done", True)):
        env.step(response)
        state = json.loads(json.dumps(env.get_state()))
        assert state["over"] is over and state["success"] is over
        Numpy().set_state(state)


def test_an_environment_without_an_expert_says_so():
    class Alone(CountEnv):
        expert_response = TextEnv.expert_response

    with pytest.raises(NotImplementedError, match="Alone has no expert"):
        Alone().expert_response()
    with pytest.raises(ValueError, match="expert must be one of None, got 'wise'"):
        CountEnv(expert="wise")


@pytest.mark.parametrize("env_id", steppo_gym.registered_ids())
def test_the_first_expert_is_the_default(env_id):
    env = make(env_id).unwrapped
    with pytest.raises(ValueError, match=f"expert must be one of '{env.expert}', 'h?.*', got 'wise'"):
        make(env_id, expert="wise")
    env.close()


@pytest.mark.parametrize("env_id", steppo_gym.registered_ids())
def test_an_unknown_keyword_is_told_the_known_ones(env_id):
    common = "action_format, .*context, .*expert, .*invalid_action_reward, .*max_steps, .*render_mode, .*split"
    with pytest.raises(TypeError, match=f"unexpected keyword argument 'dificulty'. It takes .*{common}") as raised:
        make(env_id, dificulty="easy")
    assert ("difficulty" in str(raised.value).replace("'dificulty'", "").partition(" was raised")[0]) == (
        env_id == "steppo/ALFWorld-v0"
    )


@pytest.mark.parametrize("env_id", steppo_gym.registered_ids())
def test_protocols_are_overridden(env_id):
    env = make(env_id, max_steps=3, invalid_action_reward=-0.5)
    results = episode(env)
    assert [result[1] for result in results] == [-0.5] * 3
    assert env.unwrapped.protocol.max_steps == 3
    env.close()
    with pytest.raises(ValueError, match="max_steps must be at least 1, got 0"):
        make(env_id, max_steps=0)
    with pytest.raises(ValueError, match="invalid_action_reward must be 0 or negative, got 1"):
        make(env_id, invalid_action_reward=1)


@pytest.mark.parametrize("env_id", steppo_gym.registered_ids())
@pytest.mark.parametrize("change", [0, -2, 7])
def test_wrappers_that_need_the_limit_find_that_of_the_environment(env_id, change):
    own = make(env_id)
    limit = own.unwrapped.max_steps + change
    env = RecordEpisodeStatistics(
        TimeAwareObservation(make(env_id, **({"max_steps": limit} if change else {})), flatten=False)
    )
    assert (env.spec.max_episode_steps, gymnasium.spec(env_id).max_episode_steps) == (limit, None)
    results = episode(env)
    assert [result[0]["time"].item() for result in results] == list(range(1, limit + 1))
    assert all(result[0] in env.observation_space for result in results)
    assert [result[2:4] for result in results] == [(False, False)] * (limit - 1) + [(False, True)]
    assert results[-1][4]["episode"]["l"] == limit
    own.close()
    env.close()


def test_wrappers_that_show_observations_late_or_several_at_once():
    plain = make("steppo/KeyDoor-v0").reset(seed=0)[0]
    late = DelayObservation(make("steppo/KeyDoor-v0"), 1)
    assert late.reset(seed=0)[0] == "" and late.step("x")[0] == plain
    stacked = FrameStackObservation(make("steppo/KeyDoor-v0"), 2, padding_type="zero")
    observation = stacked.reset(seed=0)[0]
    assert observation == ("", plain) and observation in stacked.observation_space


def test_an_end_at_the_last_step_is_no_truncation():
    env = TimeAwareObservation(gymnasium.make("steppo/KeyDoor-v0", max_steps=4), flatten=False)
    env.reset(options={"task_id": "train-0"})
    ends = [env.step(env.unwrapped.expert_response())[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(True, False)]


def test_a_copy_is_made_from_a_spec_that_went_through_json():
    env = gymnasium.make("steppo/KeyDoor-v0", max_steps=4, context="append")
    spec = EnvSpec.from_json(env.spec.to_json())
    assert spec == env.spec
    copy, longer = (gymnasium.make(spec, max_episode_steps=-1, **kwargs) for kwargs in ({}, {"max_steps": 12}))
    assert (copy.spec, longer.spec.max_episode_steps) == (spec, 12)
    assert episode(copy) == episode(env)
    assert len(episode(longer)) == 12


def test_gymnasiums_checker_takes_the_spec_with_its_limit():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make("steppo/KeyDoor-v0", max_steps=4).unwrapped)


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_vector_environments_keep_their_limits(mode):
    kwargs = {"vector_kwargs": {"shared_memory": False, "context": "spawn"}} if mode == "async" else {}
    vector = gymnasium.make_vec("steppo/KeyDoor-v0", 2, vectorization_mode=mode, max_steps=2, **kwargs)
    try:
        vector.reset(seed=0)
        ends = [vector.step((INVALID, INVALID))[3].tolist() for _ in range(2)]
        assert ends == [[False, False], [True, True]]
        assert [spec.max_episode_steps for spec in vector.get_attr("spec")] == [2, 2]
    finally:
        vector.close()


def test_an_environment_goes_on_after_pickling():
    env = gymnasium.make("steppo/KeyDoor-v0", max_steps=5)
    env.reset(seed=0)
    env.step(INVALID)
    other = pickle.loads(pickle.dumps(env))
    assert other.spec == env.spec
    assert other.step("<action>read note</action>") == env.step("<action>read note</action>")


def test_an_environment_made_by_its_class_has_no_spec():
    assert KeyDoorEnv().spec is None
    env = functools.partial(KeyDoorEnv, max_steps=3)()
    env.spec = None
    assert env.spec is None


def test_random_actions_are_short_and_repeat_with_the_seed():
    env, other = (gymnasium.make("steppo/KeyDoor-v0") for _ in range(2))
    for made in (env, other):
        made.action_space.seed(3)
    samples = [env.action_space.sample() for _ in range(50)]
    assert samples == [other.action_space.sample() for _ in range(50)]
    assert max(map(len, samples)) <= 64
    assert "a" * 1_000_000 in env.action_space
