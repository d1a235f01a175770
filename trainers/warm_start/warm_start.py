"""Supervised warm start of the default policy on an expert's demonstrations.

Every demonstration is one row in the append context, one row per step in the rebuilt one; see
`steppo_gym.trainers.warm_start.imitation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import Qwen3ForCausalLM

from steppo_gym.quoting import terminal_text
from steppo_gym.rollouts.demonstrations import MessageCodec, demonstrate
from steppo_gym.rollouts.env_host import EnvFactory
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.rollout import require_played
from steppo_gym.storage.cache import cache_dir, make_once
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig, build_model, make_tokenizer, stop_token_ids
from steppo_gym.trainers.warm_start.imitation import (
    POOL,
    Imitation,
    TrainingRow,
    conversation_row,
    conversations,
)
from steppo_gym.trainers.warm_start.sources import sources_of

RECORD_FILE = "warm_start.json"


@dataclass(frozen=True)
class WarmStartConfig:
    """How the default policy is made before reinforcement learning."""

    num_demonstrations: int = 1200
    """Each on a task of its own: with few tasks the policy learns the tasks by heart."""
    corruption_rate: float = 0.0
    """Of the demonstrated responses; see `steppo_gym.rollouts.demonstrations.CorruptedExpert`."""
    num_updates: int = 850
    """Counted in updates, not seconds, so that a slow machine makes the same policy."""
    batch_size: int = 16
    muon_learning_rate: float = 0.02
    """Of the matrices inside the layers."""
    adamw_learning_rate: float = 4e-3
    """Of embeddings and norms."""
    observation_weight: float = 0.3
    """Loss weight of the environment's text."""
    policy: SmallPolicyConfig = field(default_factory=SmallPolicyConfig)


def warm_started_policy(
    spec: EnvFactory,
    task_ids: Sequence[str],
    config: WarmStartConfig,
    *,
    seed: int,
    num_workers: int,
    progress: bool = True,
) -> Path:
    """The folder of the warm-started policy and its tokenizer, made now or taken from the cache.

    Of several processes that need the same policy one makes it and the others wait.

    Args:
        spec: the environment whose expert demonstrates.
        task_ids: training tasks; the demonstrations use the first `config.num_demonstrations`.
        config: sizes and learning rates.
        seed: of demonstrations, initialisation and order.
        num_workers: processes that play the demonstrations; does not change the result.
        progress: show progress bars.

    Raises:
        InfrastructureError: the environments kept failing, or no demonstration succeeded in being played.
    """
    task_ids = task_ids[: config.num_demonstrations]
    folder = cache_dir("policies", content_hash(spec, task_ids, config, seed))

    def make(unfinished: Path) -> None:
        messages = MessageCodec()
        with tqdm(
            desc="demonstrations", total=len(task_ids), disable=None if progress else True, unit="episode"
        ) as bar:
            demonstrations = demonstrate(
                spec,
                task_ids,
                messages,
                seed=seed,
                num_workers=num_workers,
                corruption_rate=config.corruption_rate,
                on_episode=lambda _: bar.update(),
            )
        require_played(demonstrations)
        failures = [episode.failure for episode in demonstrations if episode.failure is not None]
        if failures:
            said = f"{len(failures)} of {len(demonstrations)} demonstrations failed and are left out. The first, "
            print(terminal_text(f"{said}{failures[0].boundary}: {failures[0].message}"), flush=True)
        _make_policy(unfinished, spec, demonstrations, messages, config, seed, progress)

    make_once(folder, make, again=folder.exists() and not (folder / RECORD_FILE).exists())
    return folder


