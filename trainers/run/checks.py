"""What a command line of the training scripts may not say: one line each, and status 2."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from trl.trainer.model_config import ModelConfig

from steppo_gym.credit.records import CreditRule
from steppo_gym.env_arguments import env_argument
from steppo_gym.trainers.run.presets import PRESETS, Preset
from steppo_gym.trainers.run.settings import RunArguments
from steppo_gym.trainers.setting import check_ranges
from steppo_gym.trainers.step_config import StepConfig

OF_FLAGS = ("data", "difficulty", "protocol", "context", "action_format")
"""Keywords of all environments of a run that have a flag of their own."""

LEAST = {"test_tasks": 0, "validation_tasks": 0, "demonstrations": 1, "warm_start_updates": 1}
"""The smallest values of `RunArguments`."""


def refuse(message: str) -> NoReturn:
    """Exit as after every command line that cannot be served: one line, status 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


def check_reports(config: StepConfig, prog: str) -> None:
    """Exit if something that is reported to is not installed."""
    for name in config.report_to or ():
        package = {"azure_ml": "azureml", "dagshub": "dagshub"}.get(name, name)
        if name not in INTEGRATION_TO_CALLBACK:
            refuse(f"{prog}: --report_to must be none or some of {', '.join(INTEGRATION_TO_CALLBACK)}, got {name!r}.")
        if find_spec(package) is None:
            refuse(f"{prog}: --report_to {name} needs a package. Run `pip install {package}`.")


def check_served_folder(folder: str | None, beginnings: Sequence[str | None], prog: str) -> None:
    """Exit if new weights would go to where the run's first ones lie."""
    if folder is not None and Path(folder).resolve() in {Path(name).resolve() for name in beginnings if name}:
        refuse(
            f"{prog}: --policy_servers_folder is where new weights go, and this run begins with those in {folder}. "
            "Copy the folder first, and start the servers from the copy."
        )


def check_run(run: RunArguments, preset: Preset) -> dict[str, Any]:
    """Exit if the flags contradict each other; return the keywords in `--env_args`."""
    if run.data is not None and run.difficulty is not None:
        refuse("--difficulty chooses among built-in tasks and cannot be combined with --data.")
    try:
        given = dict(map(env_argument, run.env_args))
    except ValueError as error:
        refuse(f"--env_args: {error}")
    if "split" in given:
        refuse("--env_args cannot choose the split: training, validation and test each have their own.")
    # Training has its own, which would go before what is given here.
    if twice := sorted(set(given) & {*OF_FLAGS, "invalid_action_reward"}):
        refuse(f"--env_args: {twice[0]} has a flag of its own. Give it as --{twice[0]}.")
    try:
        check_ranges(run, LEAST)
    except ValueError as error:
        refuse(f"--{error}")
    if run.watch == "test" and not run.test_tasks:
        refuse("--watch test plays the test tasks during training, but --test_tasks is 0.")
    if run.difficulty is not None and not preset.difficulties:
        having = ", ".join(task for task, other in PRESETS.items() if other.difficulties)
        refuse(f"--difficulty: {run.env} has only one. Tasks that have several: {having}.")
    if run.difficulty is not None and run.difficulty not in preset.difficulties:
        refuse(f"--difficulty must be one of {', '.join(preset.difficulties)}, got {run.difficulty!r}.")
    return given


def check_numbers(settings: Any) -> None:
    """Raise a ValueError for a setting that is no number, which no range would refuse, or of a rule and infinite."""
    for name, value in vars(settings).items():
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"{name} must be a number, got nan.")
        if isinstance(settings, CreditRule) and isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{name} must be finite, got {value}.")


def check_flags(model: ModelConfig, run: RunArguments, config: StepConfig) -> None:
    """Raise a ValueError for flags that would have no effect and for names that are empty.

    Raises:
        ImportError: a package that a flag needs, and that would be missed only when training begins.
    """
    for name, given in (("model_name_or_path", model.model_name_or_path), ("output_dir", config.output_dir)):
        if given is not None and not given.strip():
            raise ValueError(f"{name} must not be empty.")
    if config.use_liger_kernel and find_spec("liger_kernel") is None:
        raise ImportError("use_liger_kernel needs a package. Run `pip install liger-kernel`.")
    if config.eval_on_start:
        raise ValueError("eval_on_start has no effect: the watched tasks are always played before training.")
    quantized = _given(model, *(f.name for f in fields(ModelConfig) if "bnb" in f.name or f.name.startswith("load_in")))
    if quantized:
        raise ValueError(
            f"{quantized[0]}: quantized weights are not trained here. --use_peft with --dtype bfloat16 takes two bytes "
            "a weight."
        )
    if model.model_name_or_path is None:
        idle = _given(model, "model_revision", "dtype", "attn_implementation")
        of_config = [name for name in ("model_init_kwargs", "trust_remote_code") if getattr(config, name)]
        idle, needed = [*idle, *of_config], "--model_name_or_path"
    else:
        idle, needed = _given(run, "demonstrations", "warm_start_updates", "start"), "the default policy"
    if idle:
        raise ValueError(f"{idle[0]} has no effect without {needed}.")
    lora = [f.name for f in fields(ModelConfig) if f.name.startswith("lora_") or f.name in ("use_rslora", "use_dora")]
    if not model.use_peft and _given(model, *lora):
        raise ValueError(f"{_given(model, *lora)[0]} has no effect without --use_peft.")


def _given(settings: Any, *names: str) -> list[str]:
    """Those of some fields that differ from their defaults."""
    usual = {f.name: f.default for f in fields(settings)}
    return [name for name in names if getattr(settings, name) != usual[name]]
