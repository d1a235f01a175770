"""Metrics of rollouts, by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from steppo_gym.credit.groups import group_advantages
from steppo_gym.credit.records import Credit
from steppo_gym.credit.whitening import moments
from steppo_gym.evaluation.scores import episode_metrics, evaluation_metrics
from steppo_gym.rollouts.episode import Episode, Failure, Step
from steppo_gym.rollouts.rollout import RolloutStats
from steppo_gym.trainers.metrics import credit_metrics, group_metrics, rollout_metrics, without_texts


def episode(group: int, *rewards: float, failed: bool = False) -> Episode:
    """An episode that succeeds where its last reward is 1."""
    steps = tuple(Step((1,), (2,), None, "", reward, "") for reward in rewards)
    if failed:
        return Episode("task", steps, "failed", failure=Failure("worker", "died"), group=group)
    return Episode("task", steps, "terminated", success=rewards[-1] == 1.0, group=group)


def test_what_groups_say():
    one = [episode(0, 0.0, 1.0), episode(0, 0.0), episode(1, -0.02, 0.0), episode(1, 0.0)]
    other = [
        # Group 0 of another process is another group. Here all returns are equal,
        *(episode(0, 0.0), episode(0, 0.0), episode(0, 1.0, failed=True)),
        # here all succeed, after different penalties,
        *(episode(1, -0.1, 1.0), episode(1, 1.0), episode(1, -0.1, 1.0)),
        # and here one is alone.
        episode(2, 1.0),
    ]
    logged = group_metrics([one, other])
    assert logged["group_size"] == pytest.approx((2 + 2 + 2 + 3 + 1) / 5)
    assert logged["uninformative_groups"] == pytest.approx(2 / 5)
    assert logged["groups_of_small_rewards"] == pytest.approx(2 / 5)
    expected = [0.5**0.5, 0.02 / 2**0.5, 0.0, 0.1 / 3**0.5]
    assert logged["group_return_std"] == pytest.approx(sum(expected) / 4)


def test_metrics_need_no_prompts_and_those_are_what_is_large():
    def played(task: str, prompts: int) -> Episode:
        steps = tuple(
            Step(tuple(range(prompts * t)), (t, 7), (-0.5, -1.0), "text", 0.5, f"{t}", "bad" if t == 2 else None)
            for t in range(5)
        )
        return Episode(task, steps, "truncated", tuple(range(prompts)), group=len(task) % 2)

    parts = [[played("a" * n, 4) for n in range(1, 30)], [episode(0, 0.5, 1.0), episode(0, 0.0, failed=True)]]
    stats = [RolloutStats(seconds=2.0, num_generated_tokens=9)] * 2
    light = [[without_texts(one) for one in part] for part in parts]
    whole = rollout_metrics(parts, stats)
    assert {"prompt_information", "group_size", "invalid_rate"} <= whole.keys()
    assert rollout_metrics(light, stats) == whole
    sizes = [len(pickle.dumps(without_texts(played("a", prompts)))) for prompts in (1, 1000)]
    assert sizes[0] == sizes[1] < len(pickle.dumps(played("a", 1000))) / 10


def test_without_groups_there_is_nothing_to_say():
    assert group_metrics([[episode(0, 1.0), episode(1, 0.0)], [episode(0, 0.0)]]) == {}
    assert group_metrics([[], [episode(0, 1.0, failed=True)]]) == {}


def test_failed_episodes_count_in_an_evaluation():
    episodes = [episode(0, 1.0), episode(0, 0.0), *(episode(0, 1.0, failed=True) for _ in range(6))]
    scores = evaluation_metrics(episodes)
    assert (scores["success"], scores["failed_rate"]) == (1 / 8, 6 / 8)
    # Of the others nothing is known beside that.
    assert (scores["return"], scores["episode_steps"]) == (0.5, 1.0)
    # In training they say nothing about the policy.
    assert episode_metrics(episodes)["success"] == 0.5


def test_an_evaluation_in_which_everything_failed_has_a_score():
    scores = evaluation_metrics([episode(0, failed=True)] * 3)
    assert scores == {"success": 0.0, "failed_rate": 1.0}
    assert "success" not in evaluation_metrics([])


def test_steps_without_an_advantage_are_told_apart():
    # Seven times 0.1 and 0.7 sum up to what is not exactly seven times their mean.
    returns, groups = [0.1] * 7 + [0.7] * 7 + [1.0, 0.0], [0] * 7 + [1] * 7 + [2, 2]
    credit = Credit("step", group_advantages(returns, groups))
    other = Credit("step", np.array([0.5, -0.5]))

    def both(counts):
        return [counts, (2, 2)]

    raw = moments(credit.advantages)
    assert credit_metrics(credit, raw, lambda part: [part])["credited_share"] == pytest.approx(2 / 16)
    assert credit_metrics(credit, raw, both)["credited_share"] == pytest.approx(4 / 18)
    assert credit_metrics(other, raw, lambda part: [part])["credited_share"] == 1
    assert "credited_share" not in credit_metrics(Credit("step", np.zeros(0)), raw, lambda part: [part])
