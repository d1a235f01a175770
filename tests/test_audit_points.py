"""Values and advantages by playing on, held against dynamic programming and against small cases done by hand."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from steppo_gym.audit.continuations import FIRST_STREAM, Plan, Table, audit_points
from steppo_gym.audit.forced import ForcedPolicy
from steppo_gym.audit.intervals import mean_interval, share_interval
from steppo_gym.audit.mixtures import NoisyExpert
from steppo_gym.audit.points import Arm, AuditedPoint, choose_points
from steppo_gym.envs.key_door.actions import action_text, parse_action
from steppo_gym.envs.key_door.exact import ExactValues, noisy_expert
from steppo_gym.envs.key_door.game import apply_action, first_state, possible_actions
from steppo_gym.envs.key_door.generate import generate_task
from steppo_gym.errors import DataError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect

CODEC = ByteCodec()
FACTORY = EnvFactory("steppo/KeyDoor-v0", {})
MAX_STEPS = 10


def play_and_audit(number, plan, *, noise, num_tasks, seed=0, gamma=1.0):
    """Episodes of an erring expert, and some of their steps audited."""
    policy = NoisyExpert(CODEC, noise, seed=seed)
    env = FACTORY.make()
    with EnvPool(FACTORY, num_slots=16) as pool:
        todo = [Assignment(task, seed=0, group=i) for i, task in enumerate(env.task_ids[:num_tasks])]
        episodes = collect(policy, pool, CODEC, todo).episodes
        points = choose_points(episodes, number, seed=seed)
        return episodes, list(audit_points(Table(policy, pool, CODEC, env), points, episodes, plan))


def exact(episode, place, responses, *, noise, gamma=1.0):
    """V and the Q of each response in the state of a step."""
    task = generate_task(episode.task_id)
    values = ExactValues(task, noisy_expert(noise), gamma=gamma)
    state = first_state(task)
    for step in episode.steps[:place]:
        state = apply_action(task, state, parse_action(step.response, "tag")).state
    left = MAX_STEPS - place
    return values.value(state, left), [values.action_value(state, parse_action(r, "tag"), left) for r in responses]


def coverage(audited, episodes, *, noise):
    covered = []
    for point, _ in audited:
        value, (q, *_) = exact(episodes[point.episode], point.place, [point.arms[0].response], noise=noise)
        covered.append(point.advantage(reach=1.0).covers(q - value))
    return sum(covered) / len(covered)


def slow_value(task, policy, state, steps_left):
    """The definition: over all sequences of actions, the chance of each times what it earns."""
    if state.outcome != "playing" or not steps_left:
        return 0.0
    total = 0.0
    for action, chance in policy(task, state).items():
        after = apply_action(task, state, action).state
        total += chance * ((after.outcome == "opened") + slow_value(task, policy, after, steps_left - 1))
    return total


@pytest.mark.parametrize("task_id", ["train-0", "train-1"])
def test_exact_values_are_those_of_the_definition(task_id):
    task, policy = generate_task(task_id), noisy_expert(0.4)
    values = ExactValues(task, policy)
    state = first_state(task)
    assert values.value(state, 5) == pytest.approx(slow_value(task, policy, state, 5), abs=1e-12)
    mean = sum(p * values.advantage(state, a, 5) for a, p in policy(task, state).items())
    assert mean == pytest.approx(0, abs=1e-12)
    assert ExactValues(task, noisy_expert(0.0)).value(state, MAX_STEPS) == 1.0
    assert ExactValues(task, noisy_expert(0.0), gamma=0.5).value(state, MAX_STEPS) in (0.5**3, 0.5**5)
    assert values.value(state, 0) == 0.0


def test_the_erring_expert_has_the_probabilities_it_says():
    env = FACTORY.make()
    _, info = env.reset(seed=0, options={"task_id": "train-1"})
    policy, actions = NoisyExpert(CODEC, 0.4, seed=3), info["admissible_actions"]
    ask = Request(0, (), actions, env.expert_response())
    wrote = [policy.respond([dataclasses.replace(ask, stream=(number, 0))])[0] for number in range(4000)]
    task = generate_task("train-1")
    known = {action_text(a): p for a, p in noisy_expert(0.4)(task, first_state(task)).items()}
    for action, chance in known.items():
        ids = CODEC.encode_response(f"<action>{action}</action>")
        found = [r for r in wrote if r.token_ids == ids]
        assert len(found) / 4000 == pytest.approx(chance, abs=4 * math.sqrt(chance / 4000))
        assert sum(found[0].log_probs) == pytest.approx(math.log(chance))
    assert policy.respond([dataclasses.replace(ask, stream=(7, 0))])[0] == wrote[7]
    with pytest.raises(ValueError, match="lists none"):
        policy.respond([dataclasses.replace(ask, stream=(7, 0), admissible_actions=None)])


def test_the_taken_response_is_the_one_of_the_record_and_alternatives_are_of_the_policy():
    plan = Plan(continuations=6, alternatives=2, points_at_once=5)
    episodes, audited = play_and_audit(12, plan, noise=0.6, num_tasks=6)
    assert [point.step for point, _ in audited] == choose_points(episodes, 12, seed=0)
    steps = [step for episode in episodes for step in episode.steps]
    for point, played in audited:
        assert point.arms[0].response_ids == steps[point.step].response_ids
        assert len({arm.response_ids for arm in point.arms}) == len(point.arms) <= 3
        assert sum(arm.draws for arm in point.arms) <= len(point.free) == 6
        assert all(arm.draws > 0 for arm in point.arms[1:])
        assert [e.total_reward for e in played] == list(point.arms[0].returns)
        assert {e.steps[0].response_ids for e in played} == {point.arms[0].response_ids}
        assert {e.steps[0].state_key for e in played} == {steps[point.step].state_key}
        assert episodes[point.episode].steps[point.place] is steps[point.step]
        assert AuditedPoint.from_json(point.to_json()) == point


def test_an_audit_does_not_depend_on_how_many_points_are_played_together():
    found = [
        [p for p, _ in play_and_audit(9, Plan(continuations=4, points_at_once=n), noise=0.5, num_tasks=5)[1]]
        for n in (1, 4, 100)
    ]
    assert found[0] == found[1] == found[2]


def test_where_the_policy_never_errs_nothing_is_uncertain():
    _, audited = play_and_audit(10, Plan(continuations=3), noise=0.0, num_tasks=4)
    for point, _ in audited:
        assert point.value() == 1.0 and point.advantage(reach=1.0).estimate == 0.0
        assert [arm.draws for arm in point.arms] == [3]
        assert point.verdict(0.0, reach=1.0) == "single"


def test_intervals_cover_the_exact_advantage_of_some_points():
    plan = Plan(continuations=24, alternatives=0, points_at_once=40)
    episodes, audited = play_and_audit(40, plan, noise=0.5, num_tasks=20)
    assert coverage(audited, episodes, noise=0.5) >= 0.9
    errors = []
    for point, _ in audited:
        value, (q,) = exact(episodes[point.episode], point.place, [point.arms[0].response], noise=0.5)
        errors.append((point.value() - value, point.advantage(reach=1.0).estimate - (q - value)))
    # Standard errors of the means: at most 0.5 / sqrt(40 * 24), and twice the variance for a difference.
    assert np.abs(np.mean(errors, axis=0)).max() < 0.07


@pytest.mark.slow
def test_intervals_cover_the_exact_advantage_as_often_as_they_say():
    plan = Plan(continuations=64, alternatives=0, points_at_once=50)
    episodes, audited = play_and_audit(500, plan, noise=0.5, num_tasks=120)
    assert len(audited) == 500
    assert 0.93 <= coverage(audited, episodes, noise=0.5) <= 0.97  # 0.950 when this was written


def test_common_random_numbers_make_differences_more_certain():
    """Against the same samples in another order, in which the numbers of the two sides are unrelated."""
    _, audited = play_and_audit(24, Plan(continuations=16, alternatives=0), noise=0.3, num_tasks=12)
    paired = [np.var(np.array(p.arms[0].returns) - np.array(p.free)) for p, _ in audited]
    apart = [np.var(np.array(p.arms[0].returns) - np.roll(p.free, 1)) for p, _ in audited]
    assert np.mean(paired) < 0.8 * np.mean(apart)


def test_a_choice_matters_where_its_values_differ():
    _, audited = play_and_audit(20, Plan(continuations=24, alternatives=2), noise=0.4, num_tasks=8)
    verdicts = [point.verdict(0.1, reach=1.0) for point, _ in audited]
    assert "matters" in verdicts
    assert set(verdicts) <= {"matters", "indifferent", "open", "single"}


def made(arms, free=(0.0, 1.0)):
    return AuditedPoint(0, 0, 0, 1, 0, free, tuple(Arm((i,), str(i), 1, tuple(r)) for i, r in enumerate(arms)))


def test_verdicts_by_hand():
    n = 200
    assert made([[1.0] * n, [0.0] * n]).verdict(0.5, reach=1.0) == "matters"
    assert made([[1.0] * n, [1.0] * n]).verdict(0.1, reach=1.0) == "indifferent"
    assert made([[1.0] * 4, [1.0] * 4]).verdict(0.1, reach=1.0) == "open"
    assert made([[1.0] * n]).verdict(0.1, reach=1.0) == "single"
    # Just enough for one comparison, too little where there are three.
    some, none = [1.0] * 8 + [0.0] * 12, [0.0] * 20
    assert made([some, none]).verdict(0.1, reach=1.0) == "matters"
    assert made([some, none, none]).verdict(0.1, reach=1.0) == "open"
    assert made([[1.0] * n, [1.0] * n, [None] * 3 + [0.0] * (n - 3)]).verdict(0.1, reach=1.0) == "matters"


def test_failed_continuations_are_left_out_of_pairs():
    point = made([[1.0, None, 1.0, 0.0]], free=(0.0, 1.0, None, 0.0))
    assert point.value() == pytest.approx(1 / 3)
    assert point.advantage(reach=1.0).estimate == 0.5
    with pytest.raises(ValueError, match="at least one"):
        made([[None]], free=(1.0,)).advantage(reach=1.0)
    assert math.isnan(made([[1.0]], free=(None,)).value())


def test_what_is_no_point_is_refused():
    for line in ("", "{", "[]", "{}", '{"arms": [1]}', made([[1.0]]).to_json()[:-1] + ', "x": 1}'):
        with pytest.raises(DataError, match="No audited point"):
            AuditedPoint.from_json(line)


def test_every_step_is_as_likely_to_be_chosen():
    episodes, _ = play_and_audit(1, Plan(continuations=2, alternatives=0), noise=0.5, num_tasks=4)
    number = sum(e.num_steps for e in episodes)
    counts = np.zeros(number)
    for seed in range(2000):
        chosen = choose_points(episodes, 3, seed=seed)
        assert len(set(chosen)) == 3 and chosen == sorted(chosen)
        counts[chosen] += 1
    expected = 2000 * 3 / number
    assert np.abs(counts - expected).max() < 5 * math.sqrt(expected)
    assert choose_points(episodes, 10**6, seed=0) == list(range(number))
    with pytest.raises(ValueError, match="at least 1"):
        choose_points(episodes, 0, seed=0)


def test_first_responses_are_given_and_streams_renamed():
    class Notes:
        needs_expert = False

        def respond(self, requests):
            self.streams = [request.stream for request in requests]
            return [Response((request.slot,)) for request in requests]

    inner = Notes()
    policy = ForcedPolicy(inner, [(5, 6), None], [70, 80])
    asked = [Request(slot, (), stream=stream) for slot, stream in enumerate(itertools.product((0, 1), (0, 1)))]
    assert [r.token_ids for r in policy.respond(asked)] == [(5, 6), (1,), (2,), (3,)]
    assert inner.streams == [(70, 1), (80, 0), (80, 1)]
    assert policy.respond(asked[:1])[0].token_ids == (5, 6) and len(inner.streams) == 3
    assert FIRST_STREAM > 2**32
    with pytest.raises(ValueError, match="equally many"):
        ForcedPolicy(inner, [None], [])


def test_mean_intervals():
    sample = [1.0, 0.0, -1.0, 1.0, 0.0]
    for confidence, z in ((0.95, 1.959964), (0.9, 1.644854)):
        more = np.array([*sample, 1.0, -1.0])
        half = z * math.sqrt(((more - more.mean()) ** 2).sum() / 7 / 7)
        found = mean_interval(sample, reach=1.0, confidence=confidence)
        assert found.estimate == pytest.approx(0.2)
        assert (found.low, found.high) == pytest.approx((more.mean() - half, more.mean() + half), abs=1e-6)
    scaled = mean_interval([10 * x for x in sample], reach=10.0)
    plain = mean_interval(sample, reach=1.0)
    assert (scaled.low, scaled.high) == pytest.approx((10 * plain.low, 10 * plain.high))
    assert mean_interval([0.0] * 16, reach=1.0).high > 0.1
    for bad, reach in (([], 1.0), ([2.0], 1.0), ([1.0], 0.0), ([[1.0]], 1.0)):
        with pytest.raises(ValueError, match=r"samples must|reach must"):
            mean_interval(bad, reach=reach)
    with pytest.raises(ValueError, match="confidence"):
        mean_interval([0.0], reach=1.0, confidence=1.0)


def test_share_intervals():
    """Wilson's interval holds the shares that are less than z standard errors of their own from what was seen."""
    for count, number in ((0, 10), (3, 10), (10, 10), (40, 77)):
        found = share_interval(count, number)
        for share in np.linspace(0.001, 0.999, 999):
            inside = abs(share - count / number) <= 1.959964 * math.sqrt(share * (1 - share) / number)
            if min(abs(share - found.low), abs(share - found.high)) > 1e-3:
                assert found.covers(share) == inside
    assert (share_interval(0, 0).low, share_interval(0, 0).high) == (0.0, 1.0)
    with pytest.raises(ValueError, match="between 0 and 2"):
        share_interval(3, 2)


def test_possible_actions_are_those_the_environment_lists():
    env = FACTORY.make()
    _, info = env.reset(seed=0, options={"task_id": "train-3"})
    task = generate_task("train-3")
    assert info["admissible_actions"] == tuple(map(action_text, possible_actions(task, first_state(task))))
