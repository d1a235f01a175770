"""Whatever an environment hands back is checked once, and what is wrong costs the episode and not the run."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from steppo_gym.envs.key_door.env import KeyDoorEnv
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.env_host import EnvFactory, EnvHost, ResetCommand, StepCommand
from steppo_gym.rollouts.policies import ExpertPolicy, ScriptedPolicy
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.rollouts.step_result import read_answer
from steppo_gym.transition import Transition

CODEC = ByteCodec()
INFO = {
    "task_id": "t",
    "state_key": "s",
    "admissible_actions": ("a",),
    "invalid_action": None,
    "success": False,
    "metrics": {"score": 0.5},
}
GOOD = {"observation": "o", "reward": 0.0, "terminated": False, "truncated": False, "info": INFO}


def answer(**changes):
    return read_answer(**(GOOD | changes))


class Unprintable:
    def __repr__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation": None}, "The observation must be a string, found NoneType None"),
        ({"observation": 7}, "The observation must be a string, found int 7"),
        ({"observation": b"text"}, "The observation must be a string, found bytes b'text'"),
        ({"observation": Unprintable()}, "must be a string, found Unprintable whose repr raises"),
        ({"observation": ["x" * 10_000]}, r"found list \['x{98}\.$"),
        ({"observation": "a\ud800b"}, r"can be written as UTF-8, found '\\ud800' at position 1"),
        ({"reward": None}, "The reward must be a number, found NoneType"),
        ({"reward": "1"}, "The reward must be a number, found str '1'"),
        ({"reward": 1j}, "The reward must be a number, found complex"),
        ({"reward": np.zeros(2)}, "The reward must be a number, found ndarray"),
        ({"reward": float("nan")}, "reward must be finite, got nan"),
        ({"reward": -float("inf")}, "reward must be finite, got -inf"),
        ({"reward": np.float32("inf")}, "reward must be finite, got inf"),
        ({"reward": 10**400}, "reward must be finite, got inf"),
        ({"terminated": 1}, "terminated must be a bool, found int 1"),
        ({"truncated": None}, "truncated must be a bool, found NoneType"),
        ({"terminated": True, "truncated": True}, "either terminated or truncated, this one is both"),
        ({"info": None}, "info must be a dict, found NoneType"),
        ({"info": {}}, "info must have the keys task_id, .*; task_id, state_key, .* not found"),
        ({"info": {k: v for k, v in INFO.items() if k != "success"}}, "; success not found"),
        ({"info": INFO | {"task_id": 3}}, r"info\['task_id'\] must be a string"),
        ({"info": INFO | {"state_key": ("s",)}}, r"info\['state_key'\] must be a string, found tuple"),
        ({"info": INFO | {"state_key": "\udfff"}}, r"info\['state_key'\] must be text"),
        ({"info": INFO | {"admissible_actions": "look"}}, "must be a tuple or None, found str"),
        ({"info": INFO | {"admissible_actions": ("look", 1)}}, "An admissible action must be a string, found int"),
        ({"info": INFO | {"invalid_action": False}}, r"info\['invalid_action'\] must be a string, found bool"),
        ({"info": INFO | {"success": 1.0}}, r"info\['success'\] must be a bool, found float"),
        ({"info": INFO | {"metrics": None}}, r"info\['metrics'\] must be a dict"),
        ({"info": INFO | {"metrics": {"score": float("nan")}}}, "The metric 'score' must be finite, got nan"),
        ({"info": INFO | {"metrics": {"score": None}}}, "The metric 'score' must be a number"),
        ({"info": INFO | {"metrics": {1: 0.0}}}, "The name of a metric must be a string, found int"),
    ],
)
def test_what_no_rollout_can_use_is_named(changes, message):
    with pytest.raises((TypeError, ValueError), match=message):
        answer(**changes)


def test_numpy_scalars_become_plain_values():
    info = INFO | {
        "success": np.True_,
        "metrics": {"score": np.float64(0.25), "number": np.int64(3)},
        "admissible_actions": ["a", "b"],
    }
    result = answer(
        observation=np.str_("o"), reward=np.float32(0.5), terminated=np.True_, truncated=np.False_, info=info
    )
    assert (result.reward, result.terminated, result.truncated, result.success) == (0.5, True, False, True)
    assert [type(value) for value in (result.reward, result.terminated, result.success)] == [float, bool, bool]
    assert result.metrics == {"score": 0.25, "number": 3.0}
    assert {type(value) for value in result.metrics.values()} == {float}
    assert result.admissible_actions == ("a", "b")
    assert answer(reward=1).reward == 1.0


class MuteError(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class Misbehaves(KeyDoorEnv):
    """Hands back something wrong at the second step of every task whose number is even."""

    def __init__(self, *, fault="none", **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    @property
    def is_due(self):
        return self.num_steps == 1 and int(self.task_id.partition("-")[2]) % 2 == 0

    def expert_response(self):
        return 7 if self.fault == "expert" and self.is_due else super().expert_response()

    def _apply(self, response):
        if self.is_due:
            if self.fault == "mute":
                raise MuteError
            if self.fault == "exit":
                raise SystemExit(3)
            if self.fault == "transition":
                return None
            if self.fault == "no reward":
                return Transition("x", "x", None)
        return super()._apply(response)

    def step(self, action):
        due = self.is_due
        observation, reward, terminated, truncated, info = super().step(action)
        if due:
            bad = {"observation": None, "bytes": b"x", "surrogate": "\ud800"}
            observation = bad.get(self.fault, observation)
            reward = float("nan") if self.fault == "reward" else reward
            terminated = truncated = self.fault == "both"
            if self.fault == "short":
                return observation, reward
            if self.fault == "info":
                info = {}
        return observation, reward, terminated, truncated, info


gymnasium.register("steppo-test/Misbehaves-v0", entry_point=Misbehaves)
FAULTS = {
    "observation": "TypeError: The observation must be a string, found NoneType",
    "bytes": "TypeError: The observation must be a string, found bytes",
    "surrogate": "ValueError: The observation must be text",
    "reward": "ValueError: The reward must be finite, got nan",
    "no reward": "TypeError: float() argument",
    "transition": "TypeError: Misbehaves._apply must return a steppo_gym.Transition",
    "both": "ValueError: An episode is either terminated or truncated",
    "info": "ValueError: info must have the keys",
    "short": "TypeError: step must return observation, reward, terminated, truncated, info; found 2 values",
    "mute": "MuteError: an error whose text cannot be shown (in _apply,",
    "exit": "SystemExit: 3",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_answer_costs_its_episode(fault):
    assignments = [Assignment(f"train-{number}", seed=0) for number in range(6)]
    with EnvPool(EnvFactory("steppo-test/Misbehaves-v0", {"fault": fault}), num_slots=2) as pool:
        episodes = collect(ScriptedPolicy(["look"], CODEC), pool, CODEC, assignments).episodes
    assert [episode.ended for episode in episodes] == ["failed", "truncated"] * 3
    assert {episode.failure.boundary for episode in episodes[::2]} == {"environment"}
    assert all(episode.failure.message.startswith(FAULTS[fault]) for episode in episodes[::2])
    assert all(episode.num_steps == 1 for episode in episodes[::2])


def test_a_bad_response_of_the_expert_costs_its_episode():
    assignments = [Assignment(f"train-{number}", seed=0) for number in range(4)]
    with EnvPool(EnvFactory("steppo-test/Misbehaves-v0", {"fault": "expert"}), num_slots=2) as pool:
        episodes = collect(ExpertPolicy(CODEC), pool, CODEC, assignments).episodes
    assert [episode.ended for episode in episodes] == ["failed", "terminated"] * 2
    assert "The expert's response must be a string, found int 7" in episodes[0].failure.message


def test_an_environment_that_answered_wrongly_is_made_anew():
    host = EnvHost(EnvFactory("steppo-test/Misbehaves-v0", {"fault": "reward"}))
    host.run(ResetCommand(0, "train-0", 0))
    host.run(StepCommand(0, "look"))
    before = host._envs[0]
    assert host.run(StepCommand(0, "look")).boundary == "environment"
    host.run(ResetCommand(0, "train-1", 0))
    assert host._envs[0] is not before
    host.close()


def test_a_system_prompt_that_no_tokenizer_takes_ends_the_run_at_its_start():
    class Surrogate(KeyDoorEnv):
        system_prompt = "\ud800"

    gymnasium.register("steppo-test/Surrogate-v0", entry_point=Surrogate)
    with pytest.raises(ValueError, match="The system prompt must be text that can be written as UTF-8"):
        EnvPool(EnvFactory("steppo-test/Surrogate-v0"), num_slots=1)


class Tools(KeyDoorEnv):
    tools = None


class Doubles(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


gymnasium.register("steppo-test/Tools-v0", entry_point=Tools)
gymnasium.register("steppo-test/Wrapped-v0", entry_point=lambda **kwargs: Doubles(KeyDoorEnv(**kwargs)))
gymnasium.register("steppo-test/Limited-v0", entry_point=KeyDoorEnv, max_episode_steps=2)


def test_tools_are_looked_at_before_anything_is_played():
    with pytest.raises(TypeError, match="tools must be a list of JSON schemas, found NoneType None"):
        EnvHost(EnvFactory("steppo-test/Tools-v0")).describe()


@pytest.mark.parametrize(
    ("spec", "wrapper"),
    [
        (EnvFactory("steppo-test/Wrapped-v0"), "Doubles"),
        (EnvFactory("steppo-test/Limited-v0"), "TimeLimit"),
        (EnvFactory("steppo/KeyDoor-v0", {"max_episode_steps": 3}), "TimeLimit"),
    ],
)
def test_a_wrapper_that_would_be_left_out_is_refused(spec, wrapper):
    with pytest.raises(TypeError, match=f"is wrapped in {wrapper}, which rollouts would leave out"):
        spec.make()
