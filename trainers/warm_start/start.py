"""Starting policies that can read but err: made once with time, and shipped for runs to begin with.

A start is made in two phases. In the first the policy imitates an expert without a fault, told anew each time under
other names (`TextEnv.retold`), until it reads what it is shown; what it then reaches is the ceiling. In the second it
imitates for a short time an expert with a fault, which leaves reinforcement learning a behavior to change.

The same settings on the same instruction set give the same bytes, also if the making was interrupted.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from steppo_gym.env import TextEnv
from steppo_gym.rollouts.demonstrations import MessageCodec, demonstrate
from steppo_gym.rollouts.env_host import EnvFactory
from steppo_gym.rollouts.rollout import require_played
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig, build_model, make_tokenizer, stop_token_ids
from steppo_gym.trainers.warm_start.imitation import (
    POOL,
    Exchange,
    Imitation,
    TrainingRow,
    conversation_row,
    conversations,
)
from steppo_gym.trainers.warm_start.warm_start import content_hash

Conversation = tuple[Exchange, ...]
Say = Callable[[str], object]

_STATE = "state.pt"
_SAVE_EVERY = 100
"""Updates between two states from which an interrupted making goes on."""
_THOUGHT = "</think>"
"""In a response of an expert that thinks before it acts."""


@dataclass(frozen=True)
class Excerpts:
    """What a phase begins with: the first exchange of an episode, and one in which the expert thinks.

    What a thought rests on is learned there from little text. Nothing else counts in them than what the expert says.
    """

    share: float
    """Of the updates of the phase, rounded up to a whole pool."""
    batch_size: int


@dataclass(frozen=True)
class Phase:
    """Whom the policy imitates, and for how long."""

    expert: str
    """Of the environment's experts."""
    num_updates: int
    num_demonstrations: int = 3500
    """Each on a task of its own; where there are fewer tasks, on all in turns, with other slips each time."""
    retold_share: float = 0.7
    """Of the demonstrations in a batch that are told under other names, drawn anew each time."""
    batch_size: int = 64
    muon_learning_rate: float = 0.02
    """Of the matrices inside the layers."""
    adamw_learning_rate: float = 3e-3
    """Of embeddings and norms."""
    observation_weight: float = 0.3
    """Loss weight of the environment's text."""
    portions: int = 1
    """Into which a batch is parted by length. Of one portion, batches are of rows of like length, which is simpler and
    holds back what long conversations teach and short ones do not.
    """
    excerpts: Excerpts | None = None


@dataclass(frozen=True)
class StartRecipe:
    """How a start is made; with a seed it decides every byte."""

    env_kwargs: Mapping[str, Any]
    """Keywords of the environments it is made for, but for the split; runs with the same begin with it."""
    reading: Phase
    fault: Phase
    policy: SmallPolicyConfig = field(default_factory=SmallPolicyConfig)

    @property
    def phases(self) -> dict[str, Phase]:
        """By name, in their order."""
        return {"reading": self.reading, "fault": self.fault}


