"""Settings that exist only where a rule has a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from steppo_gym.rollouts.episode import Episode
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
        False,
        "Value of the state in which the step limit or the longest prompt cut an episode off: the critic's, as if it "
        "went on. Off: 0, as success counts within the limits only.",
    )

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.critic is not None and self.critic not in get_args(CriticKind):
            raise ValueError(f"critic must be one of {', '.join(get_args(CriticKind))}, got {self.critic!r}.")
        check_ranges(self, {"critic_learning_rate": 0, "critic_warmup_iterations": 0}, finite=["critic_learning_rate"])
        if self.value_clip_range is not None and not self.value_clip_range > 0:
            raise ValueError(f"value_clip_range must be above 0, or None, got {self.value_clip_range}.")


def has_final_value(episode: Episode, *, bootstrap_truncated: bool) -> bool:
    """Whether the critic's value of the state an episode was cut off in stands for what would have come.

    It always does where a step ran out of time: a machine that stood still is no reason to unlearn anything.
    """
    return episode.ended == "truncated" and (bootstrap_truncated or episode.timed_out)
