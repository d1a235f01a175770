"""The command line of the training scripts.

Every field of the settings is a flag, TRL's and transformers' own included. `--help` shows those that matter, with the
values that the chosen task gives them; `--help_all` shows all.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, get_args, get_type_hints

import torch
from transformers import HfArgumentParser
from trl.trainer.model_config import ModelConfig

from steppo_gym.command_line import unknown_arguments
from steppo_gym.credit.records import CreditRule
from steppo_gym.env_arguments import placed
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.checks import (
    OF_FLAGS,
    check_flags,
    check_numbers,
    check_reports,
    check_run,
    check_served_folder,
    refuse,
)
from steppo_gym.trainers.run.presets import Difficulty, Preset, preset_of, task_name
from steppo_gym.trainers.run.recipes import with_recipes
from steppo_gym.trainers.run.settings import RunArguments, RunSettings
from steppo_gym.trainers.setting import require_dataclass
from steppo_gym.trainers.step_config import CHECKPOINTING, StepConfig, check_rule

HELP_GROUPS = {
    "task": (
        "env", "difficulty", "data", "protocol", "context", "action_format", "invalid_action_reward",
        "env_args",
    ),
    "policy": (
        "model_name_or_path", "use_peft", "shard", "start", "demonstrations", "warm_start_updates", "temperature",
        "max_completion_length", "use_vllm",
    ),
    "training": (
        "iterations", "episodes_per_iteration", "updates_per_iteration", "num_generations", "num_iterations",
        "learning_rate", "ratio", "loss_average", "epsilon", "beta", "kl_in", "max_tokens_per_micro_batch", "seed",
    ),
    "rollouts": (
        "num_slots", "num_env_workers", "env_workers", "env_step_timeout", "max_prompt_tokens", "policy_servers",
        "policy_servers_folder", "off_policy_correction", "overlap_updates", "overlap_environments",
        "stream_responses",
    ),
    "watching": (
        "output_dir", "resume", "test_tasks", "validation_tasks", "watch", "evaluate_every", "save_every",
        "save_episodes", "record_credit", "report_to", "disable_tqdm",
    ),
}  # fmt: skip

OUR_WORDS = {
    "model_name_or_path": "Folder or hub name of a causal language model; without it, the small default policy",
    "use_peft": "Train LoRA adapters; all of TRL's --lora_* flags work",
    "temperature": "Of sampling in training",
    "max_completion_length": "Longest response in tokens",
    "use_vllm": "Sample with vLLM; all of TRL's --vllm_* flags work",
    "num_iterations": "Passes over the episodes of an iteration",
    "epsilon": "Clip range of the ratio; --epsilon_high for another upper one",
    "beta": "Weight of the KL divergence from the starting policy; 0 for none",
    "seed": "Of everything: warm start, tasks, sampling, order",
    "output_dir": "The run's folder; runs/<env>-<algorithm>-seed<seed> by default",
    "report_to": "tensorboard, trackio, wandb, ... or none",
}
"""Help for flags of TRL and transformers, whose own texts use other words."""


USUAL_NAMES = {
    "--model": "--model_name_or_path", "--lr": "--learning_rate", "--batch_size": "--episodes_per_iteration",
    "--group_size": "--num_generations", "--epochs": "--iterations",
    "--max_tokens": "--max_completion_length", "--out": "--output_dir", "--output": "--output_dir",
    "--task": "--env", "--lora": "--use_peft", "--vllm": "--use_vllm",
}  # fmt: skip
"""What flags are called elsewhere; none of these is one here."""

FILES = "--config FILE ... reads flags from YAML files, such as those in recipes/."


class _Parser(HfArgumentParser):
    """Says what is wrong in one line; the usage of some three hundred flags would bury it."""

    optional: frozenset[str] = frozenset()
    """Flags whose value may be None."""

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        return None if arg_string == "None" and action.dest in self.optional else super()._get_value(action, arg_string)  # type: ignore[misc]

    def error(self, message: str) -> NoReturn:
        # Every flag has a second spelling with dashes, which argparse names as well.
        message = re.sub(r"(--\w+)/--[\w-]+", r"\1", message)
        self.exit(2, f"{self.prog}: {message.rstrip('.')}. --help says more.\n")


def parse_arguments(rule: type[CreditRule], argv: Sequence[str] | None = None) -> RunSettings:
    """Read the command line; exits with a message on bad input and after printing help.

    Args:
        rule: the algorithm; its fields are flags beside those of every run.
        argv: arguments without the program's name; those of the process by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        argv = with_recipes(rule, argv)
    except ValueError as error:
        refuse(f"{script_name(rule.title())}.py: {error}")
    first = _peek(argv)
    if first.version:
        print(f"{script_name(rule.title())}.py {version('steppo-gym')}")
        sys.exit(0)
    try:
        preset = preset_of(first.env)
    except ValueError as error:
        refuse(f"--{error}")
    parser = _parser(rule)
    parser.set_defaults(**_defaults(rule, preset, first))
    if not preset.difficulties:
        _action(parser, "difficulty").help = argparse.SUPPRESS
    if first.help or first.help_all:
        print(parser.format_help() if first.help_all else short_help(parser, rule))
        sys.exit(0)
    _refuse_unknown(parser, rule, parser.parse_known_args(argv)[1])
    try:
        run, config, model, assign, *critic = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
        for settings in (run, config, model, assign, *critic):
            check_numbers(settings)
        check_rule(rule, config, critic[0] if critic else None)
        check_flags(model, run, config)
    except (ValueError, ImportError) as error:
        # An engine of transformers that is not installed is looked for while settings are read.
        refuse(f"{parser.prog}: {' '.join(str(error).split())}")
    check_reports(config, parser.prog)
    check_served_folder(config.policy_servers_folder, (model.model_name_or_path, run.start), parser.prog)
    run.env = task_name(run.env)
    run.data = None if run.data is None else placed("data", run.data)
    given = check_run(run, preset)
    run.context = run.context or ("rebuilt" if model.model_name_or_path else "append")
    kwargs = env_keywords(run, given, {} if model.model_name_or_path else preset.keywords_of(run.difficulty))
    return RunSettings(run, config, assign, critic[0] if critic else None, model, preset, kwargs)


