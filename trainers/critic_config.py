"""Settings that exist only where a rule has a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from steppo_gym.trainers.setting import check_ranges, setting

CriticKind = Literal["full", "lora", "head"]


@dataclass(frozen=True)
class CriticConfig:
    """How the critic learns and what it says.

    Raises:
        ValueError: a value outside its range.
    """

    critic: CriticKind | None = setting(
        None,
        "full: a copy of the policy, all of it trained; lora: frozen weights with adapters of its own; head: a linear "
        "layer on the policy's hidden states. By default lora with --use_peft, else full.",
    )
    critic_learning_rate: float = setting(1e-5, "Learning rate of the critic.")
    critic_warmup_iterations: int = setting(0, "First iterations in which only the critic learns.")
    value_clip_range: float | None = setting(
        0.5,
        "Clip of the value's change in the value loss, in units of the iteration's largest reward (at least 1); None "
        "for none.",
    )
    bootstrap_truncated: bool = setting(
        True,
        "Value of the state an episode was cut off in: the critic's, as if it went on; off: 0, for success that counts "
        "only within the limit.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.critic is not None and self.critic not in get_args(CriticKind):
            raise ValueError(f"critic must be one of {', '.join(get_args(CriticKind))}, got {self.critic!r}.")
        check_ranges(self, {"critic_learning_rate": 0, "critic_warmup_iterations": 0}, finite=["critic_learning_rate"])
        if self.value_clip_range is not None and not self.value_clip_range > 0:
            raise ValueError(f"value_clip_range must be above 0, or None, got {self.value_clip_range}.")
