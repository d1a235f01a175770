"""Assignments that go on from the states of other episodes' steps, in a real environment."""

from __future__ import annotations

import dataclasses

import pytest

from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import ExpertPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.rollouts.snapshots import NotRepeatedError
from steppo_gym.trainers.branches import branch_assignments

CODEC = ByteCodec()
FACTORY = EnvFactory("steppo/KeyDoor-v0", {})


def timeless(episode):
    steps = (dataclasses.replace(s, generation_seconds=0.0, environment_seconds=0.0) for s in episode.steps)
    return dataclasses.replace(episode, steps=tuple(steps), seed=None)


@pytest.fixture(scope="module")
def played():
    """Two episodes of the expert, which always does the same in the same state."""
    tasks = FACTORY.make().task_ids[:2]
    with EnvPool(FACTORY, num_slots=2) as pool:
        todo = [Assignment(task, seed=5, group=group) for group, task in enumerate(tasks)]
        return collect(ExpertPolicy(CODEC), pool, CODEC, todo).episodes


def test_what_is_played_goes_on_from_the_step(played):
    lengths = [episode.num_steps for episode in played]
    steps = [0, 0, lengths[0] - 1, lengths[0] + 1]
    todo, replayed = branch_assignments(FACTORY, played, steps, seed=9)
    assert [a.group for a in todo] == [0, 0, 0, 1]
    assert len({a.seed for a in todo}) == 4
    assert replayed == (lengths[0] - 1) + 1
    with EnvPool(FACTORY, num_slots=3) as pool:
        branches = collect(ExpertPolicy(CODEC), pool, CODEC, todo).episodes
    places = [(0, 0), (0, 0), (0, lengths[0] - 1), (1, 1)]
    for branch, (owner, place) in zip(branches, places, strict=True):
        rest = dataclasses.replace(played[owner], steps=played[owner].steps[place:])
        assert timeless(branch) == timeless(rest)


def test_steps_that_are_not_there_are_refused(played):
    number = sum(episode.num_steps for episode in played)
    for step in (-1, number):
        with pytest.raises(ValueError, match=f"have steps 0 to {number - 1}, asked for was {step}"):
            branch_assignments(FACTORY, played, [step], seed=0)
    assert branch_assignments(FACTORY, played, [], seed=0) == ([], 0)


def test_an_environment_that_raises_costs_what_would_go_on_from_its_episode(played):
    first, second = played
    # It raises at the second response, which leads to the third step.
    broken = EnvFactory("trainer_envs:steppo-test/BreakingKeyDoor-v0", {"broken": (first.task_id,)})
    steps = [0, 2, first.num_steps, first.num_steps + 2]
    todo, replayed = branch_assignments(broken, played, steps, seed=9)
    assert replayed == 2
    assert [isinstance(one, Assignment) for one in todo] == [False, False, True, True]
    assert all(one.ended == "failed" and (one.task_id, one.group) == (first.task_id, 0) for one in todo[:2])
    assert "the door fell off" in todo[0].failure.message and todo[0].failure.boundary == "environment"
    with EnvPool(FACTORY, num_slots=2) as pool:
        branches = collect(ExpertPolicy(CODEC), pool, CODEC, todo[2:]).episodes
    for branch, place in zip(branches, (0, 2), strict=True):
        assert timeless(branch) == timeless(dataclasses.replace(second, steps=second.steps[place:]))


def test_an_episode_that_does_not_repeat_itself_ends_the_run(played):
    first, second = played
    other = dataclasses.replace(first, task_id=second.task_id)
    with pytest.raises(NotRepeatedError, match="step 0 was taken in the state"):
        branch_assignments(FACTORY, [other], [1], seed=0)
