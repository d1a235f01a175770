"""The credit rules: each a formula of `steppo_gym.credit` applied to `Records`, with its settings.

A rule is all that an algorithm is: its fields are the flags of its script, and `defaults` is what it changes in the
settings that all share. `docs/algorithms.md` compares them.

The clip range is PPO's 0.2 for all. GSPO's and StepPO's papers use 3e-4 for models of billions of parameters, because a
ratio that is a mean over a long response hardly moves; with short responses and a small policy it moves further.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.advantages import step_advantages, token_advantages, token_returns
from steppo_gym.credit.groups import (
    gagpo_advantages,
    gigpo_advantages,
    group_advantages,
    hgpo_advantages,
    rloo_advantages,
)
from steppo_gym.credit.records import Credit, CreditRule, Records, Unit
from steppo_gym.trainers.branching_rules import BPO, VinePPO
from steppo_gym.trainers.newer_rules import EMPG, G2PO, MTGRPO, GraphGPO, PlanPO
from steppo_gym.trainers.rule_settings import (
    ANCHOR,
    GAMMA,
    LAMBDA,
    NORMALIZE,
    WHITEN,
    Anchor,
    DiscountedStateRule,
    GAERule,
    Keys,
    check_shares,
)
from steppo_gym.trainers.setting import check_ranges, setting

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StepPO(GAERule):
    """StepPO: GAE over steps, one advantage per step, whitened over the steps of the iteration (arXiv:2604.18401)."""

    critic: ClassVar[Unit | None] = "step"
    defaults: ClassVar[Mapping[str, Any]] = {"ratio": "geometric", "loss_average": "steps"}

    def __call__(self, records: Records) -> Credit:
        """Advantages and value targets of steps."""
        values, final_values = records.split_values(len(records.rewards))
        advantages, returns = step_advantages(
            records.rewards,
            values,
            final_values,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            lam=self.gae_lambda,
        )
        return Credit("step", advantages, values, returns, whiten=self.whiten_advantages)


@dataclass(frozen=True)
class PPO(GAERule):
    """PPO: GAE over all response tokens of an episode, whitened over the tokens of the iteration (arXiv:1707.06347).

    Discount and lambda are those usual for language models.
    """

    gamma: float = setting(1.0, GAMMA)
    critic: ClassVar[Unit | None] = "token"

    def __call__(self, records: Records) -> Credit:
        """Advantages and value targets of tokens."""
        values, final_values = records.split_values(sum(records.tokens_per_step))
        advantages, returns = token_advantages(
            records.environment_rewards,
            values,
            final_values,
            tokens_per_step=records.tokens_per_step,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            lam=self.gae_lambda,
            token_rewards=records.token_rewards,
        )
        return Credit("token", advantages, values, returns, whiten=self.whiten_advantages)


@dataclass(frozen=True)
class GRPO(CreditRule):
    """GRPO: the episode's return relative to its group, the same for all its steps (arXiv:2402.03300)."""

    normalize_std: bool = setting(True, NORMALIZE)
    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "loss_average": "episodes"}

    def __call__(self, records: Records) -> Credit:
        """Advantages of episodes, given to their steps."""
        advantages = group_advantages(records.returns, records.group_ids, normalize_std=self.normalize_std)
        return Credit("step", np.repeat(advantages, records.steps_per_episode))


@dataclass(frozen=True)
class GiGPO(DiscountedStateRule):
    """GiGPO: the episode's relative return plus that of the step among steps from the same state (arXiv:2505.10978)."""

    gamma: float = setting(0.95, GAMMA)
    omega: float = setting(1.0, "Weight of the step term beside the episode term.")
    normalize_std: bool = setting(True, NORMALIZE)
    anchor: Anchor = setting("state", ANCHOR)

    def advantages(self, records: Records, keys: Keys) -> Array:
        """See `StateRule`."""
        return gigpo_advantages(
            records.rewards,
            keys,
            records.group_ids,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            omega=self.omega,
            normalize_std=self.normalize_std,
        )


