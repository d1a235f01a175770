"""Episodes that start from a state of another one."""

from __future__ import annotations

import dataclasses
import json
import pickle
import time
from pathlib import Path

import pytest

from steppo_gym.errors import DataError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.policies import ExpertPolicy, Response
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.rollouts.snapshots import take_snapshots

WALK = EnvFactory("rollout_envs:steppo-test/Walk-v0", {"max_steps": 6})
CODEC = ByteCodec()


@pytest.fixture(autouse=True)
def importable_env(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def with_context(context):
    return dataclasses.replace(WALK, kwargs={**WALK.kwargs, "context": context})


class Keyed:
    """Writes what depends on the prompt alone, so that equal prompts have equal futures."""

    needs_expert = False
    version = 3

    def respond(self, requests):
        self.steps = [request.step for request in requests]
        return [self._respond(request.prompt_ids) for request in requests]

    def _respond(self, prompt_ids):
        ids = CODEC.encode_response(f"go {sum(prompt_ids) % 97}" if sum(prompt_ids) % 5 else "nonsense")
        return Response(ids, tuple(-0.5 for _ in ids), version=self.version)


def timeless(episode):
    steps = (dataclasses.replace(s, generation_seconds=0.0, environment_seconds=0.0) for s in episode.steps)
    return dataclasses.replace(episode, steps=tuple(steps))


def play(factory, assignments, num_workers=0, num_slots=3):
    with EnvPool(factory, num_slots=num_slots, num_workers=num_workers) as pool:
        return list(map(timeless, collect(Keyed(), pool, CODEC, assignments).episodes))


def rest(episode, cut):
    return dataclasses.replace(episode, steps=episode.steps[cut:])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("context", ["rebuilt", "append"])
def test_a_restored_episode_is_the_played_one(context, num_workers):
    factory = with_context(context)
    assignments = [Assignment(task_id, seed, seed) for seed, task_id in enumerate(["walk-5", "walk-9", "walk-2"])]
    played = play(factory, assignments)
    assert {episode.ended for episode in played} == {"terminated", "truncated"}
    assert any(step.invalid_action for episode in played for step in episode.steps)
    env = factory.make()
    starts, expected = [], []
    for assignment, episode in zip(assignments, played, strict=True):
        # Read from a file, as the episodes of a run are.
        snapshots = take_snapshots(env, Episode.from_json(episode.to_json()), range(episode.num_steps))
        for cut, snapshot in snapshots.items():
            starts.append(dataclasses.replace(assignment, start=pickle.loads(pickle.dumps(snapshot))))
            expected.append(rest(episode, cut))
    # Mixed with episodes that are played from the beginning, in another order and by other slots.
    found = play(factory, [*starts[::-1], *assignments], num_workers)
    assert found == [*expected[::-1], *played]
    assert all(step.version == 3 for episode in found for step in episode.steps)


def test_a_snapshot_of_a_branch_is_one_of_the_episode():
    factory = with_context("append")
    (played,) = play(factory, [Assignment("walk-9", 1)])
    env = factory.make()
    first = take_snapshots(env, played, [2])[2]
    (branch,) = play(factory, [Assignment("walk-9", 1, start=first)])
    again = take_snapshots(env, branch, [1], start=first)[1]
    direct = take_snapshots(env, played, [3])[3]
    assert (again.state, again.prompt_ids, again.num_steps) == (direct.state, direct.prompt_ids, 3)
    assert play(factory, [Assignment("walk-9", 1, start=again)]) == [rest(played, 3)]


def test_snapshots_stay_as_they_are_however_often_they_are_used():
    factory = with_context("append")
    (played,) = play(factory, [Assignment("walk-9", 1)])
    snapshot = take_snapshots(factory.make(), played, [1])[1]
    before = json.dumps(dataclasses.asdict(snapshot))
    branches = play(factory, [Assignment("walk-9", 1, start=snapshot)] * 7)
    assert branches == [rest(played, 1)] * 7
    assert json.dumps(dataclasses.asdict(snapshot)) == before


def test_steps_are_counted_from_the_start_of_an_episode():
    factory = with_context("rebuilt")
    (played,) = play(factory, [Assignment("walk-9", 1)])
    snapshot = take_snapshots(factory.make(), played, [4])[4]
    policy = Keyed()
    with EnvPool(factory, num_slots=1) as pool:
        (branch,) = collect(policy, pool, CODEC, [Assignment("walk-9", 1, start=snapshot)]).episodes
    assert snapshot.num_steps == 4
    # The limit of the environment counts all steps, the policy those it was asked for.
    assert (branch.ended, branch.num_steps, policy.steps) == ("truncated", 2, [1])


def test_a_late_step_of_a_branch_counts_the_steps_that_are_left():
    factory = dataclasses.replace(WALK, kwargs={"max_steps": 9, "penalty": -0.1})
    with EnvPool(factory, num_slots=1, num_workers=1, step_timeout=0.4) as pool:
        assignment = Assignment("hang-4", 1)
        (played,) = collect(Going(), pool, CODEC, [assignment]).episodes
        snapshot = take_snapshots(factory.make(), played, [3])[3]
        start = dataclasses.replace(assignment, start=snapshot)
        (branch,) = collect(Going(), pool, CODEC, [start]).episodes
    assert played.num_steps == 5 and branch.num_steps == 2
    assert branch.steps[-1].reward == played.steps[-1].reward == pytest.approx(-0.5)


class Going:
    needs_expert = False

    def respond(self, requests):
        return [Response(CODEC.encode_response("go"))] * len(requests)


def test_a_state_that_cannot_be_restored_costs_its_episode():
    factory = with_context("rebuilt")
    (played,) = play(factory, [Assignment("walk-9", 1)])
    snapshot = take_snapshots(factory.make(), played, [1])[1]
    broken = dataclasses.replace(snapshot, state=json.dumps(json.loads(snapshot.state) | {"task_id": "nothing"}))
    failed, whole = play(factory, [Assignment("walk-9", 1, start=broken), Assignment("walk-9", 1, start=snapshot)])
    assert failed.failure.boundary == "environment" and "Unknown task_id 'nothing'" in failed.failure.message
    assert whole == rest(played, 1)


def test_what_cannot_be_played_again_is_named():
    (played,) = play(WALK, [Assignment("walk-9", 1)])
    env = WALK.make()
    with pytest.raises(ValueError, match="has steps 0 to 5, asked for was 6"):
        take_snapshots(env, played, [1, 6])
    with pytest.raises(ValueError, match="carries no seed"):
        take_snapshots(env, dataclasses.replace(played, seed=None), [0])
    assert take_snapshots(env, played, []) == {}
    second = dataclasses.replace(played.steps[1], state_key="elsewhere")
    changed = dataclasses.replace(played, steps=(played.steps[0], second, *played.steps[2:]))
    with pytest.raises(DataError, match="step 1 was taken in the state 'elsewhere', now it is 'walk-9 at 1'"):
        take_snapshots(env, changed, [3])


def test_a_start_costs_about_a_reset():
    factory = EnvFactory("steppo/KeyDoor-v0", {"context": "append"})
    (played,) = play(factory, [Assignment("train-1", 1)])
    env = factory.make()
    snapshot = take_snapshots(env, played, [played.num_steps - 1])[played.num_steps - 1]

    def seconds(call):
        times = []
        for _ in range(200):
            begun = time.process_time()
            call()
            times.append(time.process_time() - begun)
        return min(times)

    reset = seconds(lambda: env.reset(seed=1, options={"task_id": "train-1"}))
    assert seconds(lambda: env.set_state(json.loads(snapshot.state))) < 5 * reset


def test_an_expert_that_errs_goes_on_erring_where_it_was():
    factory = EnvFactory("steppo/HotpotQA-v0", {"expert": "hasty"})
    env = factory.make()
    assignments = [Assignment(env.task_ids[number], number) for number in range(40)]
    with EnvPool(factory, num_slots=4) as pool:

        def play(starts):
            return list(map(timeless, collect(ExpertPolicy(CODEC), pool, CODEC, starts).episodes))

        played = play(assignments)

        cuts = [episode.num_steps // 2 for episode in played]
        starts = [
            dataclasses.replace(a, start=take_snapshots(env, episode, [cut], needs_expert=True)[cut])
            for a, episode, cut in zip(assignments, played, cuts, strict=True)
        ]
        found = play(starts)
    assert found == [rest(episode, cut) for episode, cut in zip(played, cuts, strict=True)]
    assert any(step.slip for episode in played for step in episode.steps)
