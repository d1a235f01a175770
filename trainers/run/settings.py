"""What a run is: the settings of its command line, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from trl.trainer.model_config import ModelConfig

from steppo_gym.credit.records import CreditRule
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.run.presets import PRESETS, Preset
from steppo_gym.trainers.setting import setting
from steppo_gym.trainers.step_config import StepConfig


@dataclass
class RunArguments:
    """What is trained on and how it is watched."""

    env: str = setting(
        "alfworld", f"Task: {', '.join(PRESETS)}; or module:id, an environment of yours (docs/own_environment.md)."
    )
    difficulty: str | None = setting(None, "Of the built-in tasks; the easiest by default.")
    data: str | None = setting(None, "Folder of the task's official data; the built-in data by default.")
    protocol: str | None = setting(
        None, "Step limit, rewards and history: steppo, the default, or another of the task's card, such as verl-agent."
    )
    context: str | None = setting(
        None,
        "append (one conversation) or rebuilt (a complete prompt each step); by default append for the default policy "
        "and rebuilt for other models.",
    )
    action_format: str = setting("tag", "tag or tool_call.")
    invalid_action_reward: float | None = setting(
        None, "Reward of an invalid action in training; evaluation keeps the protocol's."
    )
    env_args: list[str] = field(
        default_factory=list,
        metadata={"help": "More keywords of the environments, as in goals=human observation_mode=text_rich."},
    )
    test_tasks: int = setting(
        100, "The first tasks of each test split, or all it has, played before and after training; 0 for none."
    )
    validation_tasks: int = setting(
        50, "The first tasks of each validation split, or all it has, played during training."
    )
    watch: Literal["validation", "test"] = setting(
        "validation", "Which held-out tasks are played during training; test only where nothing is chosen by them."
    )
    start: str = setting(
        "shipped",
        "What the default policy begins as: shipped (what comes with the package, where there is one and the next two "
        "flags are as usual), warm (a warm start), or a folder that make_start made.",
    )
    demonstrations: int | None = setting(
        None, "Expert episodes the default policy is warm-started on, each of another task."
    )
    warm_start_updates: int | None = setting(None, "Supervised updates of the warm start.")
    resume: bool = setting(False, "Continue the run in --output_dir from its last checkpoint.")

    def description(self) -> str:
        """The task in the run's own lines."""
        difficulty = f", {self.difficulty}" if self.difficulty else ""
        # What an environment of one's own reads is not known here.
        built_in = "" if ":" in self.env else f"built-in data{difficulty}, "
        source = f"official data in {self.data}, " if self.data else built_in
        protocol = f"protocol {self.protocol}, " if self.protocol else ""
        return f"({source}{protocol}{self.context} context)"


@dataclass(frozen=True)
class Start:
    """A policy to begin with."""

    name: str
    folder: Path
    sha256: str
    """See `steppo_gym.trainers.warm_start.start.start_hash`."""
    environment: dict[str, Any]
    """Id and keywords of the environments it was made for."""


@dataclass(frozen=True)
class RunSettings:
    """All that a command line says."""

    run: RunArguments
    config: StepConfig
    rule: CreditRule
    critic: CriticConfig | None
    """None for rules without a critic."""
    model: ModelConfig
    preset: Preset
    env_kwargs: Mapping[str, Any]
    """Keywords of all environments of the run."""
    start: Start | None = None
    """What it begins with, once that was looked up; None for a model of another kind or a warm start."""
    marks: Mapping[str, str] = field(default_factory=dict)
    """Of what the settings name and do not hold, once that was opened: few characters that differ where it does."""

    def train_spec(self) -> EnvFactory:
        """The environment that is trained on."""
        reward = self.run.invalid_action_reward
        penalty = {} if reward is None else {"invalid_action_reward": reward}
        return self.preset.spec(self.preset.train_split, {**self.env_kwargs, **penalty})
