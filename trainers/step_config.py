"""Settings of a run, in the field's words: iterations of episodes, and updates on them.

`StepConfig` extends TRL's `GRPOConfig`, so every flag of TRL and transformers works. The few that count batches in
other words (rows, accumulation steps, optimizer steps) are computed from ours and cannot be set beside them.
"""

from __future__ import annotations

import inspect
import os
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import torch
from transformers import IntervalStrategy
from trl.trainer.grpo_config import GRPOConfig

from steppo_gym.credit.averages import LOSS_AVERAGES, LossAverage
from steppo_gym.credit.correction import Correction
from steppo_gym.credit.losses import RATIOS, Ratio
from steppo_gym.credit.records import CreditRule
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.off_policy import check_overlap, check_sampling_settings
from steppo_gym.trainers.setting import check_ranges, require_dataclass, setting
from steppo_gym.trainers.trl_settings import check_effect

KlIn = Literal["loss", "reward"]
Shard = Literal["none", "full", "hybrid"]
LEAST = {
    "iterations": 1,
    # TRL cannot make a batch of one.
    "episodes_per_iteration": 2,
    "updates_per_iteration": 1,
    "num_generations": 1,
    "num_iterations": 1,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 1,
    "max_prompt_tokens": 1,
    "max_tokens_per_micro_batch": 1,
    "num_slots": 1,
    "num_env_workers": 0,
    "evaluate_every": 0,
    "save_every": 0,
    "save_total_limit": 1,
    "record_credit": 0,
    "seed": 0,
    "learning_rate": 0,
    "beta": 0,
    "epsilon": 0,
    "epsilon_high": 0,
    "max_grad_norm": 0,
}
ABOVE_ZERO = ("temperature", "env_step_timeout")
FINITE = ("learning_rate", "beta", "temperature")
CHECKPOINTING = "activation_checkpointing"
if CHECKPOINTING not in GRPOConfig.__dataclass_fields__:
    # Transformers before 5.20 have an older name.
    CHECKPOINTING = "gradient_checkpointing"
CHOICES = {"ratio": RATIOS, "loss_average": LOSS_AVERAGES, "kl_in": get_args(KlIn), "shard": get_args(Shard)}


