"""Credit rules over the graph of a group's states, over rewards of steps, and over entropies and lengths.

What was checked of each against its paper, and what could not be, is in `docs/algorithms.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.groups import group_advantages
from steppo_gym.credit.modulation import empg_advantages, planpo_advantages
from steppo_gym.credit.records import Credit, CreditRule, Records
from steppo_gym.credit.state_graph import g2po_advantages, graphgpo_advantages
from steppo_gym.credit.step_rewards import mt_grpo_advantages
from steppo_gym.trainers.rule_settings import (
    ANCHOR,
    GAMMA,
    NORMALIZE,
    Anchor,
    DiscountedStateRule,
    Keys,
    StateRule,
    check_shares,
)
from steppo_gym.trainers.setting import setting

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class G2PO(DiscountedStateRule):
    """G2PO: what a step gains in the graph of the group's states, beside the episode's return (arXiv:2606.22995)."""

    gamma: float = setting(0.95, GAMMA)
    omega: float = setting(1.0, "Weight of the terms of steps beside the episode term.")
    normalize_std: bool = setting(True, NORMALIZE)
    anchor: Anchor = setting("state", ANCHOR)

    def advantages(self, records: Records, keys: Keys) -> Array:
        """See `StateRule`."""
        return g2po_advantages(
            records.rewards,
            keys,
            self.final_keys(records),
            records.group_ids,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            omega=self.omega,
            normalize_std=self.normalize_std,
        )


@dataclass(frozen=True)
class GraphGPO(StateRule):
    """GraphGPO: how near to success a step leads, along anything the group did (arXiv:2605.26684)."""

    distance_discount: float = setting(0.1, "What a success is worth a step away, above 0 and below 1.")
    episode_weight: float = setting(1.0, "Weight of the episode term.")
    graph_weight: float = setting(1.0, "Weight of the graph term.")
    normalize_std: bool = setting(True, NORMALIZE)
    anchor: Anchor = setting("state", ANCHOR)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        if not 0.0 < self.distance_discount < 1.0:
            raise ValueError(f"distance_discount must be above 0 and below 1, got {self.distance_discount}.")

    def advantages(self, records: Records, keys: Keys) -> Array:
        """See `StateRule`."""
        return graphgpo_advantages(
            records.rewards,
            keys,
            self.final_keys(records),
            records.succeeded,
            records.group_ids,
            steps_per_episode=records.steps_per_episode,
            distance_discount=self.distance_discount,
            episode_weight=self.episode_weight,
            graph_weight=self.graph_weight,
            normalize_std=self.normalize_std,
        )


@dataclass(frozen=True)
class MTGRPO(CreditRule):
    """MT-GRPO: rewards of steps and outcomes, each relative to the group (arXiv:2505.11821)."""

    alpha: float = setting(1.0, "Weight of what comes later, per step.")
    unbiased: bool = setting(
        False, "Compare what is still to come, which does not charge a policy for going on; off is as published."
    )
    normalize_std: bool = setting(True, NORMALIZE)
    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8}

    @classmethod
    def title(cls) -> str:
        """As the paper writes it."""
        return "MT-GRPO"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_shares(alpha=self.alpha)

    def __call__(self, records: Records) -> Credit:
        """Advantages of steps."""
        advantages = mt_grpo_advantages(
            records.rewards,
            records.group_ids,
            steps_per_episode=records.steps_per_episode,
            alpha=self.alpha,
            unbiased=self.unbiased,
            normalize_std=self.normalize_std,
        )
        return Credit("step", advantages)


@dataclass(frozen=True)
class EMPG(CreditRule):
    """EMPG: GRPO's credit, weaker where the policy is unsure, with a bonus for clear sequels (arXiv:2509.09265).

    Entropies are scaled over the episodes of one process.
    """

    k: float = setting(1.0, "How much the entropy of a step weakens its credit.")
    k_future: float = setting(1.0, "How much the entropy of the next step weakens the bonus.")
    zeta: float = setting(0.05, "Weight of the bonus.")
    normalize_std: bool = setting(True, NORMALIZE)
    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "loss_average": "episodes"}

    def __call__(self, records: Records) -> Credit:
        """Advantages of steps."""
        of_episodes = group_advantages(records.returns, records.group_ids, normalize_std=self.normalize_std)
        advantages = empg_advantages(
            np.repeat(of_episodes, records.steps_per_episode),
            records.entropies,
            steps_per_episode=records.steps_per_episode,
            k=self.k,
            k_future=self.k_future,
            zeta=self.zeta,
        )
        return Credit("step", advantages)


@dataclass(frozen=True)
class PlanPO(CreditRule):
    """PlanPO: short successes are better than long ones, in steps and in tokens (arXiv:2608.17289)."""

    alpha: float = setting(0.1, "Weight of the length of responses beside that of episodes.")
    normalize_std: bool = setting(True, NORMALIZE)
    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "loss_average": "episodes"}

    def __call__(self, records: Records) -> Credit:
        """Advantages of steps."""
        advantages = planpo_advantages(
            records.returns,
            records.succeeded,
            records.group_ids,
            tokens_per_step=records.tokens_per_step,
            steps_per_episode=records.steps_per_episode,
            alpha=self.alpha,
            normalize_std=self.normalize_std,
        )
        return Credit("step", advantages)