@dataclass(frozen=True)
class RLOO(CreditRule):
    """RLOO: the episode's return minus the mean of the others in its group (arXiv:2402.14740).

    The KL divergence counts in the reward, and nothing is normalized.
    """

    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "kl_in": "reward"}

    def __call__(self, records: Records) -> Credit:
        """Advantages of episodes, given to their steps."""
        advantages = rloo_advantages(records.returns, records.group_ids)
        return Credit("step", np.repeat(advantages, records.steps_per_episode))


@dataclass(frozen=True)
class ReinforcePlusPlus(CreditRule):
    """REINFORCE++: reward-to-go of each token over the whole episode, whitened over all tokens (arXiv:2501.03262).

    No critic, no groups, and the KL divergence in the reward.
    """

    gamma: float = setting(1.0, GAMMA)
    whiten_advantages: bool = setting(True, WHITEN)
    defaults: ClassVar[Mapping[str, Any]] = {"kl_in": "reward"}

    @classmethod
    def title(cls) -> str:
        """As the paper writes it."""
        return "REINFORCE++"

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_shares(gamma=self.gamma)

    def __call__(self, records: Records) -> Credit:
        """Advantages of tokens."""
        returns = token_returns(
            records.environment_rewards,
            tokens_per_step=records.tokens_per_step,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            token_rewards=records.token_rewards,
        )
        return Credit("token", returns, whiten=self.whiten_advantages)


@dataclass(frozen=True)
class GSPO(GRPO):
    """GSPO: GRPO's advantages with a step as the sequence whose ratio is clipped (arXiv:2507.18071)."""

    defaults: ClassVar[Mapping[str, Any]] = {**GRPO.defaults, "ratio": "geometric"}


@dataclass(frozen=True)
class GAGPO(DiscountedStateRule):
    """GAGPO: GAE over steps with the group's mean return of a state as its value (arXiv:2605.13217)."""

    gamma: float = setting(0.95, GAMMA)
    gae_lambda: float = setting(0.95, LAMBDA)
    normalize_std: bool = setting(True, NORMALIZE)
    anchor: Anchor = setting("state", ANCHOR)
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "ratio": "geometric", "loss_average": "steps"}

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_shares(gae_lambda=self.gae_lambda)

    def advantages(self, records: Records, keys: Keys) -> Array:
        """See `StateRule`."""
        return gagpo_advantages(
            records.rewards,
            keys,
            records.group_ids,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            lam=self.gae_lambda,
            normalize_std=self.normalize_std,
        )


@dataclass(frozen=True)
class HGPO(DiscountedStateRule):
    """HGPO: step returns relative to nested groups of steps with the same recent states (arXiv:2602.22817)."""

    gamma: float = setting(0.95, GAMMA)
    history: int = setting(2, "Earlier states that must be equal in the narrowest group.")
    alpha: float = setting(1.0, "How much more narrow groups count; 0 for all the same.")
    normalize_std: bool = setting(True, NORMALIZE)
    anchor: Anchor = setting("state", ANCHOR)

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_ranges(self, {"history": 0})

    def advantages(self, records: Records, keys: Keys) -> Array:
        """See `StateRule`."""
        return hgpo_advantages(
            records.rewards,
            keys,
            records.group_ids,
            steps_per_episode=records.steps_per_episode,
            gamma=self.gamma,
            history=self.history,
            alpha=self.alpha,
            normalize_std=self.normalize_std,
        )


@dataclass(frozen=True)
class CAPO(StepPO):
    """CAPO: StepPO with the square-root-centered ratio of the paper's later version (arXiv:2604.18401v5)."""

    defaults: ClassVar[Mapping[str, Any]] = {**StepPO.defaults, "ratio": "sqrt_centered"}


ALGORITHMS: dict[str, type[CreditRule]] = {
    "steppo": StepPO,
    "ppo": PPO,
    "grpo": GRPO,
    "gigpo": GiGPO,
    "rloo": RLOO,
    "reinforce_pp": ReinforcePlusPlus,
    "gspo": GSPO,
    "gagpo": GAGPO,
    "hgpo": HGPO,
    "capo": CAPO,
    "g2po": G2PO,
    "graphgpo": GraphGPO,
    "mt_grpo": MTGRPO,
    "empg": EMPG,
    "planpo": PlanPO,
    "vineppo": VinePPO,
    "bpo": BPO,
}
"""The rule of each training script, in the order of tables."""
