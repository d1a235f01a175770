"""Every registered environment keeps the contract, and the checker notices when one does not."""

from __future__ import annotations

import functools

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

import steppo_gym
from steppo_gym.actions import Call, parse_tag
from steppo_gym.env import TextEnv
from steppo_gym.envs.key_door.env import KeyDoorEnv
from steppo_gym.errors import EpisodeOverError
from steppo_gym.testing import ContractError, check_text_env

ARGUMENTS = {"steppo/ALFWorld-v0": {"difficulty": "easy"}}
SEARCH_ENVS = ("steppo/HotpotQA-v0", "steppo/2WikiMultihopQA-v0", "steppo/MuSiQue-v0", "steppo/PaperSearch-v0")


def make_env(env_id, **kwargs):
    return gymnasium.make(env_id, **ARGUMENTS.get(env_id, {}), **kwargs)


@pytest.mark.parametrize("env_id", steppo_gym.registered_ids())
def test_contract(env_id):
    tag = "search" if env_id in SEARCH_ENVS else "action"
    check_text_env(functools.partial(make_env, env_id), tag=tag)


@pytest.mark.parametrize("env_id", steppo_gym.registered_ids())
@pytest.mark.parametrize(
    ("mode", "vector_kwargs"),
    [("sync", {}), ("async", {"shared_memory": False, "context": "spawn"})],
    ids=["sync", "async"],
)
def test_vector(env_id, mode, vector_kwargs):
    arguments = ARGUMENTS.get(env_id, {})
    single = [make_env(env_id) for _ in range(2)]
    vector = gymnasium.make_vec(env_id, num_envs=2, vectorization_mode=mode, vector_kwargs=vector_kwargs, **arguments)
    try:
        observations, infos = vector.reset(seed=[3, 4])
        expected = [env.reset(seed=seed) for env, seed in zip(single, (3, 4), strict=True)]
        assert tuple(observations) == tuple(observation for observation, _ in expected)
        assert list(infos["task_id"]) == [info["task_id"] for _, info in expected]
        responses = tuple(env.unwrapped.expert_response() for env in single)
        observations, rewards, terminated, truncated, infos = vector.step(responses)
        expected = [env.step(response) for env, response in zip(single, responses, strict=True)]
        assert tuple(observations) == tuple(step[0] for step in expected)
        assert list(rewards) == [step[1] for step in expected]
        assert [list(terminated), list(truncated)] == [[step[2] for step in expected], [step[3] for step in expected]]
        assert list(infos["state_key"]) == [step[4]["state_key"] for step in expected]
    finally:
        vector.close()
        for env in single:
            env.close()


class RaisesOnUnknownWords(KeyDoorEnv):
    def _apply(self, response):
        call = parse_tag(response, ("action",))
        if isinstance(call, Call) and call.arguments["text"].split()[0] not in ("read", "take", "open"):
            raise KeyError(call.arguments["text"])
        return super()._apply(response)


class RaisesOnLongResponses(KeyDoorEnv):
    def _apply(self, response):
        if len(response) > 100_000:
            raise MemoryError("response too long")
        return super()._apply(response)


class EchoesResponses(KeyDoorEnv):
    def _observation(self, feedback):
        return f"{super()._observation(feedback)} {self.echo}"

    echo = ""

    def step(self, action):
        self.echo = action
        return super().step(action)


class ForgetsAKeyOfInfo(KeyDoorEnv):
    def _info(self, invalid_action):
        info = super()._info(invalid_action)
        return {key: value for key, value in info.items() if key != "invalid_action" or value is not None}


class IntegerMetrics(KeyDoorEnv):
    def _metrics(self):
        return {"steps": self.num_steps}


class SuccessOfNumpy(KeyDoorEnv):
    def _success(self):
        return np.bool_(super()._success())


class NumbersOfNumpyInItsState(KeyDoorEnv):
    _state_key = TextEnv._state_key

    def _get_task_state(self):
        return {"held": np.int64(1)}