def script_name(title: str) -> str:
    """The name of an algorithm's script, which is also that of its runs' folders."""
    return title.lower().replace("++", "_pp").replace("-", "_")


def short_help(parser: argparse.ArgumentParser, rule: type[CreditRule]) -> str:
    """The flags that matter, in groups, those of the algorithm alone last, with their values unless changed."""
    own = {rule.title(): _names(rule)} | ({"critic": _names(CriticConfig)} if rule.critic else {})
    groups = HELP_GROUPS | {title: names for title, names in own.items() if names}
    width = max(len(name) for names in groups.values() for name in names) + 4
    lines = [f"Train a policy with {rule.title()}.", "", f"usage: {parser.usage}"]
    for group, names in groups.items():
        lines += ["", f"{group}:"]
        for name in names:
            action = _action(parser, name)
            if action.help == argparse.SUPPRESS:
                continue
            text = OUR_WORDS.get(name) or (action.help or "").replace("%%", "%").rstrip(".")
            default = action.default
            shown = "" if default in (None, "", []) or callable(default) else f" [{default}]"
            lines.append(f"  --{name:<{width}}{text}{shown}")
    lines += ["", FILES]
    lines += ["--help_all lists every flag, those of TRL and transformers included."]
    return "\n".join(lines)


def _action(parser: argparse.ArgumentParser, name: str) -> argparse.Action:
    """That of a flag. One that is on by default has a second action that turns it off; the first has the default."""
    return next(action for action in parser._actions if action.dest == name)


def _names(settings: type) -> tuple[str, ...]:
    """The fields of a dataclass that are flags."""
    return tuple(f.name for f in fields(settings))


def _peek(argv: Sequence[str]) -> argparse.Namespace:
    """What must be known before the other flags can be read: it gives them their values."""
    parser = argparse.ArgumentParser(usage="--env TASK [--flag VALUE ...]", add_help=False, allow_abbrev=False)
    for name in ("--env", "--data", "--difficulty", "--model_name_or_path"):
        # With dashes too, as all flags.
        parser.add_argument(name, "-" + name[1:].replace("_", "-"), default="alfworld" if name == "--env" else None)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("--help_all", "--help-all", action="store_true")
    parser.add_argument("--version", action="store_true")
    return parser.parse_known_args(argv)[0]


