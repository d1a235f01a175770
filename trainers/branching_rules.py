"""Credit rules that play on from states in the middle of episodes: their environment steps belong to their budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from steppo_gym.credit.advantages import discounted_returns
from steppo_gym.credit.branching import bpo_advantages, highest_entropy_steps, vine_advantages
from steppo_gym.credit.ragged import ragged_returns
from steppo_gym.credit.records import Credit, CreditRule, Records
from steppo_gym.trainers.rule_settings import GAMMA, check_shares
from steppo_gym.trainers.setting import check_ranges, setting


@dataclass(frozen=True)
class VinePPO(CreditRule):
    """VinePPO: temporal differences of the mean returns of continuations, over steps (arXiv:2410.01679).

    The state that an episode was cut off in is worth 0: there is no playing on beyond the limit. A step whose
    continuations have all failed is valued by what its own episode earned from there on.
    """

    gamma: float = setting(1.0, GAMMA)
    continuations: int = setting(3, "Episodes played from the state of every step, to value it.")

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_shares(gamma=self.gamma)
        check_ranges(self, {"continuations": 1})

    def branches(self, records: Records) -> Sequence[int]:
        """Every step, as often as there are continuations."""
        return np.repeat(np.arange(len(records.rewards)), self.continuations).tolist()

    def __call__(self, records: Records) -> Credit:
        """Advantages of steps."""
        lengths = np.array(records.steps_per_episode, np.int64)
        own = ragged_returns(records.environment_rewards, lengths, self.gamma)
        returns: list[list[float]] = [[] for _ in own]
        for step, episode in records.continuations:
            rewards = [played.reward for played in episode.steps]
            returns[step].append(float(discounted_returns(rewards, self.gamma)[0]))
        returns = [found or [float(x)] for found, x in zip(returns, own, strict=True)]
        advantages = vine_advantages(
            records.rewards,
            [x for found in returns for x in found],
            np.zeros(len(lengths)),
            continuations_per_step=[len(found) for found in returns],
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
        )
        return Credit("step", advantages)


@dataclass(frozen=True)
class BPO(CreditRule):
    """BPO: siblings forked where the policy is least sure, each against the mean of the others (arXiv:2607.14171)."""

    gamma: float = setting(1.0, GAMMA)
    forks: int = setting(1, "Steps of each episode at which others are forked, those of highest entropy.")
    siblings: int = setting(3, "Episodes forked at each of them.")
    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "loss_average": "steps"}
    trains_branches: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_shares(gamma=self.gamma)
        check_ranges(self, {"forks": 1, "siblings": 1})

    def branches(self, records: Records) -> Sequence[int]:
        """The steps of highest entropy, as often as there are siblings."""
        lengths = records.steps_per_episode
        steps = highest_entropy_steps(records.entropies, steps_per_episode=lengths, number=self.forks)
        return np.repeat(steps, self.siblings).tolist()

    def __call__(self, records: Records) -> Credit:
        """Advantages of the steps of all episodes, forked ones included."""
        advantages = bpo_advantages(
            records.rewards,
            records.group_ids,
            records.forked_at or [-1] * len(records.episodes),
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
        )
        return Credit("step", advantages)
