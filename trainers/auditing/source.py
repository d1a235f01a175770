"""What `steppo-gym audit` is pointed at: a run, one of its checkpoints or iterations, a model, an expert that errs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppo_gym.audit.mixtures import NoisyExpert
from steppo_gym.credit.records import CreditRule
from steppo_gym.rollouts.codec import ByteCodec, Codec, byte_tokenizer
from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.rollouts.policies import Policy
from steppo_gym.trainers.auditing.critic import TrainedCritic
from steppo_gym.trainers.checkpoints import CRITIC_FILE
from steppo_gym.trainers.policy.critic import default_kind
from steppo_gym.trainers.policy.model_limits import context_limits
from steppo_gym.trainers.results.adapters import has_adapters, load_with_adapters
from steppo_gym.trainers.results.saved_policy import SavedPolicy

_EXPERT = "expert:"


@dataclass(frozen=True)
class Source:
    """A policy that is audited, and what belongs to it."""

    policy: Policy
    codec: Codec
    max_prompt_tokens: int | None = None
    critic: TrainedCritic | None = None
    """That it was trained with, if it was kept."""
    tokenizer: str = ""
    """What a `tokenizer.json` holds that turns its ids into text."""
    model_hash: str | None = None
    """Of its weights, None for an expert."""


def training_of(source: Path, env: str | None) -> dict[str, Any]:
    """The settings of the run that this folder is, or is a checkpoint of; nothing if it is neither.

    Raises:
        ValueError: it was trained on another task than was asked for.
    """
    # A model's folder has a config.json as well, and a checkpoint lies in the folder of its run.
    files = [folder / "config.json" for folder in (source, source.absolute().parent)]
    records = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    record = next((found for found in records if "run" in found), None)
    if record is None:
        return {}
    if env is not None and record["run"]["env"] != env:
        raise ValueError(f"{source} is a run on {record['run']['env']}, and --env says {env}.")
    return record


def trained_rule(trained: Mapping[str, Any], rules: Mapping[str, type[CreditRule]]) -> type[CreditRule] | None:
    """The rule of a run, None for what is no run or had another rule.

    Args:
        trained: of `training_of`.
        rules: those that are known.
    """
    return next((rule for rule in rules.values() if trained and rule.title() == trained["algorithm"]), None)


def played_by(run: Path, iteration: int, trained: Mapping[str, Any]) -> tuple[Path, Path]:
    """The checkpoint whose policy played an iteration of a run, from 1 on, and the file of its episodes.

    Raises:
        ValueError: it is no run, or the checkpoint or the episodes are not there.
    """
    if not trained or not (run / "config.json").is_file():
        raise ValueError(f"--iteration needs the folder of a run, got {run}.")
    updates = trained["config"]["updates_per_iteration"] * (trained["config"].get("num_iterations") or 1)

    def places(number: int) -> tuple[Path, Path]:
        file = run / "episodes" / f"iteration-{number:04d}.jsonl"
        return run / f"checkpoint-{_version(file, (number - 1) * updates)}", file

    checkpoint, file = places(iteration)
    if not file.is_file() or not checkpoint.is_dir():
        can = [number for number in _iterations(run) if places(number)[0].is_dir()]
        raise ValueError(
            f"Iteration {iteration} cannot be audited: {file if checkpoint.is_dir() else checkpoint} is not there. "
            f"Episodes and the policy that played them are there for: {', '.join(map(str, can)) or 'none'}. "
            "--save_every 1 keeps all."
        )
    return checkpoint, file


def _iterations(run: Path) -> list[int]:
    """Those whose episodes were kept, in order."""
    names = (file.stem.removeprefix("iteration-") for file in (run / "episodes").glob("iteration-*.jsonl"))
    return sorted(int(name) for name in names if name.isdecimal())


def _version(file: Path, usual: int) -> int:
    """Updates before the policy that played the episodes in a file: what was played ahead says so in its steps."""
    steps = (step for episode in (read_episodes(file) if file.is_file() else ()) for step in episode.steps)
    first = next(steps, None)
    return usual if first is None or first.version is None else first.version


def training_keywords(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords of the environments a run was trained in."""
    if not trained:
        return {}
    penalty = trained["run"]["invalid_action_reward"]
    return {**trained["env_kwargs"], **({} if penalty is None else {"invalid_action_reward": penalty})}


def open_source(
    options: argparse.Namespace,
    trained: Mapping[str, Any],
    rule: type[CreditRule] | None,
    tools: Sequence[Mapping[str, Any]],
) -> Source:
    """The policy with its codec, and the critic it was trained with.

    Raises:
        ValueError: the source is no policy.
        DataError: there is no model in the folder.
    """
    if options.source.startswith(_EXPERT):
        codec = ByteCodec()
        try:
            noise = float(options.source.removeprefix(_EXPERT))
        except ValueError as error:
            raise ValueError(
                f"Expected expert:NOISE with a share, such as expert:0.3, got {options.source!r}."
            ) from error
        policy = NoisyExpert(codec, noise, seed=options.seed, tools=tools)
        return Source(policy, codec, tokenizer=byte_tokenizer(["<end>"]))
    saved = SavedPolicy.open(Path(options.source))
    policy, codec, limit = saved.load(
        num_slots=options.slots,
        temperature=options.temperature,
        seed=options.seed,
        max_response_tokens=options.max_response_tokens,
    )
    critic = critic_of(saved.folder, trained, rule, policy.model)
    return Source(policy, codec, limit, critic, codec.tokenizer.backend_tokenizer.to_str(), saved.hash())  # type: ignore[union-attr]


def critic_of(
    source: Path, trained: Mapping[str, Any], rule: type[CreditRule] | None, model: Any
) -> TrainedCritic | None:
    """That of a checkpoint; the final policy's is in the checkpoint of the last update, if there is one.

    A critic of adapters whose policy trained more than adapters is not kept: its frozen weights are those that the
    policy began with, and in no checkpoint.

    Args:
        source: the folder of the policy.
        trained: of `training_of`.
        rule: that it was trained with.
        model: the policy.
    """
    if rule is None or rule.critic is None:
        return None
    folder = source.parent / f"checkpoint-{trained['config']['max_steps']}" if source.name == "final" else source
    if not (folder / CRITIC_FILE).is_file():
        return None
    settings, config = trained["critic"], trained["config"]
    if has_adapters(source):
        # A policy that is sampled from has forgotten which of its layers have adapters; a critic's shape depends on it.
        model = load_with_adapters(source, dtype=model.dtype, local_files_only=True).to(model.device)
    kind = settings.get("critic") or default_kind(model)
    adapters = getattr(model, "peft_config", {}).values()
    if kind == "lora" and (not adapters or any(one.modules_to_save for one in adapters)):
        return None
    _, max_tokens = context_limits(model, config["max_prompt_tokens"], config["max_completion_length"] or 256)
    return TrainedCritic(
        model,
        folder / CRITIC_FILE,
        rule.critic,
        kind=kind,
        bootstrap_truncated=bool(settings["bootstrap_truncated"]),
        max_tokens=max_tokens,
    )
