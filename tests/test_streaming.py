from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import random
import time
from pathlib import Path

import pytest

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Answer, Response, ScriptedPolicy, StreamingPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import MAX_FAILED_CALLS, Assignment, collect

CODEC = ByteCodec()


@pytest.fixture(autouse=True)
def importable_env(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def make_pool(num_slots=4, num_workers=0, **kwargs):
    timeouts = {name: kwargs.pop(name) for name in ("step_timeout", "reset_timeout") if name in kwargs}
    factory = EnvFactory("rollout_envs:steppo-test/Walk-v0", kwargs)
    return EnvPool(factory, num_slots=num_slots, num_workers=num_workers, **timeouts)


def assign(*task_ids):
    return [Assignment(task_id, seed=100 + i, group=i // 2) for i, task_id in enumerate(task_ids)]


def random_walks(number, seed=0, longest=9):
    rng = random.Random(seed)
    return [f"walk-{rng.randint(1, longest)}" for _ in range(number)]


class LatePolicy:
    """Its word and how long it takes to say it follow from the request's stream alone."""

    needs_expert = False
    prefers_streaming = True

    def __init__(self, seconds, *, failing=lambda request: None):
        self.seconds, self.failing = seconds, failing
        self.due, self.numbers, self.asked, self.num_drops = [], itertools.count(), [], 0
        self.slots, self.num_asked = set(), 0

    def word(self, request):
        return "go" if random.Random(repr(request.stream)).random() < 0.8 else "stay"

    def outcome(self, request):
        error = self.failing(request)
        return error or Response(CODEC.encode_response(self.word(request)), version=3)

    def submit(self, request):
        assert request.slot not in self.slots, "one request of a slot at a time"
        self.slots.add(request.slot)
        self.num_asked += 1
        heapq.heappush(self.due, (time.monotonic() + self.seconds(request), next(self.numbers), request))

    def poll(self, timeout):
        if not self.due:
            return []
        time.sleep(max(0.0, min(timeout, self.due[0][0] - time.monotonic())))
        answers = []
        while self.due and self.due[0][0] <= time.monotonic():
            request = heapq.heappop(self.due)[2]
            self.slots.discard(request.slot)
            answers.append(Answer(request.slot, self.outcome(request)))
        return answers

    def drop(self):
        self.due, self.slots = [], set()
        self.num_drops += 1

    def respond(self, requests):
        """A batch waits for its slowest."""
        time.sleep(max(map(self.seconds, requests)))
        return [self.outcome(request) for request in requests]


def at_once(request):
    return 0.0


def jumbled(request):
    return random.Random(repr((7, request.stream))).random() * 0.01


def heavy_tailed(request):
    """0.01 to 3 s, lognormal: the median is 0.15 s, the mean twice that, and one in two hundred takes all 3 s."""
    draw = random.Random(repr((5, request.stream))).lognormvariate(math.log(0.15), 1.2)
    return min(3.0, max(0.01, draw))


def untimed(step):
    return dataclasses.replace(step, generation_seconds=0, environment_seconds=0)


def without_time(episodes):
    return [dataclasses.replace(episode, steps=tuple(map(untimed, episode.steps))) for episode in episodes]


@pytest.mark.parametrize("context", ["rebuilt", "append"])
def test_streaming_gives_the_episodes_of_lockstep_whatever_answers_first(context):
    tasks = assign(*random_walks(30))
    records = []
    for num_workers, num_slots, policy, streaming in (
        (0, 4, LatePolicy(at_once), False),
        (0, 5, LatePolicy(jumbled), None),
        (2, 8, LatePolicy(jumbled), True),
    ):
        with make_pool(num_slots, num_workers, context=context, max_steps=12) as pool:
            rollout = collect(policy, pool, CODEC, tasks, streaming=streaming)
        records.append(without_time(rollout.episodes))
    assert {step.version for episode in records[0] for step in episode.steps} == {3}
    assert records[0] == records[1] == records[2]


class VirtualPolicy(LatePolicy):
    """Late by a clock of its own, which goes on while it is waited for: how busy the machine is does not matter."""

    now = 0.0

    def submit(self, request):
        self.asked.append((self.now, self.seconds(request), request.step == 0))
        heapq.heappush(self.due, (self.now + self.seconds(request), next(self.numbers), request))

    def poll(self, timeout):
        self.now, _, request = heapq.heappop(self.due)
        return [Answer(request.slot, self.outcome(request))]

    def respond(self, requests):
        self.asked += [(self.now, self.seconds(request), request.step == 0) for request in requests]
        self.now += max(map(self.seconds, requests))
        return [self.outcome(request) for request in requests]


def share_under_way(asked, num_slots):
    """Requests under way over slots, while there were assignments for all of them: by Little's law the throughput over
    that of as many slots that always wait for an answer."""
    begin, end = asked[0][0], max(at for at, _, is_first in asked if is_first)
    return sum(min(at + seconds, end) - at for at, seconds, _ in asked if at < end) / (num_slots * (end - begin))


def test_no_slot_waits_for_the_slowest_of_64_heavy_tailed_answers():
    tasks, shares = assign(*random_walks(1000, longest=3)), []
    for streaming in (True, False):
        policy = VirtualPolicy(heavy_tailed)
        with make_pool(64) as pool:
            rollout = collect(policy, pool, CODEC, tasks, streaming=streaming, overlap=False)
        shares.append(share_under_way(policy.asked, 64))
        assert rollout.stats.num_requests == rollout.stats.num_steps >= 2000
    assert shares[0] >= 0.9
    assert shares[1] < 0.5, "the latencies are not heavy-tailed enough to tell the schedules apart"


def test_time_is_counted_by_request():
    with make_pool(2) as pool:
        rollout = collect(LatePolicy(lambda request: 0.05), pool, CODEC, assign("walk-1", "walk-1"))
    seconds = [step.generation_seconds for episode in rollout.episodes for step in episode.steps]
    assert min(seconds) >= 0.05
    assert rollout.stats.num_generation_calls == len(seconds)
    assert rollout.stats.request_seconds >= 0.1
    assert 1.0 <= rollout.stats.mean_requests_under_way <= 2.0


def test_environments_step_while_answers_are_under_way():
    class Patient(LatePolicy):
        """The first question is answered with the last of the nine, or after a minute."""

        def word(self, request):
            return "go"

        def submit(self, request):
            super().submit(request)
            if self.num_asked == 9:
                self.due = [(0.0, number, request) for _, number, request in sorted(self.due)]

    def seconds(request):
        return 60.0 if request.stream[0] == 0 else 0.0

    with make_pool(2, 2, delay=0.02) as pool:
        rollout = collect(Patient(seconds), pool, CODEC, assign("walk-1", *["slow-2"] * 4))
    # The four slow ones are played while the first waits for its answer.
    assert rollout.stats.num_steps == 9 and rollout.stats.seconds < 60


def test_a_request_that_fails_costs_its_episode_and_no_other():
    def failing(request):
        return InfrastructureError("model", "no answer") if request.stream[0] in (2, 5) else None

    with make_pool(3) as pool:
        rollout = collect(LatePolicy(jumbled, failing=failing), pool, CODEC, assign(*["walk-3"] * 9))
    assert [position for position, e in enumerate(rollout.episodes) if e.failure] == [2, 5]
    assert {e.failure.message for e in rollout.episodes if e.failure} == {"no answer"}


def test_failures_under_way_together_count_as_one_and_three_bouts_end_the_rollout():
    tasks, down = assign(*["walk-2"] * 40), InfrastructureError("model", "the server is down")
    passing = LatePolicy(at_once, failing=lambda request: down if request.stream[0] < 8 else None)
    with make_pool(8) as pool:
        rollout = collect(passing, pool, CODEC, tasks)
        assert rollout.stats.num_failed == 8
        lasting = LatePolicy(at_once, failing=lambda request: down)
        with pytest.raises(InfrastructureError, match="the server is down"):
            collect(lasting, pool, CODEC, tasks)
        assert lasting.num_asked <= 8 * MAX_FAILED_CALLS
        assert lasting.num_drops == 2  # before it and after
        # The pool is used again with nothing left over.
        assert collect(LatePolicy(jumbled), pool, CODEC, tasks).stats.num_failed == 0


def test_a_killed_worker_costs_what_was_on_it():
    with make_pool(4, 2, step_timeout=20.0) as pool:
        rollout = collect(LatePolicy(jumbled), pool, CODEC, assign(*["walk-2"] * 6, "kill-0", *["walk-2"] * 6))
    failed = [e for e in rollout.episodes if e.failure]
    assert 1 <= len(failed) <= 2
    assert {e.failure.boundary for e in failed} == {"worker"}


def test_nothing_to_do():
    with make_pool(2) as pool:
        assert collect(LatePolicy(at_once), pool, CODEC, []).episodes == ()


def test_a_batch_policy_cannot_be_made_to_stream():
    policy = ScriptedPolicy(["go"], CODEC)
    assert not isinstance(policy, StreamingPolicy)
    with make_pool(2) as pool, pytest.raises(ValueError, match="ScriptedPolicy answers in batches"):
        collect(policy, pool, CODEC, assign("walk-1"), streaming=True)