def _make_policy(
    folder: Path,
    spec: EnvFactory,
    demonstrations: Sequence[Episode],
    messages: MessageCodec,
    config: WarmStartConfig,
    seed: int,
    progress: bool,
) -> None:
    """Train tokenizer and model on the demonstrations and save them with an account of how they were made."""
    played = [episode for episode in demonstrations if episode.ended != "failed"]
    tokenizer = make_tokenizer([text for episode in played for text in _texts(episode, messages)], config.policy)
    model = build_model(tokenizer, config.policy, seed=seed)
    codec = ChatCodec(tokenizer, stop_token_ids=stop_token_ids(tokenizer))
    rows = [
        row for episode in played for row in demonstration_rows(episode, messages, codec, config.observation_weight)
    ]
    losses = imitate(model, rows, config, pad_token_id=tokenizer.pad_token_id, seed=seed, progress=progress)  # type: ignore[arg-type]

    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "config": asdict(config),
        "environment": {"id": spec.env_id, "kwargs": dict(spec.kwargs)},
        "seed": seed,
        "demonstrations": len(played),
        "demonstration_success": sum(episode.success for episode in played) / len(played),
        "demonstrations_failed": len(demonstrations) - len(played),
        "losses": losses,
    }
    # Written last: its presence says that the folder is complete.
    (folder / RECORD_FILE).write_text(json.dumps(record, indent=2))


def demonstration_rows(
    episode: Episode, messages: MessageCodec, codec: ChatCodec, observation_weight: float
) -> Iterator[TrainingRow]:
    """One row in the append context, one per step in the rebuilt context.

    Args:
        episode: a demonstration.
        messages: the codec it was played with, which has its texts.
        codec: makes the rows' tokens.
        observation_weight: loss weight of the environment's text.
    """
    for system_prompt, exchanges in conversations(episode, messages):
        yield conversation_row(system_prompt, exchanges, codec, observation_weight)


def imitate(
    model: Qwen3ForCausalLM,
    rows: Sequence[TrainingRow],
    config: WarmStartConfig,
    *,
    pad_token_id: int,
    seed: int,
    progress: bool = True,
) -> list[float]:
    """Train `model` in place on `rows` and return the loss of every update."""
    batches = _batches(rows, config.batch_size, seed)
    imitation = Imitation(
        model,
        num_updates=config.num_updates,
        muon_learning_rate=config.muon_learning_rate,
        adamw_learning_rate=config.adamw_learning_rate,
        pad_token_id=pad_token_id,
    )
    losses = []
    bar = tqdm(range(config.num_updates), "warm start", disable=None if progress else True, unit="update")
    for _ in bar:
        losses.append(imitation.update(next(batches)))
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    model.eval()
    return losses


def _batches(rows: Sequence[TrainingRow], size: int, seed: int) -> Iterator[list[TrainingRow]]:
    """Endless batches in a new order each pass; rows of like length meet, so that little is padded."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(rows), generator=generator).tolist()
        for start in range(0, len(order), POOL * size):
            pool = sorted(order[start : start + POOL * size], key=lambda i: len(rows[i].token_ids))
            starts = range(0, len(pool), size)
            for i in torch.randperm(len(starts), generator=generator).tolist():
                yield [rows[j] for j in pool[starts[i] : starts[i] + size]]


def _texts(episode: Episode, messages: MessageCodec) -> Iterator[str]:
    for step in episode.steps:
        yield messages.text(step.prompt_ids[-1])
        yield step.response


def content_hash(spec: EnvFactory, task_ids: Sequence[str], config: Any, seed: int, module: str = __name__) -> str:
    """Over all that a policy depends on: settings, what its texts are made of, and all code that either goes through.

    The code is that of the module that makes it and of the environment's class, with whatever they import, so that an
    edit of another environment keeps the policy.

    Args:
        spec: the environment whose expert demonstrates.
        task_ids: what is demonstrated.
        config: a dataclass of settings.
        seed: of everything.
        module: makes the policy.
    """
    env = spec.make()
    try:
        sources, text_version = sources_of([module, type(env).__module__]), env.text_version
    finally:
        env.close()
    settings = {
        "environment": [spec.env_id, dict(spec.kwargs), text_version],
        "task_ids": list(task_ids),
        "config": asdict(config),
        "seed": seed,
        "versions": sources.versions,
        "sources": {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in sources.files.items()},
    }
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:24]
