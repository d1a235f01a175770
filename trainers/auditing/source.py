"""What `steppo-gym audit` is pointed at: a run, a checkpoint of one, a model, or an expert that errs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from steppo_gym.actions import ActionFormat
from steppo_gym.audit.mixtures import NoisyExpert
from steppo_gym.env_arguments import env_argument
from steppo_gym.rollouts.codec import ByteCodec, Codec
from steppo_gym.rollouts.policies import Policy
from steppo_gym.trainers.auditing.critic import TrainedCritic
from steppo_gym.trainers.checkpoints import CRITIC_FILE
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.policy.model_limits import context_limits
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.arguments import env_keywords
from steppo_gym.trainers.run.presets import Preset
from steppo_gym.trainers.run.settings import RunArguments

_EXPERT = "expert:"


def training_of(source: Path, env: str) -> dict[str, Any]:
    """The settings of the run that this folder is, or is a checkpoint of; nothing if it is neither.

    Raises:
        ValueError: it was trained on another task.
    """
    # A model's folder has a config.json as well, and a checkpoint lies in the folder of its run.
    files = [folder / "config.json" for folder in (source, source.absolute().parent)]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    record = next((found for found in records if "run" in found), None)
    if record is None:
        return {}
    if record["run"]["env"] != env:
        raise ValueError(f"{source} is a run on {record['run']['env']}, and --env says {env}.")
    return record


def training_keywords(trained: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """Keywords of the environments a run was trained in."""
    if not trained:
        return {}
    run = RunArguments(**trained["run"])
    small = {} if trained["model"]["model_name_or_path"] else preset.small_policy_kwargs
    kwargs = env_keywords(run, dict(map(env_argument, run.env_args)), small)
    penalty = {} if run.invalid_action_reward is None else {"invalid_action_reward": run.invalid_action_reward}
    return {**kwargs, **penalty}


def open_policy(
    options: argparse.Namespace, trained: Mapping[str, Any], action_format: ActionFormat
) -> tuple[Policy, Codec, int | None, TrainedCritic | None]:
    """The policy, its codec, the longest prompt it can take, and the critic it was trained with.

    Args:
        options: of the command.
        trained: of `training_of`.
        action_format: the environment's.

    Raises:
        ValueError: the source is no policy.
    """
    if options.source.startswith(_EXPERT):
        codec = ByteCodec()
        try:
            noise = float(options.source.removeprefix(_EXPERT))
        except ValueError as error:
            raise ValueError(
                f"Expected expert:NOISE with a share, such as expert:0.3, got {options.source!r}."
            ) from error
        return NoisyExpert(codec, noise, seed=options.seed, action_format=action_format), codec, None, None
    run_folder = Path(options.source)
    source = str(run_folder / "final") if trained and (run_folder / "final").is_dir() else options.source
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32")
    tokenizer = _tokenizer(source)
    codec = ChatCodec(tokenizer)
    length = options.max_response_tokens or int(trained.get("config", {}).get("max_completion_length") or 256)
    limit, _ = context_limits(model, None, length)
    policy = ModelPolicy(
        model,
        num_slots=options.slots,
        stop_token_ids=codec.stop_token_ids,
        pad_token_id=codec.stop_token_ids[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id),
        max_response_tokens=length,
        temperature=options.temperature,
        seed=options.seed,
    )
    return policy, codec, limit, _critic(Path(source), trained, model)


def _critic(source: Path, trained: Mapping[str, Any], model: Any) -> TrainedCritic | None:
    """That of a checkpoint; the final policy's is in the checkpoint of the last update, if there is one."""
    kinds = [kind for kind in ALGORITHMS.values() if trained and kind.title() == trained["algorithm"]]
    if not kinds or kinds[0].critic is None:
        return None
    folder = source.parent / f"checkpoint-{trained['config']['max_steps']}" if source.name == "final" else source
    if not (folder / CRITIC_FILE).is_file():
        return None
    bootstrap = bool(trained["critic"]["bootstrap_truncated"])
    return TrainedCritic(model, folder / CRITIC_FILE, kinds[0].critic, bootstrap_truncated=bootstrap)


def _tokenizer(source: str) -> Any:
    if (Path(source) / "tokenizer.json").exists():
        # By name, because AutoTokenizer would replace the small policy's pre-tokenizer by that of the model type.
        return PreTrainedTokenizerFast.from_pretrained(source, padding_side="left")
    return AutoTokenizer.from_pretrained(source, padding_side="left")