def make_start(
    folder: Path,
    env_id: str,
    split: str,
    recipe: StartRecipe,
    *,
    seed: int,
    origin: Path | None = None,
    say: Say = print,
) -> tuple[Path, Path]:
    """Make a start, or go on with one whose making was interrupted.

    Args:
        folder: of what is being made; made if it is not there.
        env_id: of the environment.
        split: of the tasks that are demonstrated.
        recipe: what to do.
        seed: of demonstrations, initialization, order and names.
        origin: the folder of a start whose policy and tokenizer are gone on with; new ones are made without.
        say: told of the progress, a line at a time.

    Returns:
        The folders of the policy after the first phase, which shows the ceiling, and of the start, both in `folder`.

    Raises:
        AllEpisodesFailedError: no demonstration could be played.
        NotImplementedError: demonstrations are to be told anew and the environment cannot.
        ValueError: the environment's context is not "append", or excerpts are wanted of an expert that does not think.
    """
    spec = EnvFactory(env_id, {"split": split, **recipe.env_kwargs})
    env = spec.make()
    try:
        if env.context != "append":
            raise ValueError(f"A start is made of conversations, so context must be 'append', got {env.context!r}.")
        task_ids = [env.task_ids[i] for i in range(len(env.task_ids))]
        version = content_hash(spec, task_ids, recipe, seed, __name__)
        if origin is not None:
            version += f" {start_hash(origin)}"
        if (folder / "version").exists() and (folder / "version").read_text() != version:
            say(f"{folder} was begun with other settings or another version and is begun anew.")
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "version").write_text(version)
        shown = {
            name: _demonstrations(folder / f"{name}.json", spec, task_ids, phase, seed, say)
            for name, phase in recipe.phases.items()
        }
        if origin is None:
            tokenizer = make_tokenizer(list(_texts(recipe, shown, env, seed)), recipe.policy)
            model = build_model(tokenizer, recipe.policy, seed=seed)
        else:
            tokenizer = PreTrainedTokenizerFast.from_pretrained(origin, padding_side="left")
            model = Qwen3ForCausalLM.from_pretrained(origin, dtype=torch.float32)
        codec = ChatCodec(tokenizer, stop_token_ids=stop_token_ids(tokenizer))
        for name, phase in recipe.phases.items():
            if not (folder / name).exists():
                lesson = Lesson(shown[name], env, codec, phase, seed)
                _learn(model, lesson, tokenizer, folder / f"{name}-{_STATE}", name, say)
                _save(model, tokenizer, folder / name)
            # Also where it was just made, so that an interruption makes no difference.
            model = Qwen3ForCausalLM.from_pretrained(folder / name, dtype=torch.float32)
    finally:
        env.close()
    return folder / "reading", folder / "fault"


