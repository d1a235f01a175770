"""Scores of credit against the truth: properties, slow references, and rules whose answers are known."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import ClassVar

import numpy as np
import pytest

from steppo_gym.audit.continuations import Plan, Table, audit_points
from steppo_gym.audit.mixtures import NoisyExpert
from steppo_gym.audit.points import Arm, AuditedPoint, choose_points
from steppo_gym.audit.resampling import resampled_batches, sampled_credit
from steppo_gym.audit.scores import (
    credit_error,
    credit_of_steps,
    dose,
    gradient_cosine,
    rank_correlation,
    score,
    score_by,
    sign_accuracy,
)
from steppo_gym.credit.records import Credit, CreditRule
from steppo_gym.envs.key_door.actions import parse_action
from steppo_gym.envs.key_door.exact import ExactValues, noisy_expert
from steppo_gym.envs.key_door.game import apply_action, first_state
from steppo_gym.envs.key_door.generate import generate_task
from steppo_gym.errors import SteppoGymError
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect
from steppo_gym.trainers.rules import GRPO, StepPO

CODEC = ByteCodec()
FACTORY = EnvFactory("steppo/KeyDoor-v0", {})
NOISE = 0.5


@pytest.fixture(scope="module")
def audit():
    """Episodes in groups, audited steps of theirs, continuations, and what is exact: V by state, A of every step."""
    policy, env = NoisyExpert(CODEC, NOISE), FACTORY.make()
    with EnvPool(FACTORY, num_slots=16) as pool:
        todo = [Assignment(task, seed=0, group=i) for i, task in enumerate(env.task_ids[:10]) for _ in range(8)]
        episodes = collect(policy, pool, CODEC, todo).episodes
        points = choose_points(episodes, 40, seed=1)
        plan = Plan(continuations=6, alternatives=1, points_at_once=40)
        audited, played = zip(*audit_points(Table(policy, pool, CODEC, env), points, episodes, plan), strict=True)
    return episodes, audited, played


@functools.cache
def known_values(task_id):
    return ExactValues(generate_task(task_id), noisy_expert(NOISE))


def exact_along(episode):
    """V before each step, A of each step."""
    known = known_values(episode.task_id)
    task, out = known.task, []
    state = first_state(task)
    for place, step in enumerate(episode.steps):
        action = parse_action(step.response, "tag")
        out.append((known.value(state, 10 - place), known.advantage(state, action, 10 - place)))
        state = apply_action(task, state, action).state
    return out


def exact_critic(episodes):
    values = [value for episode in episodes for value, _ in exact_along(episode)]
    return np.array([*values, *np.zeros(len(episodes))])


@dataclasses.dataclass(frozen=True)
class Truth(CreditRule):
    """Gives every step its exact advantage."""

    def __call__(self, records):
        return Credit("step", np.array([a for episode in records.episodes for _, a in exact_along(episode)]))


@dataclasses.dataclass(frozen=True)
class Shuffled(CreditRule):
    """Gives the exact advantages of the batch to other steps of the batch."""

    generator: ClassVar[np.random.Generator] = np.random.default_rng(0)

    def __call__(self, records):
        return Credit("step", self.generator.permutation(Truth()(records).advantages))


def exact_truth(audit):
    episodes, audited, _ = audit
    return np.array([exact_along(episodes[p.episode])[p.place][1] for p in audited])


def scores_of(rule, audit, critic=None, number=60):
    episodes, audited, played = audit
    batches = list(resampled_batches(episodes, audited, played, group_size=4, groups=6, number=number, seed=3))
    steps, credit = sampled_credit(rule, batches, critic)
    truth = exact_truth(audit)
    return score(steps, credit, truth, np.abs(truth) > 0.02)


def test_the_truth_as_a_rule_scores_one(audit):
    found = scores_of(Truth(), audit)
    assert found.sign == 1.0 and found.cosine == pytest.approx(1.0) and found.rank == pytest.approx(1.0)
    assert found.error.bias == pytest.approx(0, abs=1e-12) and found.error.variance == pytest.approx(0, abs=1e-9)
    assert found.error.scale == pytest.approx(1.0)


def test_shuffled_credit_scores_chance(audit):
    found = scores_of(Shuffled(), audit, number=150)
    assert found.number > 600
    assert found.sign == pytest.approx(0.5, abs=0.06)
    assert found.rank == pytest.approx(0.0, abs=0.08)
    assert abs(found.cosine) < 0.5
    assert found.error.total == pytest.approx(1.0, abs=0.02)


def test_a_perfect_critic_makes_steppo_nearly_true_and_grpo_knows_less(audit):
    steppo = scores_of(StepPO(gamma=1.0, gae_lambda=0.0, whiten_advantages=False), audit, exact_critic)
    grpo = scores_of(GRPO(), audit)
    # KeyDoor does what is said, so that one step of temporal difference is the advantage itself.
    assert steppo.sign == 1.0 and steppo.cosine == pytest.approx(1.0)
    assert steppo.error.total == pytest.approx(0, abs=1e-9)
    assert 0.5 < grpo.sign < 0.95 and 0 < grpo.cosine < 1
    assert grpo.error.variance > 0.02 and 0.3 < grpo.error.total < 1


def test_a_rule_that_reads_a_critic_needs_one(audit):
    with pytest.raises(ValueError, match="StepPO reads the values of a critic"):
        scores_of(StepPO(), audit)


@pytest.mark.parametrize(
    ("unit", "factor", "said"),
    [("token", 1.0, "one number for each token: its advantages must have shape"), ("step", math.nan, "is not finite")],
)
def test_credit_that_fits_no_episodes_is_scored_nowhere(audit, unit, factor, said):
    class Wrong(CreditRule):
        def __call__(self, records):
            return Credit(unit, factor * records.rewards)

    with pytest.raises((ValueError, SteppoGymError), match=said):
        scores_of(Wrong(), audit, number=2)


def test_batches_hold_whole_groups_and_the_audited_response(audit):
    episodes, audited, played = audit
    batches = list(resampled_batches(episodes, audited, played, group_size=4, groups=6, number=30, seed=3))
    tails = set()
    for batch in batches:
        assert len(batch.episodes) == 24
        groups = [episode.group for episode in batch.episodes]
        assert all(groups.count(group) == 4 for group in groups) and len(set(groups)) == 6
        assert all(len({e.task_id for e in batch.episodes if e.group == g}) == 1 for g in groups)
        steps = [(episode, step) for episode in batch.episodes for step in episode.steps]
        for point, number in batch.points:
            episode, step = steps[number]
            own = episodes[audited[point].episode]
            assert step.response_ids == own.steps[audited[point].place].response_ids
            assert step.state_key == own.steps[audited[point].place].state_key
            assert [s.response for s in episode.steps[: audited[point].place]] == [
                s.response for s in own.steps[: audited[point].place]
            ]
            assert step.log_probs == own.steps[audited[point].place].log_probs is not None
            assert sum(e is own for e in batch.episodes) == 0
            tails.add((point, tuple(s.response for s in episode.steps)))
    assert len(tails) > len({point for point, _ in tails}), "rests of episodes are drawn anew"
    assert len({point for point, _ in tails}) > 30
    with pytest.raises(ValueError, match="No group has 9 episodes"):
        next(resampled_batches(episodes, audited, played, group_size=9, groups=1, number=1, seed=0))


def test_the_mean_of_a_fair_rule_over_batches_is_the_truth():
    """A return minus its exact expectation is an unbiased estimate; the resampling must not spoil that."""

    # One state, response "a" earns 1 in half of the cases and "b" nothing; the policy writes either in half the cases.
    def episode(response, reward, group=0):
        return Episode("t", (Step((1,), (2,), None, response, reward, "s"),), "terminated", group=group)

    episodes = tuple(episode(r, x) for r, x in [("a", 1.0), ("a", 0.0), ("b", 0.0), ("b", 0.0)] * 4)
    point = AuditedPoint(0, 0, 0, 1, 0, (0.0, 1.0, 0.0, 0.0), (Arm((2,), "a", 2, (1.0, 0.0)),))
    batches = list(
        resampled_batches(
            episodes, [point], [[episode("a", 1.0), episode("a", 0.0)]], group_size=5, groups=1, number=3000, seed=0
        )
    )

    class Leave(GRPO):
        def __call__(self, records):
            returns = records.returns
            return Credit("step", np.array([x - np.delete(returns, i).mean() for i, x in enumerate(returns)]))

    steps, credit = sampled_credit(Leave(), batches)
    assert steps == [0] * 3000
    # A* = 1/2 - 1/4; the peers are 15 episodes of which 3 earn 1.
    assert credit.mean() == pytest.approx(0.5 - 3 / 15, abs=0.03)


def slow_ranks(x):
    return [sum(b < a for b in x) + (sum(b == a for b in x) + 1) / 2 for a in x]


def test_rank_correlation_is_that_of_ranks():
    rng = np.random.default_rng(0)
    for _ in range(50):
        a, b = rng.integers(0, 5, 9).astype(float), rng.normal(size=9).round(1)
        assert rank_correlation(a, b) == pytest.approx(np.corrcoef(slow_ranks(a), slow_ranks(b))[0, 1])
        assert rank_correlation(np.exp(a), 3 * b + 1) == pytest.approx(rank_correlation(a, b))
    assert math.isnan(rank_correlation([1, 1], [1, 2])) and math.isnan(rank_correlation([], []))


def test_the_cosine_is_that_of_the_gradients():
    rng = np.random.default_rng(0)
    scores, credit, truth = rng.normal(size=(12, 40)), rng.normal(size=12), rng.normal(size=12)
    a, b = credit @ scores, truth @ scores
    expected = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert gradient_cosine(credit, truth, scores @ scores.T) == pytest.approx(expected)
    assert gradient_cosine(3 * credit, truth, scores @ scores.T) == pytest.approx(expected)
    assert gradient_cosine(-truth, truth) == pytest.approx(-1)
    assert gradient_cosine(credit, truth) == pytest.approx(gradient_cosine(credit, truth, np.eye(12)))
    assert math.isnan(gradient_cosine(np.zeros(3), [1, 2, 3]))
    with pytest.raises(ValueError, match="gram must have shape"):
        gradient_cosine(credit, truth, np.eye(3))
    with pytest.raises(ValueError, match="lists of one length"):
        gradient_cosine([1.0], [1.0, 2.0])


def test_signs_and_dose_by_hand():
    assert sign_accuracy([2, -1, 0, 5], [1, 1, 3, 0]) == pytest.approx((1 + 0 + 0.5) / 3)
    # What rounding leaves of no credit is none, here as in what training logs.
    assert sign_accuracy([1e-10, 1e-10], [1, 2]) == 0.5
    assert math.isnan(sign_accuracy([1.0], [0.0]))
    assert dose([0.0, 1e-10, -0.1, 2.0]) == 0.5 and math.isnan(dose([]))


def slow_error(steps, credit, truth):
    """The definition: the best scale by search, bias and variance over the samples of each step."""
    seen = sorted(set(steps))
    by = {d: [c for s, c in zip(steps, credit, strict=True) if s == d] for d in seen}
    means, variances = (np.array([of(by[d]) for d in seen]) for of in (np.mean, np.var))
    right = np.array([truth[d] for d in seen])
    scales = np.linspace(0, 5, 50001)[:, None]
    bias = ((scales * means - right) ** 2).mean(1) / np.mean(right**2)
    variance = (scales**2 * variances).mean(1) / np.mean(right**2)
    best = np.argmin(bias + variance)
    return bias[best], variance[best], scales[best, 0]


def test_bias_and_variance_are_those_of_the_definition():
    rng = np.random.default_rng(1)
    for _ in range(3):
        truth = rng.normal(size=5)
        steps = [0, 1, 2, 3, 3, 3, 0, 1, 1]
        credit = truth[steps] * 0.6 + rng.normal(size=9) * 0.4
        found = credit_error(steps, credit, truth)
        assert (found.bias, found.variance, found.scale) == pytest.approx(slow_error(steps, credit, truth), abs=2e-3)
        doubled = credit_error(steps, 2 * credit, truth)
        assert (doubled.bias, doubled.variance) == pytest.approx((found.bias, found.variance))
        assert doubled.scale == pytest.approx(found.scale / 2)
    against = credit_error([0, 1], [-1.0, 1.0], [1.0, -1.0])
    assert (against.bias, against.variance, against.scale) == (1.0, 0.0, 0.0)
    assert credit_error([0], [0.0], [1.0]).total == 1.0
    assert math.isnan(credit_error([], [], [1.0]).total)
    with pytest.raises(ValueError, match="steps 0 to 0"):
        credit_error([1], [1.0], [1.0])


def test_credit_of_tokens_becomes_that_of_their_step():
    credit = Credit("token", np.array([1.0, 3.0, -2.0]))
    assert credit_of_steps(credit, [2, 0, 1]).tolist() == [2.0, 0.0, -2.0]
    assert credit_of_steps(Credit("step", np.array([5.0])), [3]).tolist() == [5.0]


def test_classes_are_scored_alone():
    truth, steps, credit = np.array([1.0, -1.0, 2.0, 1.0]), [0, 1, 2, 2], [1.0, 1.0, 2.0, 3.0]
    by = score_by(["short", "short", "long", "long"], steps, credit, truth, [True] * 4)
    assert list(by) == ["short", "long"]
    assert by["short"].sign == 0.5 and by["long"].sign == 1.0
    assert by["long"] == score([2, 2], [2.0, 3.0], truth, [True] * 4)
    assert list(score_by(["a", "b", "b", "b"], [0], [1.0], truth, [True] * 4)) == ["a"]
