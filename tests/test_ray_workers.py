"""Environments in Ray actors, on a cluster of two simulated machines on this one."""

from __future__ import annotations

import builtins
import dataclasses
import os
import time
from pathlib import Path

import pytest

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import ExpertPolicy, ScriptedPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.ray_workers import connect
from steppo_gym.rollouts.rollout import Assignment, collect

CODEC = ByteCodec()
SPEC = EnvFactory("steppo/KeyDoor-v0", {"context": "append"})
EPISODES = int(os.environ.get("STEPPO_RAY_EPISODES", "40"))
"""Of the rollout in which a machine is lost."""

needs_ray = pytest.mark.ray
# Of Ray and what it imports, about themselves.
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster():
    """One machine with room for two workers; tests add another."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    options = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    # Actors have to find the test environments.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    cluster = Cluster(initialize_head=True, head_node_args=options)
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def add_machine(cluster, num_cpus):
    node = cluster.add_node(num_cpus=num_cpus, object_store_memory=80 * 2**20)
    cluster.wait_for_nodes()
    return node


def machines_of(pool):
    return [lane.process._node for lane in pool._lanes]


def assign(number):
    return [Assignment(f"train-{i % 200}", seed=i) for i in range(number)]


def without_time(episodes):
    return [
        dataclasses.replace(
            e, steps=tuple(dataclasses.replace(s, generation_seconds=0, environment_seconds=0) for s in e.steps)
        )
        for e in episodes
    ]


@needs_ray
def test_two_machines_play_what_this_process_plays_and_one_may_be_lost(cluster, capfd):
    second = add_machine(cluster, 2)
    with EnvPool(SPEC, num_slots=8) as pool:
        here = collect(ExpertPolicy(CODEC), pool, CODEC, assign(24)).episodes
    ended = []

    def on_episode(episode):
        ended.append(episode)
        if len(ended) == EPISODES // 4:
            cluster.remove_node(second, allow_graceful=False)

    options = {"workers": "ray://auto", "reset_timeout": 120.0}
    with EnvPool(SPEC, num_slots=8, num_workers=4, **options) as pool:
        machines = machines_of(pool)
        elsewhere = collect(ExpertPolicy(CODEC), pool, CODEC, assign(24)).episodes
        rollout = collect(ExpertPolicy(CODEC), pool, CODEC, assign(EPISODES), on_episode=on_episode)
        left = [slot for slot in range(8) if pool.has(slot)]
        # What is left goes on being used.
        after = collect(ExpertPolicy(CODEC), pool, CODEC, assign(24)).episodes
    lost = machines.count(second.node_id)
    assert len(set(machines)) == 2 and 1 <= lost <= 2
    assert without_time(elsewhere) == without_time(here) == without_time(after)
    failed = [episode for episode in rollout.episodes if episode.failure]
    assert len(rollout.episodes) == EPISODES
    assert 1 <= len(failed) <= 2 * lost
    assert {episode.failure.boundary for episode in failed} == {"worker"}
    assert all(episode.success for episode in rollout.episodes if not episode.failure)
    assert len(left) == 8 - 2 * lost
    said = capfd.readouterr().err
    assert said.count("is lost with its machine") == lost
    assert f"2 slots fewer, {len(left)} go on." in said


WALK = EnvFactory("rollout_envs:steppo-test/Walk-v0", {})


@needs_ray
def test_one_step_too_long_or_one_worker_killed_costs_what_it_costs_here(cluster):
    tasks = [Assignment(task, seed=0) for task in ("walk-2", "hang-1", "walk-2", "kill-1", "walk-2", "walk-2")]
    options = {"workers": "ray://auto", "step_timeout": 3.0, "reset_timeout": 120.0}
    with EnvPool(WALK, num_slots=2, num_workers=2, **options) as pool:
        started = time.monotonic()
        episodes = collect(ScriptedPolicy(["go"], CODEC), pool, CODEC, tasks).episodes
    assert time.monotonic() - started < 100
    assert [episode.ended for episode in episodes] == [
        "terminated",
        "truncated",
        "terminated",
        "failed",
        "terminated",
        "terminated",
    ]
    assert "died" in episodes[3].failure.message


@needs_ray
def test_an_environment_that_cannot_be_made_raises_its_own_error(cluster):
    spec = EnvFactory(WALK.env_id, {"broken": "value"})
    with pytest.raises(ValueError, match="broken on purpose"):
        EnvPool(spec, num_slots=1, num_workers=1, workers="ray://auto", reset_timeout=120.0)


@needs_ray
def test_more_workers_than_the_cluster_has_room_for_are_refused(cluster):
    with pytest.raises(InfrastructureError, match="the cluster has no room for it"):
        EnvPool(SPEC, num_slots=9, num_workers=9, workers="ray://auto", reset_timeout=8.0)


@pytest.mark.parametrize("address", ["ray://", "http://host", "auto", ""])
def test_addresses_of_another_form_are_refused(address):
    with pytest.raises(ValueError, match="ray://auto"):
        connect(address)


def test_workers_elsewhere_need_a_number():
    with pytest.raises(ValueError, match="num_workers of 1 or more"):
        EnvPool(SPEC, num_slots=2, workers="ray://auto")


def test_without_the_package_it_is_named(monkeypatch):
    real = builtins.__import__

    def without_ray(name, *arguments, **keywords):
        if name == "ray":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_ray)
    with pytest.raises(InfrastructureError, match=r"pip install 'steppo-gym\[ray\]'"):
        connect("ray://auto")
