import inspect
import pickle
import re

import pytest

import steppo_gym.errors
from steppo_gym import EpisodeOverError, InfrastructureError, SteppoGymError, UnknownTaskError
from steppo_gym.envs.key_door.env import KeyDoorEnv

ERRORS = [error for _, error in inspect.getmembers(steppo_gym.errors, inspect.isclass)]


def test_all_errors_have_one_base_and_stand_in_the_tree():
    assert all(issubclass(error, SteppoGymError) for error in ERRORS)
    tree = re.findall(r"\b\w+Error\b", steppo_gym.errors.__doc__.partition("Catch")[0])
    assert sorted(tree) == sorted(error.__name__ for error in ERRORS)


@pytest.mark.parametrize(("error", "builtin"), [(UnknownTaskError, ValueError), (EpisodeOverError, RuntimeError)])
def test_mistakes_are_caught_as_what_they_are_in_python_too(error, builtin):
    assert issubclass(error, builtin)


def test_infrastructure_errors_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(InfrastructureError("worker", "killed")))
    assert (error.boundary, error.message, str(error)) == ("worker", "killed", "worker: killed")


def test_there_is_no_step_outside_an_episode():
    env = KeyDoorEnv(max_steps=1)
    with pytest.raises(EpisodeOverError, match=r"never started\. Call reset\(\) first"):
        env.step("a")
    with pytest.raises(EpisodeOverError, match="no episode to take a snapshot of"):
        env.get_state()
    env.reset(seed=0)
    with pytest.raises(TypeError, match="one full response as a string, got bytes"):
        env.step(b"a")
    env.step("a")
    with pytest.raises(EpisodeOverError):
        env.step("a")


def test_a_start_that_fails_leaves_no_episode_to_go_on_with():
    class Unreachable(KeyDoorEnv):
        broken = False

        def _start(self, task_id):
            if self.broken:
                raise InfrastructureError("environment", "engine gone")
            return super()._start(task_id)

    env = Unreachable()
    env.reset(seed=0)
    env.broken = True
    with pytest.raises(InfrastructureError, match="environment: engine gone"):
        env.reset(seed=0)
    with pytest.raises(EpisodeOverError):
        env.step("a")


def test_unknown_tasks_are_named_with_examples():
    env = KeyDoorEnv(split="test")
    message = "Unknown task_id 'train-0'. This split has 200 tasks, for example 'test-0', 'test-1', 'test-2'"
    with pytest.raises(UnknownTaskError, match=message):
        env.reset(options={"task_id": "train-0"})
    other = KeyDoorEnv(split="train")
    other.reset(seed=0)
    with pytest.raises(UnknownTaskError, match="Unknown task_id 'train-"):
        env.set_state(other.get_state())
    with pytest.raises(ValueError, match=r"Unknown reset options \['goal'\]"):
        env.reset(options={"goal": 1})