def _parser(rule: type[CreditRule]) -> HfArgumentParser:
    """With the flags of every run, and those of the rule and of its critic as groups of their own."""
    try:
        require_dataclass(rule)
    except ValueError as error:
        refuse(str(error))
    kinds = (RunArguments, StepConfig, ModelConfig)
    taken = {name for kind in (*kinds, CriticConfig) for name in _names(kind)} & set(_names(rule))
    if taken:
        refuse(f"{rule.title()}: every run has {', '.join(sorted(taken))} already. Give the rule's other names.")
    # The critic's come last, so that they may be missing.
    critic = (CriticConfig,) if rule.critic else ()
    parser = _Parser((*kinds, rule, *critic), add_help=False, allow_abbrev=False)  # type: ignore[arg-type]
    hints = [hint for kind in (*kinds, rule, *critic) for hint in get_type_hints(kind).items()]
    parser.optional = frozenset(name for name, hint in hints if type(None) in get_args(hint))
    parser.epilog = FILES
    is_ours = rule in ALGORITHMS.values()
    parser.prog = f"{script_name(rule.title())}.py" if is_ours else Path(sys.argv[0]).name
    parser.usage = f"python {'trainers/' if is_ours else ''}{parser.prog} --env TASK [--flag VALUE ...]"
    return parser


def _defaults(rule: type[CreditRule], preset: Preset, first: argparse.Namespace) -> dict[str, Any]:
    """The values of flags that are not given: of the machine, of the task, and before these of the algorithm."""
    defaults: dict[str, Any] = {"report_to": "tensorboard", "use_cpu": not torch.cuda.is_available()}
    unknown = set(rule.defaults) - set(_names(StepConfig))
    if unknown:
        refuse(f"{rule.title()}: defaults names {', '.join(sorted(unknown))}, which no run has.")
    if preset.difficulties and first.data is None:
        defaults["difficulty"] = next(iter(preset.difficulties))
    if first.model_name_or_path is None:
        # A small model gains nothing from bfloat16, and log-probabilities then differ from those of sampling.
        defaults |= {"context": "append", "bf16": False, "invalid_action_reward": preset.invalid_action_reward}
        of_critic = () if rule.critic else _names(CriticConfig)
        difficulty = preset.difficulties.get(first.difficulty or defaults.get("difficulty", ""), Difficulty())
        fitting = {**preset.small_policy_settings, **difficulty.settings}
        defaults |= {name: value for name, value in fitting.items() if name not in of_critic}
        defaults |= {"demonstrations": preset.warm_start.num_demonstrations}
        defaults |= {"warm_start_updates": preset.warm_start.num_updates}
    else:
        # A large model keeps more for its gradient than its weights.
        defaults[CHECKPOINTING] = True
    return {**defaults, **rule.defaults}


def _refuse_unknown(parser: argparse.ArgumentParser, rule: type[CreditRule], unknown: Sequence[str]) -> None:
    """Exit if there are arguments that no setting of this script reads, and name the scripts that do."""
    if not unknown:
        return
    for argument in unknown:
        name = argument.partition("=")[0].removeprefix("--")
        for known in (name, name.removeprefix("no_")):
            others = [f"{script}.py" for script, other in ALGORITHMS.items() if known in _settings(other)]
            if argument.startswith("--") and others:
                having = ", ".join(others)
                refuse(f"{parser.prog}: {rule.title()} has no setting {known}. Scripts that have it: {having}.")
    known = [flag for flag in parser._option_string_actions if "-" not in flag.removeprefix("--")]
    said = unknown_arguments(unknown, [*known, *USUAL_NAMES]).rstrip(".")
    for usual, ours in USUAL_NAMES.items():
        said = said.replace(f"mean {usual}?", f"mean {ours}?")
    refuse(f"{parser.prog}: {said}{'' if said.endswith('?') else '.'} --help_all lists every flag.")


def _settings(rule: type[CreditRule]) -> tuple[str, ...]:
    """What the rule's script has beside the settings of every run."""
    return _names(rule) + (_names(CriticConfig) if rule.critic else ())


def env_keywords(run: RunArguments, given: Mapping[str, Any], small: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of all environments: those of the default policy, of the flags, and of `--env_args`."""
    chosen = {name: getattr(run, name) for name in OF_FLAGS}
    if run.protocol is not None:
        # It has a limit of its own.
        small = {name: value for name, value in small.items() if name != "max_steps"}
    return {**small, **{name: value for name, value in chosen.items() if value is not None}, **given}