class ToolWithoutRequiredArguments(KeyDoorEnv):
    @property
    def tools(self):
        tool = {"name": "action", "parameters": {"type": "object", "properties": {}}}
        return [{"type": "function", "function": tool}] if self.action_format == "tool_call" else []


class EndsTwice(KeyDoorEnv):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward, terminated, truncated or terminated, info


class OneStepTooMany(KeyDoorEnv):
    def __init__(self, *, max_steps=None, **kwargs):
        super().__init__(max_steps=(max_steps or 10) + 1, **kwargs)
        self.limit, self.max_steps = self.max_steps, self.max_steps - 1

    def step(self, action):
        self.max_steps = self.limit
        try:
            return super().step(action)
        finally:
            self.max_steps = self.limit - 1


class GoesOnAfterTheEnd(KeyDoorEnv):
    def step(self, action):
        try:
            return super().step(action)
        except EpisodeOverError:
            return self._observation(""), 0.0, True, False, self._info(None)


class CountsStepsInTheKey(KeyDoorEnv):
    def _state_key(self):
        return f"{super()._state_key()} {self.num_steps}"


class KeyOfTheHistory(KeyDoorEnv):
    def _state_key(self):
        changed = [step for step, exchange in enumerate(self.history) if exchange.action != "invalid"]
        return f"{super()._state_key()} {changed[-1:]}"


class OneKeyForAll(KeyDoorEnv):
    def _state_key(self):
        return self.task_id


class OneKeyForAllTasks(KeyDoorEnv):
    def _state_key(self):
        return str(self._state.held)


class InvalidActs(KeyDoorEnv):
    def _apply(self, response):
        transition = super()._apply(response)
        if transition.invalid_action is not None:
            super()._apply(self.expert_response())
        return transition


class RewardsInvalid(KeyDoorEnv):
    def step(self, action):
        observation, _, terminated, truncated, info = super().step(action)
        return observation, 0.5, terminated, truncated, info


class OwnRandomness(KeyDoorEnv):
    made = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        OwnRandomness.made += 1
        self.number = OwnRandomness.made

    def _observation(self, feedback):
        return f"{super()._observation(feedback)} You are agent {self.number}."


class HalfASnapshot(KeyDoorEnv):
    def _set_task_state(self, state):
        super()._set_task_state(state | {"held": None, "note_read": False, "opened": [False] * 4})


class SnapshotThatChanges(KeyDoorEnv):
    def get_state(self):
        self.shared = super().get_state()
        return self.shared

    def step(self, action):
        result = super().step(action)
        if hasattr(self, "shared"):
            self.shared["num_steps"] = self.num_steps
        return result

    def set_state(self, state):
        super().set_state(state)
        del self.shared


class ForgetsItsRandomState(KeyDoorEnv):
    def get_state(self):
        return super().get_state() | {"random": KeyDoorEnv().np_random.bit_generator.state}


class ForgetsItsExpert(KeyDoorEnv):
    num_calls = 0

    def expert_response(self):
        self.num_calls += 1
        return super().expert_response() + " " * (self.num_calls % 3)


class CountsItsEpisodes(KeyDoorEnv):
    number = 0

    def _start(self, task_id):
        self.number += 1
        return f"{super()._start(task_id)} This is game {self.number}."


class ListsWhatIsNoAction(KeyDoorEnv):
    def _admissible_actions(self):
        return (*super()._admissible_actions(), "dance")


class ListsNothing(KeyDoorEnv):
    def _admissible_actions(self):
        return ()


class HelplessExpert(KeyDoorEnv):
    def expert_response(self):
        return "<action>read note</action>" if self.action_format == "tag" else "help"


class NoExpert(KeyDoorEnv):
    def expert_response(self):
        raise NotImplementedError


class ContextChangesTheReward(KeyDoorEnv):
    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, reward * (2 if self.context == "append" else 1), terminated, truncated, info


class SwallowsKeywords(KeyDoorEnv):
    def __init__(self, no_environment_has_this_keyword=None, **kwargs):
        super().__init__(**kwargs)


class ToolsInTheTagFormat(KeyDoorEnv):
    @property
    def tools(self):
        return [{"type": "function"}]


