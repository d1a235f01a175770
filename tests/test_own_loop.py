"""A loop of one's own around the package: what is easily got wrong is said in one line, and what is right works."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from steppo_gym import Episode, Failure, Step
from steppo_gym.credit import Records, gigpo_advantages, group_advantages, state_groups
from steppo_gym.credit.rows import build_rows
from steppo_gym.trainers.rules import GRPO, PPO, StepPO


def episode(group, *rewards):
    steps = tuple(Step((1, 2), (3, 4), None, "", reward, f"state {place}") for place, reward in enumerate(rewards))
    return Episode("task", steps, "terminated", group=group)


FOUR = [episode(0, 0.0, 1.0), episode(0, 0.0), episode(1, 0.0, 0.0, 1.0), episode(1, 0.0)]


class TestCredit:
    def test_groups_in_a_tensor_are_refused_as_no_two_of_its_entries_are_equal(self):
        ids = torch.tensor([0, 0, 1, 1])
        with pytest.raises(TypeError, match=r"^group_ids must have .* found Tensor. Use group_ids.tolist\(\)\.$"):
            group_advantages([1.0, 0.0, 0.0, 1.0], ids)
        with pytest.raises(TypeError, match="^group_ids must have"):
            gigpo_advantages([0.0, 1.0, 0.0, 0.0], ["a"] * 4, list(ids), steps_per_episode=[1] * 4, gamma=0.9)
        expected = group_advantages([1.0, 0.0, 0.0, 1.0], ids.tolist())
        assert expected.any() and (group_advantages([1.0, 0.0, 0.0, 1.0], ids.numpy()) == expected).all()

    def test_states_in_a_tensor_are_refused(self):
        with pytest.raises(TypeError, match="^state_keys must have .* found Tensor"):
            state_groups(torch.zeros(3, dtype=torch.long), [0], steps_per_episode=[3])

    def test_episodes_may_come_from_an_iterator(self):
        records, again = Records(iter(FOUR)), Records(FOUR)
        assert records.rewards.tolist() == again.rewards.tolist() and records.group_ids == again.group_ids
        assert (GRPO()(records).advantages == GRPO()(again).advantages).all()
        assert len(build_rows(iter(FOUR))) == len(build_rows(FOUR)) > 0

    def test_episodes_that_failed_are_refused(self):
        failed = dataclasses.replace(FOUR[1], ended="failed", failure=Failure("search", "down"))
        with pytest.raises(ValueError, match="^Episode 1 failed; leave failed episodes out"):
            Records([FOUR[0], failed])

    @pytest.mark.parametrize(("rule", "decisions"), [(StepPO(), 7), (PPO(), 14)])
    def test_values_that_lack_those_of_the_final_states_are_refused(self, rule, decisions):
        message = f"each of the {decisions} decisions .* each of the 4 episodes, got {decisions}"
        with pytest.raises(ValueError, match=message):
            rule(Records(FOUR, np.zeros(decisions)))
        assert rule(Records(FOUR, np.zeros(decisions + 4))).advantages.shape == (decisions,)
