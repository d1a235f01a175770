"""Settings of the algorithms: what each changes in `StepConfig`, and what only it has.

The clip range is PPO's 0.2 for all. GSPO's and StepPO's papers use 3e-4 for models of billions of parameters, because a
ratio that is a mean over a long response hardly moves; with short responses and a small policy it moves further.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from steppo_gym.trainers.setting import setting
from steppo_gym.trainers.step_config import StepConfig

_RATIO, _AVERAGE, _GAMMA = (
    StepConfig.__dataclass_fields__[n].metadata["help"] for n in ("ratio", "loss_average", "gamma")
)
_NORMALIZE = "Divide by the group's standard deviation; off for Dr. GRPO."


@dataclass
class StepPOConfig(StepConfig):
    """StepPO (arXiv:2604.18401 v2-v4): step-level GAE, one ratio per step."""

    ratio: Literal["token", "geometric", "sqrt_centered"] = setting("geometric", _RATIO)
    loss_average: Literal["tokens", "steps", "episodes", "constant"] = setting("steps", _AVERAGE)


@dataclass
class PPOConfig(StepConfig):
    """PPO over tokens (arXiv:1707.06347), with the discount and lambda that are usual for language models."""

    gamma: float = setting(1.0, _GAMMA)


@dataclass
class ReinforcePlusPlusConfig(StepConfig):
    """REINFORCE++ (arXiv:2501.03262): no critic, no groups, the KL divergence in the reward."""

    gamma: float = setting(1.0, _GAMMA)
    kl_in: Literal["loss", "reward"] = setting("reward", StepConfig.__dataclass_fields__["kl_in"].metadata["help"])


@dataclass
class GroupConfig(StepConfig):
    """What the rules share that compare the episodes of a task with each other.

    Raises:
        ValueError: groups of one, or a value outside its range.
    """

    num_generations: int = setting(8, "Episodes per task: the size of a group.")

    def __post_init__(self) -> None:
        """See `StepConfig`."""
        if self.num_generations < 2:
            raise ValueError(
                f"num_generations must be at least 2, got {self.num_generations}: an episode that is alone in its "
                "group has nothing to be compared with."
            )
        super().__post_init__()


@dataclass
class EpisodeGroupConfig(GroupConfig):
    """GRPO (arXiv:2402.03300): every episode counts the same, however long."""

    normalize_std: bool = setting(True, _NORMALIZE)
    loss_average: Literal["tokens", "steps", "episodes", "constant"] = setting("episodes", _AVERAGE)


@dataclass
class GSPOConfig(EpisodeGroupConfig):
    """GSPO (arXiv:2507.18071) with a step as its sequence."""

    ratio: Literal["token", "geometric", "sqrt_centered"] = setting("geometric", _RATIO)


@dataclass
class LeaveOneOutConfig(GroupConfig):
    """RLOO (arXiv:2402.14740): the KL divergence in the reward, no normalisation."""

    kl_in: Literal["loss", "reward"] = setting("reward", StepConfig.__dataclass_fields__["kl_in"].metadata["help"])


@dataclass
class StateGroupConfig(GroupConfig):
    """What the rules share that compare steps from equal states."""

    normalize_std: bool = setting(True, _NORMALIZE)
    gamma: float = setting(0.95, _GAMMA)
    loss_average: Literal["tokens", "steps", "episodes", "constant"] = setting("steps", _AVERAGE)
    anchor: Literal["state", "observation"] = setting(
        "state", "Which states are equal: those whose hidden state is, or those whose observation is."
    )

    def __post_init__(self) -> None:
        """See `GroupConfig`."""
        if self.anchor not in ("state", "observation"):
            raise ValueError(f"anchor must be state or observation, got {self.anchor!r}.")
        super().__post_init__()


@dataclass
class GiGPOConfig(StateGroupConfig):
    """GiGPO (arXiv:2505.10978)."""

    omega: float = setting(1.0, "Weight of the step term beside the episode term.")


@dataclass
class HGPOConfig(StateGroupConfig):
    """HGPO (arXiv:2602.22817).

    Raises:
        ValueError: a negative history.
    """

    history: int = setting(2, "Earlier states that must be equal in the narrowest group.")
    alpha: float = setting(1.0, "How much more narrow groups count; 0 for all the same.")

    def __post_init__(self) -> None:
        """See `StateGroupConfig`."""
        if self.history < 0:
            raise ValueError(f"history must be at least 0, got {self.history}.")
        super().__post_init__()


@dataclass
class GAGPOConfig(StateGroupConfig):
    """GAGPO (arXiv:2605.13217): one ratio per step."""

    ratio: Literal["token", "geometric", "sqrt_centered"] = setting("geometric", _RATIO)