class StartsAnotherTask(KeyDoorEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options={} if options and options.get("task_id") in self.task_ids else options)


class TakesAnyOption(KeyDoorEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options={k: v for k, v in (options or {}).items() if k == "task_id"})


class WarnsGymnasium(KeyDoorEnv):
    metadata = {"render_modes": ["ansi"]}  # noqa: RUF012 - as in Gymnasium


BROKEN = {
    RaisesOnUnknownWords: r"no call fails|a response never raises \(.* in a tag, tag\).*KeyError",
    RaisesOnLongResponses: r"a response never raises \(very long word, tag\).*MemoryError",
    EchoesResponses: "an observation is in the observation space",
    ForgetsAKeyOfInfo: "info has exactly the keys",
    IntegerMetrics: "metrics are floats",
    SuccessOfNumpy: r"info\['success'\] is of type bool. Found: 'np.False_'",
    NumbersOfNumpyInItsState: "A task's state must be of texts, Python's own numbers, lists and dicts: .* int64",
    ToolWithoutRequiredArguments: "The first tool must have a required argument, as text_tool writes it, got ",
    EndsTwice: "either terminated or truncated, never both",
    OneStepTooMany: "truncated is set at step 10 and not before",
    GoesOnAfterTheEnd: "a step before reset raises EpisodeOverError|a step after the end raises EpisodeOverError",
    CountsStepsInTheKey: "an invalid response changes nothing.*state_key",
    KeyOfTheHistory: "state_key does not depend on how many steps",
    OneKeyForAll: "an equal state_key means an equal state",
    OneKeyForAllTasks: "an equal state_key means an equal state",
    InvalidActs: "an invalid response changes nothing",
    RewardsInvalid: "an invalid response has no positive reward",
    OwnRandomness: r"two instances reset with one seed answer the same. Found: \"{'observation': \(",
    HalfASnapshot: "a restored snapshot has the same future",
    SnapshotThatChanges: r"a snapshot stays as it was .*Found: \"{'num_steps': \(\d, \d\)}\"",
    ForgetsItsRandomState: "a restored snapshot has the same future",
    ForgetsItsExpert: "an episode restored at step .* goes on like the played one",
    CountsItsEpisodes: r"an episode does not depend on earlier ones \(append\)",
    ListsWhatIsNoAction: "the admissible action 'dance' is valid, written as '<action>dance</action>'",
    ListsNothing: "before the end something can be done",
    HelplessExpert: r"the expert solves 'train-\d+' \(tag, rebuilt\)",
    NoExpert: r"no call fails that the contract allows.*NotImplementedError",
    ContextChangesTheReward: "the same in every format and context",
    SwallowsKeywords: "an unknown keyword raises TypeError",
    ToolsInTheTagFormat: "only the tool-call format has tools",
    StartsAnotherTask: "reset with the option task_id",
    TakesAnyOption: "an unknown option of reset raises ValueError",
    WarnsGymnasium: "check_env passes without a warning.*render fps",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda env: env.__name__)
def test_checker_finds_what_is_broken(broken):
    with pytest.raises(ContractError, match=f"(?s){BROKEN[broken]}"):
        check_text_env(functools.partial(gymnasium.make, EnvSpec("test/Broken-v0", entry_point=broken)))


def test_checker_takes_a_class_that_is_not_registered():
    check_text_env(KeyDoorEnv, episodes=1)


def test_checker_wants_a_text_env():
    with pytest.raises(ContractError, match="unknown keyword raises TypeError"):
        check_text_env(lambda **kwargs: gymnasium.make("CartPole-v1"))


def test_checker_wants_episodes():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        check_text_env(KeyDoorEnv, episodes=0)


@pytest.mark.parametrize("made", ["steppo/KeyDoor-v0", None, KeyDoorEnv()])
def test_the_checker_wants_what_makes_an_environment(made):
    said = r"gymnasium.make, 'steppo/KeyDoor-v0'\)" if isinstance(made, str) else "your class"
    with pytest.raises(TypeError, match=f"make_env is what makes an environment when called, such as .*{said}"):
        check_text_env(made)
