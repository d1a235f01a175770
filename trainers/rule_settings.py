"""What several credit rules have in common: settings with their help and checks, and how equal states are compared."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.groups import state_groups
from steppo_gym.credit.records import Credit, CreditRule, Records
from steppo_gym.trainers.setting import setting

Anchor = Literal["state", "observation"]
Keys = Sequence[str] | Sequence[tuple[int, ...]]
"""Equal for states that are said to be equal: those of hidden states, or of observations."""

GAMMA = "Discount per decision (step or token)."
LAMBDA = "Lambda of generalized advantage estimation."
WHITEN = "Normalize advantages over the iteration to mean 0 and standard deviation 1."
NORMALIZE = "Divide by the group's standard deviation; off for Dr. GRPO."
ANCHOR = "Which states are equal: those whose hidden state is, or those whose observation is."


def check_shares(**values: float) -> None:
    """Raise a ValueError that names the first value outside of 0 to 1."""
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be between 0 and 1, got {value}.")


@dataclass(frozen=True)
class GAERule(CreditRule):
    """Generalized advantage estimation over the decisions of a rule with a critic."""

    gamma: float = setting(0.99, GAMMA)
    gae_lambda: float = setting(0.95, LAMBDA)
    whiten_advantages: bool = setting(True, WHITEN)

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_shares(gamma=self.gamma, gae_lambda=self.gae_lambda)


class StateRule(CreditRule):
    """A step compared with those of its group that were taken in an equal state.

    No dataclass of its own: the rules declare these settings behind their own ones.
    """

    normalize_std: bool
    anchor: Anchor
    needs_groups: ClassVar[bool] = True
    defaults: ClassVar[Mapping[str, Any]] = {"num_generations": 8, "loss_average": "steps"}

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.anchor not in get_args(Anchor):
            raise ValueError(f"anchor must be {' or '.join(get_args(Anchor))}, got {self.anchor!r}.")

    @abstractmethod
    def advantages(self, records: Records, keys: Keys) -> npt.NDArray[np.float64]:
        """(N,) of steps; `keys` (N,) are equal exactly for equal states."""

    def final_keys(self, records: Records) -> Sequence[str | None] | Sequence[tuple[int, ...] | None]:
        """(E,) keys of the states that episodes stopped in, None where there is no going on."""
        return records.final_state_keys if self.anchor == "state" else records.final_observation_keys

    def __call__(self, records: Records) -> Credit:
        """Advantages of steps, and how many each was compared with, itself included."""
        keys = records.state_keys if self.anchor == "state" else records.observation_keys
        (groups,) = state_groups(keys, records.group_ids, steps_per_episode=records.steps_per_episode)
        return Credit("step", self.advantages(records, keys), state_group_sizes=np.bincount(groups)[groups])


class DiscountedStateRule(StateRule):
    """A `StateRule` that looks at what came after a step."""

    gamma: float

    def __post_init__(self) -> None:
        """Check the ranges."""
        super().__post_init__()
        check_shares(gamma=self.gamma)
