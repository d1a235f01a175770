"""Which TRL this is made for, and which settings of its GRPOConfig have an effect; changing another one is refused.

Every field of GRPOConfig, those of transformers' TrainingArguments included, is one of four things: redefined by
`StepConfig`; used (`USED`); computed from one of ours (`COMPUTED`), which is to be set instead; or without effect. The
last are not listed: they are all the others, so a setting that a new version of TRL brings is refused until it has been
looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING
from typing import Any

from accelerate.utils import DistributedType
from packaging.version import Version
from trl.trainer.grpo_config import GRPOConfig

from steppo_gym.errors import UnsupportedVersionError

USED: Mapping[str, tuple[str, ...]] = {
    "the policy and its reference, which GRPOTrainer loads": (
        "model_init_kwargs", "trust_remote_code", "cast_lm_head_to_fp32", "chat_template_kwargs",
        "sync_ref_model", "ref_model_mixup_alpha", "ref_model_sync_steps", "use_liger_kernel", "liger_kernel_config",
        "activation_checkpointing", "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "use_cache",
        "torch_compile", "torch_compile_backend", "torch_compile_mode",
    ),
    "StepTrainer's rollouts and loss": (
        "temperature", "max_completion_length", "beta", "epsilon", "epsilon_high", "num_iterations", "bf16", "fp16",
        "seed", "gradient_accumulation_steps", "output_dir",
    ),
    "vLLM, which GRPOTrainer starts": (
        "use_vllm", "vllm_mode", "vllm_model_impl", "vllm_enable_sleep_mode", "vllm_server_base_url",
        "vllm_server_host", "vllm_server_port", "vllm_server_timeout", "vllm_group_port", "vllm_gpu_memory_utilization",
        "vllm_max_model_length", "vllm_tensor_parallel_size",
    ),
    "the data loader, which deals out the task ids": (
        "shuffle_dataset", "dataloader_drop_last", "dataloader_in_order", "dataloader_multiprocessing_context",
        "dataloader_num_workers", "dataloader_persistent_workers", "dataloader_pin_memory",
        "dataloader_prefetch_factor",
    ),
    "optimizer and schedule": (
        "optim", "optim_args", "optim_target_modules", "adam_beta1", "adam_beta2", "adam_epsilon", "weight_decay",
        "max_grad_norm", "lr_scheduler_kwargs", "warmup_steps",
    ),
    "the training loop, its processes and its precision": (
        "ddp_backend", "ddp_broadcast_buffers", "ddp_bucket_cap_mb", "ddp_find_unused_parameters",
        "ddp_static_graph", "ddp_timeout", "debug", "full_determinism", "skip_memory_metrics", "tf32",
        "use_cpu", "ignore_data_skip",
        # These have the effect that StepTrainer refuses to start.
        "deepspeed", "fsdp", "fsdp_config", "parallelism_config",
    ),
    "evaluation and checkpoints": (
        "eval_delay", "eval_on_start", "greater_is_better", "metric_for_best_model",
        "restore_callback_states_from_checkpoint", "save_on_each_node", "save_only_model",
        "save_total_limit",
    ),
    "what is logged and where": (
        "log_level", "log_level_replica", "log_on_each_node", "logging_nan_inf_filter",
        "project", "report_to", "run_name", "trackio_bucket_id", "trackio_space_id",
        "trackio_static_space_id",
    ),
}  # fmt: skip
"""By what they belong to."""

NEEDS: Mapping[str, str] = {
    **{name: "use_vllm" for names in USED.values() for name in names if name.startswith("vllm_")},
    "ref_model_mixup_alpha": "sync_ref_model",
    "ref_model_sync_steps": "sync_ref_model",
    "eval_delay": "evaluate_every",
    "metric_for_best_model": "evaluate_every",
    "greater_is_better": "metric_for_best_model",
}
"""What is read only where another setting is on."""

COMPUTED: Mapping[str, str] = {
    "max_steps": "iterations",
    "num_train_epochs": "iterations",
    "generation_batch_size": "episodes_per_iteration",
    "per_device_train_batch_size": "episodes_per_iteration",
    "steps_per_generation": "updates_per_iteration",
    "logging_steps": "updates_per_iteration",
    "logging_strategy": "updates_per_iteration",
    "eval_strategy": "evaluate_every",
    "eval_steps": "evaluate_every",
    "save_strategy": "save_every",
    "save_steps": "save_every",
    "resume_from_checkpoint": "--resume",
}
"""What TRL counts in its own words, and the setting here that it follows from."""

SAMPLING = ("top_p", "top_k", "min_p", "repetition_penalty", "generation_kwargs", "vllm_structured_outputs_regex")
"""What would change the distribution that is sampled from."""


REFUSED: Mapping[str, str] = {
    "push_to_hub": (
        "would push the folder of the run, which is no model. When the run is done, give its result to the Hub: hf "
        "upload NAME FOLDER/final"
    ),
    "enable_jit_checkpoint": (
        "would write a checkpoint in the middle of an iteration, from which no run goes on as it was. SIGTERM ends a "
        "run with a checkpoint as it is."
    ),
    "accelerator_config": (
        "would deal out and accumulate batches otherwise than tasks and updates are counted here. Set "
        "--gradient_accumulation_steps."
    ),
    "neftune_noise_alpha": "would put noise into updates that is not in rollouts, so that ratios would not start at 1.",
}
"""What would do harm, and why."""

EVALUATED = ("reduce_lr_on_plateau", "greedy")
"""Schedules that follow the loss on a data set."""

OTHER_UPDATES: Mapping[str, str] = {
    "lomo": "changes weights in every backward pass, of which an update has several, before gradients are whole.",
    "layerwise": "changes weights in every backward pass, of which an update has several, before gradients are whole.",
    "schedule_free": "has other weights in updates than those that are to be played with.",
}
"""By a part of their names, optimizers that an update as it is made here cannot serve."""


def check_trl_version(installed: str) -> None:
    """Raise an UnsupportedVersionError unless TRL is the minor version whose private methods are overridden."""
    if Version(installed).release[:2] != (1, 16):
        raise UnsupportedVersionError(
            f"StepTrainer overrides private methods of TRL 1.16, found TRL {installed}. "
            "Run `pip install 'trl>=1.16,<1.17'`."
        )


def fields_without_effect(redefined: frozenset[str]) -> list[str]:
    """The fields of GRPOConfig that are neither among `redefined`, nor used, nor computed, nor of the sampling."""
    known = redefined.union(*USED.values(), COMPUTED, SAMPLING)
    return [name for name in GRPOConfig.__dataclass_fields__ if name not in known]


def check_effect(config: GRPOConfig, redefined: frozenset[str]) -> None:
    """Raise a ValueError for the settings of GRPOConfig that were changed and would be ignored, or worse.

    Called before anything is computed, so that what differs from the default is what was given.

    Args:
        config: settings of the run.
        redefined: the fields that are not TRL's any more.
    """
    for name, ours in COMPUTED.items():
        if _changed(config, name):
            raise ValueError(f"Set {ours} instead of {name}, which follows from it.")
    for name, reason in REFUSED.items():
        if _changed(config, name):
            raise ValueError(f"{name} {reason}")
    sampling = [name for name in SAMPLING if _changed(config, name)]
    if sampling:
        raise ValueError(
            f"{', '.join(sampling)}: rollouts sample from the whole distribution, so that its log-probabilities are "
            "those of the policy that is trained. Only temperature can be changed."
        )
    for name, needed in NEEDS.items():
        if _changed(config, name) and not getattr(config, needed):
            raise ValueError(f"{name} has no effect without {needed}.")
    _check_optimizer(config)
    _check_schedule(config)
    ignored = [name for name in fields_without_effect(redefined) if _changed(config, name)]
    if ignored:
        raise ValueError(
            f"{', '.join(ignored)} of GRPOConfig would have no effect: rollouts, credit and loss are not GRPO's."
        )


def _check_optimizer(config: GRPOConfig) -> None:
    optimizer = str(getattr(config.optim, "value", config.optim))
    for part, reason in OTHER_UPDATES.items():
        if part in optimizer:
            raise ValueError(f"optim {optimizer} {reason} Choose another, such as adamw_torch.")


def _check_schedule(config: GRPOConfig) -> None:
    schedule = str(getattr(config.lr_scheduler_type, "value", config.lr_scheduler_type))
    if schedule in EVALUATED:
        raise ValueError(
            f"lr_scheduler_type {schedule} follows a loss on held-out data, and held-out tasks are played here. Choose "
            "another, such as linear."
        )
    for name in ("warmup_steps", "lr_scheduler_kwargs") if schedule == "constant" else ():
        if _changed(config, name):
            raise ValueError(
                f"{name} has no effect on --lr_scheduler_type constant. Choose another, such as constant_with_warmup."
            )


def _changed(config: Any, name: str) -> bool:
    field = GRPOConfig.__dataclass_fields__[name]
    default = field.default if field.default_factory is MISSING else field.default_factory()
    value = getattr(config, name)
    # The command line reads `include_num_input_tokens_seen`, text or bool, as a bool.
    return value != default and (value, default) != (False, "no")


def no_reward_function(**_: Any) -> list[float]:
    """GRPOTrainer refuses to start without a reward source; rewards come from the environments."""
    raise AssertionError("Rewards come from the environments.")


def check_distribution(found: DistributedType) -> None:
    """Raise a ValueError unless accelerate leaves models whole in every process; `--shard` is not its."""
    if found not in (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU):
        raise ValueError(
            f"StepTrainer runs in one process or in several of torchrun, found {found}. Its critic is a second model, "
            "which accelerate's sharding and DeepSpeed's engines, made for one, do not cover. Give --shard full."
        )
