from __future__ import annotations

import dataclasses
import heapq
import random
import time
from pathlib import Path

import pytest

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.policies import ExpertPolicy, RandomPolicy, Response, ScriptedPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import MAX_FAILED_CALLS, MAX_FAILED_STARTS, Assignment, collect

ENV_ID = "rollout_envs:steppo-test/Walk-v0"
CODEC = ByteCodec()


@pytest.fixture(autouse=True)
def importable_env(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def make_pool(num_slots=4, num_workers=0, **kwargs):
    timeouts = {name: kwargs.pop(name) for name in ("step_timeout", "reset_timeout") if name in kwargs}
    return EnvPool(EnvFactory(ENV_ID, kwargs), num_slots=num_slots, num_workers=num_workers, **timeouts)


def assign(*task_ids):
    return [Assignment(task_id, seed=100 + i, group=i // 2) for i, task_id in enumerate(task_ids)]


def going():
    return ScriptedPolicy(["go"], CODEC)


def without_time(episodes):
    return [
        dataclasses.replace(
            episode,
            steps=tuple(
                dataclasses.replace(step, generation_seconds=0.0, environment_seconds=0.0) for step in episode.steps
            ),
        )
        for episode in episodes
    ]


class Watched:
    """Passes requests on and remembers them; the calls with the given numbers, from 1, fail."""

    def __init__(self, policy, *, failing_calls=(), delay=0.0):
        self.policy, self.failing_calls, self.delay = policy, failing_calls, delay
        self.needs_expert = policy.needs_expert
        self.calls = []

    def respond(self, requests):
        self.calls.append(list(requests))
        time.sleep(self.delay)
        if len(self.calls) in self.failing_calls:
            raise InfrastructureError("model", "the server is down")
        return self.policy.respond(requests)

    @property
    def batch_sizes(self):
        return [len(call) for call in self.calls]


def random_lengths(number, seed=0):
    rng = random.Random(seed)
    return [f"walk-{rng.randint(1, 9)}" for _ in range(number)]


@pytest.mark.parametrize("context", ["rebuilt", "append"])
@pytest.mark.parametrize("overlap", [True, False])
def test_the_number_of_workers_changes_no_byte(context, overlap):
    # The draws of a random policy depend on the order of all requests, so any other batch would show.
    results, calls = [], []
    for num_workers in (0, 1, 2, 3):
        policy = Watched(RandomPolicy(CODEC, seed=3, tag="x"))
        with make_pool(5, num_workers, context=context, max_steps=12) as pool:
            rollout = collect(StripTags(policy), pool, CODEC, assign(*random_lengths(24)), overlap=overlap)
        results.append(without_time(rollout.episodes))
        calls.append(policy.calls)
    assert len({episode.ended for episode in results[0]}) == 2
    assert results[0] == results[1] == results[2] == results[3]
    assert calls[0] == calls[1] == calls[2] == calls[3]


class StripTags:
    """The test environment reads bare words."""

    def __init__(self, policy):
        self.policy, self.needs_expert = policy, policy.needs_expert

    def respond(self, requests):
        texts = [CODEC.decode_response(response.token_ids) for response in self.policy.respond(requests)]
        return [Response(CODEC.encode_response(text.removeprefix("<x>").removesuffix("</x>"))) for text in texts]


def calls_of_list_scheduling(lengths, num_slots):
    """Rounds until all are done when a free slot always takes the next: the makespan of list scheduling."""
    slots = [0] * num_slots
    for length in lengths:
        heapq.heappush(slots, heapq.heappop(slots) + length)
    return max(slots)


@pytest.mark.parametrize("num_slots", [1, 2, 3, 8, 40])
def test_finished_slots_are_refilled_at_once_and_nothing_is_generated_for_nobody(num_slots):
    task_ids = random_lengths(30, seed=num_slots)
    lengths = [int(task_id.partition("-")[2]) for task_id in task_ids]
    policy = Watched(going())
    with make_pool(num_slots) as pool:
        rollout = collect(policy, pool, CODEC, assign(*task_ids), overlap=False)
    assert [episode.num_steps for episode in rollout.episodes] == lengths
    assert sum(policy.batch_sizes) == sum(lengths)
    assert len(policy.calls) == calls_of_list_scheduling(lengths, num_slots)
    assert policy.batch_sizes == sorted(policy.batch_sizes, reverse=True)
    assert policy.batch_sizes[0] == min(num_slots, 30)


def test_halves_take_turns_and_share_the_tasks():
    policy = Watched(going())
    with make_pool(6, 2) as pool:
        collect(policy, pool, CODEC, assign(*["walk-4"] * 12))
    slots = [sorted(request.slot for request in call) for call in policy.calls]
    assert slots == [[0, 2, 4], [1, 3, 5]] * 8
    # Fewer tasks than slots are shared too.
    policy = Watched(going())
    with make_pool(6) as pool:
        collect(policy, pool, CODEC, assign(*["walk-2"] * 4))
    assert [sorted(request.slot for request in call) for call in policy.calls] == [[0, 2], [1, 3]] * 2


def test_slots_of_a_half_are_refilled_before_it_generates_again():
    policy = Watched(going())
    with make_pool(4, 2) as pool:
        rollout = collect(policy, pool, CODEC, assign(*["walk-1"] * 20))
    assert policy.batch_sizes == [2] * 10
    assert rollout.stats.mean_batch_size == 2.0


def test_environments_step_while_the_policy_generates():
    waits = {}
    for overlap in (True, False):
        policy = Watched(going(), delay=0.12)
        with make_pool(2, 2, delay=0.06) as pool:
            rollout = collect(policy, pool, CODEC, assign("slow-8", "slow-8"), overlap=overlap)
        waits[overlap] = rollout.stats.environment_wait_seconds
    assert waits[False] > 8 * 0.06
    assert waits[True] < 0.5 * waits[False]


def test_episodes_come_in_the_order_of_the_assignments():
    assignments = assign("walk-7", "walk-1", "walk-3", "walk-1", "walk-2", "walk-5")
    seen = []
    with make_pool(2) as pool:
        rollout = collect(going(), pool, CODEC, assignments, on_episode=seen.append)
    assert [(e.task_id, e.seed, e.group) for e in rollout.episodes] == [
        (a.task_id, a.seed, a.group) for a in assignments
    ]
    assert [episode.num_steps for episode in seen] != [episode.num_steps for episode in rollout.episodes]
    assert sorted(map(id, seen)) == sorted(map(id, rollout.episodes))


def test_episodes_that_end_together_are_reported_in_the_order_of_their_slots():
    seen = []
    with make_pool(4, 4, delay=0.3) as pool:
        assignments = assign("slow-1", "walk-1", "walk-1", "walk-1")
        collect(going(), pool, CODEC, assignments, overlap=False, on_episode=seen.append)
    assert [episode.seed for episode in seen] == [assignment.seed for assignment in assignments]


def test_the_time_of_a_call_is_shared_by_its_responses():
    with make_pool(3) as pool:
        rollout = collect(Watched(going(), delay=0.02), pool, CODEC, assign("walk-3", "walk-1", "walk-2", "walk-2"))
    shares = [step.generation_seconds for episode in rollout.episodes for step in episode.steps]
    assert sum(shares) == pytest.approx(rollout.stats.generation_seconds)


def test_a_step_records_the_state_it_was_taken_in():
    with make_pool(1) as pool:
        policy = ScriptedPolicy(["go", "nonsense", "go"], CODEC)
        (episode,) = collect(policy, pool, CODEC, assign("walk-2")).episodes
    assert [step.state_key for step in episode.steps] == ["walk-2 at 0", "walk-2 at 1", "walk-2 at 1"]
    assert [step.invalid_action for step in episode.steps] == [None, "expected go", None]
    assert [step.reward for step in episode.steps] == [0.25, 0.0, 0.25]
    assert [step.response for step in episode.steps] == ["go", "nonsense", "go"]
    assert episode.ended == "terminated"
    assert episode.final_prompt_ids is None
    assert episode.metrics["position"] == 2.0
    assert not episode.success
    assert all(step.environment_seconds > 0 for step in episode.steps)
    assert Episode.from_json(episode.to_json()) == episode


def test_sampled_ids_are_recorded_as_they_were_sampled():
    # Neither ends with the end token nor survives decoding and encoding again.
    sampled = Response((*b"go", 0xFF, 0xFE, 256, 256), log_probs=(-0.5, -1.0, -1.5, -2.0, -2.5, -3.0))

    class Sampler:
        needs_expert = False

        def respond(self, requests):
            return [sampled] * len(requests)

    with make_pool(1, context="append") as pool:
        (episode,) = collect(Sampler(), pool, CODEC, assign("walk-2")).episodes
    assert [step.response_ids for step in episode.steps] == [sampled.token_ids] * 2
    assert [step.log_probs for step in episode.steps] == [sampled.log_probs] * 2
    assert episode.steps[0].response == "go\ufffd\ufffd"
    before = episode.steps[0].prompt_ids + sampled.token_ids
    assert episode.steps[1].prompt_ids[: len(before)] == before


def observations(context, seed, task_id, responses):
    env = EnvFactory(ENV_ID, {"context": context, "max_steps": 3}).make()
    texts = [env.reset(seed=seed, options={"task_id": task_id})[0]]
    texts += [env.step(response)[0] for response in responses]
    return texts


def test_rebuilt_prompts_hold_the_current_observation_alone():
    with make_pool(1, context="rebuilt", max_steps=3) as pool:
        (episode,) = collect(going(), pool, CODEC, assign("walk-9")).episodes
    texts = observations("rebuilt", 100, "walk-9", ["go"] * 3)
    prompts = [CODEC.first_prompt("Walk.", (), text) for text in texts]
    assert [step.prompt_ids for step in episode.steps] == prompts[:3]
    assert (episode.ended, episode.final_prompt_ids) == ("truncated", prompts[3])


def test_append_prompts_hold_the_conversation():
    with make_pool(1, context="append", max_steps=3) as pool:
        (episode,) = collect(going(), pool, CODEC, assign("walk-9")).episodes
    texts = observations("append", 100, "walk-9", ["go"] * 3)
    said = [CODEC.END, *b"go", CODEC.END]
    expected = [*b"Walk.", CODEC.END, *texts[0].encode()]
    for step, text in zip(episode.steps, texts[1:], strict=True):
        assert list(step.prompt_ids) == [*expected, CODEC.END]
        expected += [*said, *text.encode()]
    assert list(episode.final_prompt_ids) == [*expected, CODEC.END]
    assert episode.ended == "truncated"


def test_a_prompt_over_the_limit_truncates():
    with make_pool(2, context="append") as pool:
        free = collect(going(), pool, CODEC, assign("walk-6")).episodes[0]
        limit = len(free.steps[3].prompt_ids)
        cut = collect(going(), pool, CODEC, assign("walk-6"), max_prompt_tokens=limit - 1).episodes[0]
        same = collect(going(), pool, CODEC, assign("walk-4"), max_prompt_tokens=limit).episodes[0]
    assert cut.ended == "truncated"
    assert without_time([cut])[0].steps == without_time([free])[0].steps[:3]
    assert cut.final_prompt_ids == free.steps[3].prompt_ids
    assert cut.metrics["position"] == 3.0
    # An episode that is over is not truncated, however long its next prompt would be.
    assert (same.ended, same.num_steps) == ("terminated", 4)


def test_a_first_prompt_over_the_limit_fails():
    with make_pool(2) as pool:
        rollout = collect(going(), pool, CODEC, assign("walk-1", "long-3", "walk-1"), max_prompt_tokens=1000)
    assert [episode.ended for episode in rollout.episodes] == ["terminated", "failed", "terminated"]
    failure = rollout.episodes[1].failure
    assert failure.boundary == "prompt"
    assert "1000007 tokens" in failure.message
    assert "Raise max_prompt_tokens" in failure.message


def test_failed_episodes_are_recorded_and_the_others_go_on():
    task_ids = ["walk-3", "raise-2", "search-1", "raisestart-0", "walk-5", "nan-0", "walk-2"]
    results = []
    for num_workers in (0, 2):
        with make_pool(3, num_workers) as pool:
            results.append(collect(going(), pool, CODEC, assign(*task_ids)))
    first, second = (without_time(rollout.episodes) for rollout in results)
    assert first == second
    assert [episode.ended for episode in first] == [
        "terminated", "failed", "failed", "failed", "terminated", "failed", "terminated"
    ]  # fmt: skip
    assert [first[i].failure.boundary for i in (1, 2, 3, 5)] == ["environment", "search", "environment", "environment"]
    assert [first[i].num_steps for i in (1, 2, 3, 5)] == [2, 1, 0, 0]
    assert all(episode.metrics == {} and not episode.success for episode in first if episode.ended == "failed")


def test_statistics_leave_failed_episodes_out():
    with make_pool(2) as pool:
        rollout = collect(going(), pool, CODEC, assign("walk-3", "raise-2", "walk-2"))
    whole = [episode for episode in rollout.episodes if episode.ended != "failed"]
    stats = rollout.stats
    assert (stats.num_episodes, stats.num_failed, stats.num_steps) == (2, 1, 5)
    assert stats.num_generated_tokens == 5 * 3
    assert stats.num_tokens == 5 * 3 + sum(len(step.prompt_ids) for episode in whole for step in episode.steps)
    # The third response to "raise-2" was generated, and lost.
    assert stats.num_requests == 8
    assert stats.generation_seconds + stats.environment_wait_seconds <= stats.seconds


def test_nothing_to_do():
    with make_pool(2, 1) as pool:
        rollout = collect(going(), pool, CODEC, [])
    assert rollout.episodes == ()
    assert (rollout.stats.num_episodes, rollout.stats.mean_batch_size) == (0, 0.0)


@pytest.mark.parametrize("overlap", [True, False])
def test_a_killed_worker_costs_only_what_was_in_flight_on_it(overlap):
    task_ids = ["walk-9", "walk-9", "kill-2", "walk-9", "walk-9", "walk-9", *["walk-3"] * 6]
    with make_pool(6, 3) as pool:
        pids = pool.worker_pids
        rollout = collect(going(), pool, CODEC, assign(*task_ids), overlap=overlap)
        assert [old == new for old, new in zip(pids, pool.worker_pids, strict=True)] == [True, False, True]
    failed = [i for i, episode in enumerate(rollout.episodes) if episode.ended == "failed"]
    # Slots 2 and 3 share a worker.
    assert failed == [2, 3]
    assert {rollout.episodes[i].failure.boundary for i in failed} == {"worker"}
    assert all(len(step.response_ids) == 3 for i in failed for step in rollout.episodes[i].steps)
    assert rollout.stats.num_failed == 2
    assert [e.num_steps for e in rollout.episodes if e.ended == "terminated"] == [9] * 4 + [3] * 6


def test_a_hanging_worker_costs_only_what_was_in_flight_on_it():
    with make_pool(4, 2, step_timeout=0.4) as pool:
        rollout = collect(going(), pool, CODEC, assign("hang-1", "walk-5", "walk-5", "walk-5", "walk-2"))
    assert [episode.ended for episode in rollout.episodes] == ["truncated", "failed", *["terminated"] * 3]
    assert "step_timeout=0.4" in rollout.episodes[0].steps[-1].invalid_action
    assert "step_timeout=0.4" in rollout.episodes[1].failure.message


def test_a_policy_that_fails_once_costs_only_that_call():
    policy = Watched(going(), failing_calls={3})
    with make_pool(4, 2) as pool:
        rollout = collect(policy, pool, CODEC, assign(*["walk-3"] * 8))
    failed = [i for i, episode in enumerate(rollout.episodes) if episode.ended == "failed"]
    assert failed == [0, 2]
    assert rollout.episodes[0].failure.boundary == "model"
    assert rollout.episodes[0].num_steps == 1
    assert rollout.stats.num_episodes == 6


def test_a_policy_that_keeps_failing_ends_the_rollout():
    assert MAX_FAILED_CALLS == 3
    assignments = assign(*["walk-3"] * 20)
    with make_pool(2) as pool:
        collect(Watched(going(), failing_calls={2, 3, 5, 6}), pool, CODEC, assignments)
        policy = Watched(going(), failing_calls={2, 3, 4})
        with pytest.raises(InfrastructureError, match="the server is down"):
            collect(policy, pool, CODEC, assignments)
        assert len(policy.calls) == 4
        # The pool can be used again.
        assert collect(going(), pool, CODEC, assignments).stats.num_failed == 0


def test_tasks_that_never_start_end_the_rollout():
    with make_pool(4) as pool:
        policy = Watched(going())
        few = assign(*["raisestart-0"] * (MAX_FAILED_STARTS - 1), "walk-1", "raisestart-0")
        assert collect(policy, pool, CODEC, few).stats.num_failed == MAX_FAILED_STARTS
        with pytest.raises(InfrastructureError, match=r"10 episodes in a row.*the walker fell"):
            collect(policy, pool, CODEC, assign(*["raisestart-0"] * MAX_FAILED_STARTS))


def test_a_worker_that_takes_many_first_prompts_with_it_does_not_end_the_rollout():
    number = MAX_FAILED_STARTS + 2
    with make_pool(number, 1) as pool:
        rollout = collect(going(), pool, CODEC, assign("killstart-0", *["walk-2"] * (2 * number)), overlap=False)
    assert rollout.stats.num_failed == number
    assert rollout.stats.num_episodes == number + 1


def test_a_pool_is_used_again_after_an_error_with_work_under_way():
    with make_pool(4, 2, delay=0.2) as pool:
        with pytest.raises(InfrastructureError):
            collect(Watched(going(), failing_calls={2, 3, 4}), pool, CODEC, assign(*["slow-3"] * 12))
        again = collect(going(), pool, CODEC, assign(*["walk-3"] * 8))
    with make_pool(4) as pool:
        fresh = collect(going(), pool, CODEC, assign(*["walk-3"] * 8))
    assert without_time(again.episodes) == without_time(fresh.episodes)


def test_the_expert_is_asked_only_for_policies_that_need_it():
    for policy, expected in ((ExpertPolicy(CODEC), 3.0), (going(), 0.0)):
        with make_pool(1) as pool:
            (episode,) = collect(policy, pool, CODEC, assign("walk-3")).episodes
        assert episode.metrics["experts"] == expected
        assert episode.success
        assert episode.steps[1].response == ("go expert 1" if expected else "go")


def test_mistakes_of_the_call_are_raised():
    class Short:
        needs_expert = False

        def respond(self, requests):
            return []

    with make_pool(2) as pool:
        with pytest.raises(ValueError, match="gave 0 for 1"):
            collect(Short(), pool, CODEC, assign("walk-1"))
        with pytest.raises(ValueError, match="max_prompt_tokens must be at least 1 or None, got 0"):
            collect(going(), pool, CODEC, assign("walk-1"), max_prompt_tokens=0)