@dataclass
class StepConfig(GRPOConfig):
    """Settings that all credit rules share.

    Raises:
        ValueError: a value outside its range, or a TRL setting that contradicts ours.
    """

    iterations: int = setting(20, "Rounds of rollouts and the updates on them.")
    episodes_per_iteration: int = setting(128, "Episodes of one iteration, over all processes.")
    updates_per_iteration: int = setting(4, "Optimizer steps of one pass over an iteration's episodes.")
    num_generations: int = setting(1, "Episodes per task; 1 is allowed for rules without groups.")
    ratio: Ratio = setting("token", "Unit of the importance ratio.")
    loss_average: LossAverage = setting(
        "tokens",
        "What counts the same in the policy loss and its KL term; constant: tokens, over episodes x "
        "max_completion_length (Dr. GRPO).",
    )
    kl_in: KlIn = setting(
        "loss", "Where the KL divergence of --beta counts: in the loss, or in the rewards of the tokens."
    )
    max_prompt_tokens: int | None = setting(
        None,
        "Episodes with a longer prompt are truncated there; None for the model's positions less max_completion_length.",
    )
    max_tokens_per_micro_batch: int = setting(
        8192, "Padded tokens of one forward and backward pass; changes memory, not results."
    )
    shard: Shard = setting(
        "none",
        "Spread weights, gradients and the optimizer's state of all models over the processes of torchrun: full over "
        "all, hybrid over those of a node, with a copy on each node.",
    )
    recompute_log_probs: bool = setting(
        False, "Recompute sampled log-probabilities in the training pass; always done where precisions differ."
    )
    disable_dropout: bool = setting(
        True, "No dropout in updates, so that ratios start at 1; off: that of the model and of the adapters."
    )
    num_slots: int = setting(64, "Environments played at the same time, per process.")
    num_env_workers: int = setting(2, "Worker processes of the environments, per process; 0 for none.")
    env_step_timeout: float = setting(60.0, "Seconds after which an environment's step counts as hanging.")
    env_workers: str | None = setting(
        None,
        "Where the worker processes are: ray://auto or ray://host:10001 for the machines of a Ray cluster; by default "
        "this machine.",
    )
    policy_servers: str | None = setting(
        None,
        "Completions servers to sample from (vLLM's), addresses separated by commas; each process asks its share of "
        "them (docs/scaling.md).",
    )
    policy_servers_folder: str | None = setting(
        None, "Folder that the servers were started from; new weights are written there and loaded from there."
    )
    policy_servers_model: str | None = setting(None, "The servers' name of the model; their folder by default.")
    off_policy_correction: Correction = setting(
        "none",
        "Weights for what was sampled elsewhere or with older weights: truncated by token or by step, or masked by "
        "episode (docs/off_policy.md).",
    )
    off_policy_cap: float = setting(3.0, "Where these weights are cut.")
    overlap_updates: bool = setting(
        False, "Play the next iteration's episodes with the weights of now while updating; needs a correction."
    )
    overlap_environments: bool | None = setting(
        None,
        "Step one half of the environments while the policy writes for the other; with worker processes the first "
        "rollout tries both by default, and the run keeps to it if it saves a tenth (metric environments_overlap).",
    )
    stream_responses: bool = setting(
        False,
        "Ask the own model for a response as soon as an environment has answered, not in rounds: faster where "
        "responses differ much in length. With worker processes a run then repeats but for rounding.",
    )
    evaluate_every: int = setting(5, "Iterations between evaluations during training; 0 for none.")
    save_every: int = setting(5, "Iterations between checkpoints; 0 saves only the last.")
    save_episodes: bool = setting(True, "Write every episode of training to the run's folder.")
    record_credit: int = setting(
        16,
        "Episodes per iteration and process whose tokens' advantages, ratios and entropies are recorded beside the "
        "episodes; with save_episodes those of steps always are.",
    )
    disable_tqdm: bool | None = setting(False, "No progress bars; a log that is no terminal has none in any case.")
    gradient_checkpointing: bool | None = setting(None, "Deprecated by transformers; use activation_checkpointing.")  # pyright: ignore[reportIncompatibleVariableOverride]
    learning_rate: float = setting(1e-6, "Learning rate of the policy.")
    lr_scheduler_type: str = setting("constant", "Schedule of both learning rates.")

    def __post_init__(self) -> None:
        """Compute what TRL counts in other words, then let TRL check the rest."""
        self._check()
        if not torch.cuda.is_available():
            # TRL turns bfloat16 on where it is not asked; on a CPU it slows small models down and shifts
            # log-probabilities.
            self.bf16 = False if self.bf16 is None else self.bf16
            self.dataloader_pin_memory = False
        self.max_steps = self.iterations * self.updates_in_iteration
        self.logging_steps = self.updates_in_iteration
        self.logging_first_step = False
        self.eval_strategy = "steps" if self.evaluate_every else "no"
        self.eval_steps = max(1, self.evaluate_every) * self.updates_in_iteration
        self.save_strategy = "steps"
        self.save_steps = (self.save_every or self.iterations) * self.updates_in_iteration
        self.remove_unused_columns = False
        self.steps_per_generation = self.updates_per_iteration * self.gradient_accumulation_steps
        # TRL knows the number of processes only after its own checks; every launcher of torch sets this.
        processes = int(os.environ.get("WORLD_SIZE", "1"))
        slices = self.steps_per_generation * processes
        if self.episodes_per_iteration % slices:
            raise ValueError(
                f"episodes_per_iteration ({self.episodes_per_iteration}) must be a multiple of updates_per_iteration x "
                f"gradient_accumulation_steps x processes ({slices})."
            )
        self.per_device_train_batch_size = self.episodes_per_iteration // slices
        if (self.episodes_per_iteration // processes) % self.num_generations:
            raise ValueError(
                f"The episodes of one process ({self.episodes_per_iteration // processes}) must be a multiple of "
                f"num_generations ({self.num_generations}), so that a group is not torn apart."
            )
        self._check_with_trl()

    @classmethod
    def for_rule(cls, rule: type[CreditRule], **settings: Any) -> Self:
        """Settings with what the rule changes in the defaults, as its script has them."""
        return cls(**{**rule.defaults, **settings})

    def _check(self) -> None:
        check_ranges(self, LEAST, ABOVE_ZERO, FINITE)
        if self.seed >= 2**32:
            raise ValueError(f"seed must be below 2**32, got {self.seed}.")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if self.record_credit and not self.save_episodes and self.record_credit != type(self).record_credit:
            raise ValueError("record_credit has no effect without save_episodes, whose files it stands beside.")
        check_sampling_settings(self)
        check_effect(self, frozenset(inspect.get_annotations(StepConfig)))

    def _check_with_trl(self) -> None:
        # TRL refuses groups of one, which its own advantage cannot use but a critic can.
        num_generations = self.num_generations
        evaluating, self.eval_strategy = self.eval_strategy, "no"
        if num_generations == 1:
            self.num_generations = next(
                n for n in range(2, 2 + self.episodes_per_iteration) if not self.episodes_per_iteration % n
            )
        super().__post_init__()
        self.num_generations = num_generations  # pyright: ignore[reportIncompatibleVariableOverride]
        # Set after the check, which would count evaluation in groups as well.
        self.eval_strategy = IntervalStrategy(evaluating)

    @property
    def max_response_tokens(self) -> int:
        """The longest response: `max_completion_length`, which TRL lets be None."""
        return self.max_completion_length or 256

    @property
    def updates_in_iteration(self) -> int:
        """Optimizer steps of one iteration: passes (TRL's `num_iterations`) times updates per pass."""
        return int(self.num_iterations or 1) * self.updates_per_iteration


def check_rule(rule: type[CreditRule], config: StepConfig, critic_config: CriticConfig | None) -> None:
    """Raise a ValueError if rule and settings do not fit.

    That is for a rule that is no dataclass, groups of one, settings of a critic that is not there, and a choice of
    where a KL divergence counts that is not there.
    """
    require_dataclass(rule)
    if not config.beta and config.kl_in != rule.defaults.get("kl_in", StepConfig.kl_in):
        raise ValueError("kl_in has no effect without beta, the weight of the KL divergence.")
    if rule.needs_groups and config.num_generations < 2:
        raise ValueError(
            f"num_generations must be at least 2, got {config.num_generations}: an episode that is alone in its "
            "group has nothing to be compared with."
        )
    if critic_config is not None and rule.critic is None:
        raise ValueError(f"{rule.title()} has no critic, got a critic_config. Leave it out.")
    check_overlap(rule, overlap_updates=config.overlap_updates)