class Lesson:
    """The batches of a phase. Which rows and names a batch has depends on the seed and its number alone.

    Args:
        shown: the demonstrations.
        env: tells them anew.
        codec: makes their tokens.
        phase: sizes and shares.
        seed: of order and names.
    """

    def __init__(self, shown: Sequence[Conversation], env: TextEnv, codec: ChatCodec, phase: Phase, seed: int) -> None:
        self.shown, self.env, self.codec, self.phase, self.seed = shown, env, codec, phase, seed
        self._pool = functools.lru_cache(maxsize=1)(self._draw_pool)

    def batch(self, number: int) -> list[TrainingRow]:
        """The rows of an update."""
        return self._pool(number // POOL)[number % POOL]

    def _draw_pool(self, number: int) -> list[list[TrainingRow]]:
        """Batches; of rows of like length where they are not parted, so that little is padded."""
        rng = random.Random(f"{self.phase.expert} {self.seed} {number}")
        phase, excerpts = self.phase, self.phase.excerpts
        if excerpts is not None and number * POOL < excerpts.share * phase.num_updates:
            shown, size, weight = self._excerpts, excerpts.batch_size, 0.0
        else:
            shown, size, weight = self.shown, phase.batch_size, phase.observation_weight
        rows = [self._row(rng, shown, weight) for _ in range(POOL * size)]
        if phase.portions == 1:
            rows.sort(key=lambda row: len(row.token_ids))
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        rng.shuffle(batches)
        return batches

    @functools.cached_property
    def _excerpts(self) -> list[Conversation]:
        found = [(said[0], one) for said in self.shown for one in said[1:] if _THOUGHT in one.response]
        if not found:
            raise ValueError(f"There are no excerpts: {self.phase.expert!r} thinks in none of its demonstrations.")
        return found

    def _row(self, rng: random.Random, shown: Sequence[Conversation], observation_weight: float) -> TrainingRow:
        conversation = rng.choice(shown)
        if rng.random() < self.phase.retold_share:
            conversation = retold(conversation, self.env, rng)
        return conversation_row("", conversation, self.codec, observation_weight)


def retold(conversation: Conversation, env: TextEnv, rng: random.Random) -> Conversation:
    """The same demonstration under other names."""
    texts = [text for exchange in conversation for text in (exchange.observation, exchange.response)]
    told = env.retold(texts, rng)
    return tuple(
        Exchange(observation, response, exchange.slip)
        for observation, response, exchange in zip(told[::2], told[1::2], conversation, strict=True)
    )


def start_hash(folder: Path) -> str:
    """SHA-256 over all files of a start but its card."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.name != "card.json"):
        content = file.read_bytes()
        digest.update(f"{file.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _demonstrations(
    file: Path, spec: EnvFactory, task_ids: Sequence[str], phase: Phase, seed: int, say: Say
) -> list[Conversation]:
    """Play them, or read those that were played before the making was interrupted."""
    if not file.exists():
        expert = EnvFactory(spec.env_id, {**spec.kwargs, "expert": phase.expert})
        messages, chosen = MessageCodec(), list(itertools.islice(itertools.cycle(task_ids), phase.num_demonstrations))
        episodes = demonstrate(expert, chosen, messages, seed=seed)
        require_played(episodes)
        played = [episode for episode in episodes if episode.ended != "failed"]
        success = sum(episode.success for episode in played) / len(played)
        say(f"{len(played)} demonstrations by {phase.expert!r}, {100 * success:.0f} % solved")
        shown = [[asdict(one) for one in said] for episode in played for _, said in conversations(episode, messages)]
        _write_whole(file, lambda path: path.write_text(json.dumps(shown)))
    return [tuple(Exchange(**one) for one in said) for said in json.loads(file.read_text())]


def _texts(recipe: StartRecipe, shown: Mapping[str, Sequence[Conversation]], env: TextEnv, seed: int) -> Iterator[str]:
    """What the tokenizer is made of: the demonstrations, and each once more under other names where they get some."""
    rng = random.Random(seed)
    for name, phase in recipe.phases.items():
        for conversation in shown[name]:
            told = (conversation, retold(conversation, env, rng)) if phase.retold_share else (conversation,)
            for exchange in itertools.chain.from_iterable(told):
                yield exchange.observation
                yield exchange.response


def _learn(
    model: Qwen3ForCausalLM, lesson: Lesson, tokenizer: PreTrainedTokenizerFast, state: Path, name: str, say: Say
) -> None:
    """All updates of a phase, from the last saved state on."""
    phase, done = lesson.phase, 0
    imitation = Imitation(
        model,
        num_updates=phase.num_updates,
        muon_learning_rate=phase.muon_learning_rate,
        adamw_learning_rate=phase.adamw_learning_rate,
        pad_token_id=tokenizer.pad_token_id,  # type: ignore[arg-type]
    )
    if state.exists():
        saved = torch.load(state, weights_only=True)
        imitation.load_state_dict(saved["imitation"])
        done = saved["done"]
        say(f"{name}: going on after update {done}")
    started, tokens = time.perf_counter(), 0
    for number in range(done, phase.num_updates):
        rows = lesson.batch(number)
        tokens += sum(len(row.token_ids) for row in rows)
        loss = imitation.update(rows, phase.portions)
        if (number + 1) % _SAVE_EVERY == 0:
            saved = {"imitation": imitation.state_dict(), "done": number + 1}
            _write_whole(state, functools.partial(torch.save, saved))
            rate = tokens / (time.perf_counter() - started)
            say(f"{name}: update {number + 1} of {phase.num_updates}, loss {loss:.3f}, {rate:.0f} tokens a second")
    model.eval()
    state.unlink(missing_ok=True)


def _save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    def write(path: Path) -> None:
        model.save_pretrained(path)
        tokenizer.save_pretrained(path)

    _write_whole(folder, write)


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """What stands under a name is complete, whenever the process ends."""
    unfinished = path.with_name(f"{path.name}.unfinished")
    if unfinished.is_dir():
        shutil.rmtree(unfinished)
    write(unfinished)
    unfinished.replace(path)
