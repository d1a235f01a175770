"""Tasks by name: the environments of a run, and the settings that fit the default policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from steppo_gym.command_line import did_you_mean
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig
from steppo_gym.trainers.warm_start.start import Excerpts, Phase, StartRecipe
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig


@dataclass(frozen=True)
class Difficulty:
    """What differs on tasks of one difficulty of the built-in data when the default policy is trained."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the run, from those of the task."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of all environments, beside those of the task."""


@dataclass(frozen=True)
class Preset:
    """A task: how its environments are made for training, evaluation and demonstrations."""

    env_id: str
    train_split: str = "train"
    validation_splits: tuple[str, ...] = ("validation",)
    """Watched during training."""
    test_splits: tuple[str, ...] = ("test",)
    """Played before and after training only, so that nothing is tuned on them."""
    demonstration_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the environment whose expert demonstrates."""
    invalid_action_reward: float | None = None
    """Reward of an invalid action in training, unless the run says otherwise, when the default policy is trained; None
    for the protocol's.
    """
    difficulties: Mapping[str, Difficulty] = field(default_factory=dict)
    """Of the built-in data by name, easiest first; empty if it has only one."""
    official_splits: Mapping[str, str] = field(default_factory=dict)
    """Which split of the official data stands in for one that only the built-in data has."""
    small_policy_settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the run that differ from the defaults when the default policy is trained; those of the critic for the
    rules that have one.
    """
    small_policy_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of all environments, those of the tests too, when the default policy is trained."""
    warm_start: WarmStartConfig = field(default_factory=WarmStartConfig)
    starts: Mapping[str, StartRecipe] = field(default_factory=dict)
    """By name: policies that are made once and shipped, see `steppo_gym.trainers.warm_start.start`."""

    def keywords_of(self, difficulty: str | None) -> dict[str, Any]:
        """Keywords of all environments when the default policy is trained; None is that of official data."""
        return {**self.small_policy_kwargs, **self.difficulties.get(difficulty or "", Difficulty()).kwargs}

    def spec(self, split: str, kwargs: Mapping[str, Any]) -> EnvFactory:
        """The environment of a split, with the run's keywords."""
        if kwargs.get("data") is not None:
            split = self.official_splits.get(split, split)
        return EnvFactory(self.env_id, {"split": split, **kwargs})


_READING_SETTINGS = {
    "learning_rate": 5e-4,
    "critic_learning_rate": 1e-3,
    "max_completion_length": 12,
    "iterations": 20,
    "updates_per_iteration": 4,
    "evaluate_every": 5,
    "save_every": 5,
    "max_tokens_per_micro_batch": 4096,
}
"""Settings of the default policy where observations are sentences."""
_STARTED_SETTINGS = {**_READING_SETTINGS, "learning_rate": 1e-4, "evaluate_every": 4, "save_every": 4}
"""The same where a start is shipped: with 5e-4 the fault of that for paper search is gone after two iterations."""
_READER = WarmStartConfig(
    num_demonstrations=5000, num_updates=3000, policy=SmallPolicyConfig(tokenizer="words", attention_bias=True)
)

_STARTED_POLICY = SmallPolicyConfig(hidden_size=128, num_layers=3, attention_bias=True)
_READING_POLICY = replace(_STARTED_POLICY, tokenizer="words")
_FAULT = Phase("hasty", 300, 1500, muon_learning_rate=0.005, adamw_learning_rate=1e-3)
"""At lower rates and for a short time: the policy has to err and still be able to read."""

_WALKS_PAST = replace(_FAULT, expert="heedless", num_demonstrations=Phase.num_demonstrations)


def _reading_start(
    kwargs: Mapping[str, Any],
    reading: Phase,
    *,
    fault: str = _FAULT.expert,
    policy: SmallPolicyConfig = _READING_POLICY,
) -> StartRecipe:
    """A start where observations are sentences; an update reads about 8,000 tokens."""
    return StartRecipe(
        env_kwargs={**kwargs, "context": "append", "action_format": "tag"},
        reading=reading,
        fault=replace(_FAULT, expert=fault, batch_size=reading.batch_size, portions=reading.portions),
        policy=policy,
    )


_TWO_PASSAGES = {"top_k": 2}
"""A search brings two passages: a small policy reads slowly."""
_SHORT_PAGES = {"goals": "synthetic", "nouns": "words", "results_per_page": 4}
"""Thousands of goals instead of hundreds, and short pages."""
_FEW_TITLES = {"abstract_words": 0, "listed_papers": 3}
"""Titles of the newest three alone."""


def _multihop_qa(env_id: str, start: str, reading: Phase, *, settings: Mapping[str, Any] = _STARTED_SETTINGS) -> Preset:
    return Preset(
        env_id=env_id,
        demonstration_kwargs={"expert": "hasty"},
        invalid_action_reward=-0.05,
        official_splits={"test": "validation"},
        small_policy_settings=settings,
        small_policy_kwargs=_TWO_PASSAGES,
        warm_start=_READER,
        starts={start: _reading_start(_TWO_PASSAGES, reading)},
    )


PRESETS: dict[str, Preset] = {
    "alfworld": Preset(
        env_id="steppo/ALFWorld-v0",
        validation_splits=("valid_seen", "valid_unseen"),
        test_splits=("test_seen", "test_unseen"),
        demonstration_kwargs={"expert": "hasty"},
        # Without a price, a small policy drifts into commands that do nothing; with a high one, it stops taking things.
        invalid_action_reward=-0.02,
        difficulties={
            # With 1e-3 the fault of the start is gone after one iteration, and a fifth of the commands is invalid.
            "easy": Difficulty({"learning_rate": 1e-4}),
            "medium": Difficulty(),
            # In 20 steps an expert that has to look for things does three of five. More iterations end no higher.
            "full": Difficulty({"learning_rate": 3e-4, "iterations": 8, "evaluate_every": 2}, {"max_steps": 30}),
        },
        official_splits={"test_seen": "valid_seen", "test_unseen": "valid_unseen"},
        small_policy_settings={
            "learning_rate": 1e-3,
            "critic_learning_rate": 2e-3,
            "max_completion_length": 12,
            "iterations": 12,
            "updates_per_iteration": 8,
            "evaluate_every": 4,
            "save_every": 4,
            "max_tokens_per_micro_batch": 4096,
        },
        starts={
            "alfworld-easy": StartRecipe(
                env_kwargs={"difficulty": "easy", "context": "append", "action_format": "tag"},
                # With 3,500 demonstrations, one a task, it reads 70 % of the tasks instead of nearly all.
                reading=Phase("clumsy", 4000, 12000),
                fault=_WALKS_PAST,
                policy=_STARTED_POLICY,
            ),
            "alfworld-full": StartRecipe(
                env_kwargs={"difficulty": "full", "max_steps": 30, "context": "append", "action_format": "tag"},
                reading=Phase("clumsy", 4000, 12000, batch_size=20, portions=4),
                fault=replace(_WALKS_PAST, batch_size=20, portions=4),
                policy=_STARTED_POLICY,
            ),
        },
    ),
    "key_door": Preset(
        env_id="steppo/KeyDoor-v0",
        demonstration_kwargs={"expert": "hasty"},
        small_policy_settings={
            "learning_rate": 5e-4,
            "critic_learning_rate": 2e-3,
            "max_completion_length": 12,
            "iterations": 8,
            "updates_per_iteration": 8,
            "evaluate_every": 2,
        },
        warm_start=WarmStartConfig(num_demonstrations=300, num_updates=150),
    ),
    "hotpotqa": _multihop_qa("steppo/HotpotQA-v0", "hotpotqa", Phase("clumsy", 4500, batch_size=48)),
    "2wiki": _multihop_qa(
        "steppo/2WikiMultihopQA-v0",
        "2wiki",
        Phase("clumsy", 4500, 8000, batch_size=48),
        settings={**_STARTED_SETTINGS, "max_completion_length": 32, "iterations": 12},
    ),
    "musique": _multihop_qa(
        "steppo/MuSiQue-v0",
        "musique",
        Phase("clumsy", 4000, batch_size=48),
        settings={**_STARTED_SETTINGS, "iterations": 12},
    ),
    "webshop": Preset(
        env_id="steppo/WebShop-v0",
        demonstration_kwargs={"expert": "hasty"},
        small_policy_settings={
            **_STARTED_SETTINGS,
            "learning_rate": 3e-4,
            "max_completion_length": 48,
            "iterations": 12,
        },
        small_policy_kwargs=_SHORT_PAGES,
        # Episodes are long, so small batches leave time for more updates, and one error would spoil the rest of them.
        warm_start=replace(_READER, num_updates=1200, batch_size=8, corruption_rate=0.1),
        starts={
            "webshop": _reading_start(
                _SHORT_PAGES,
                # What a thought rests on is learned first and alone, or it is not learned.
                Phase("clumsy", 3400, 8000, batch_size=16, portions=4, excerpts=Excerpts(0.3, 48)),
                fault="heedless",
                policy=replace(_READING_POLICY, joins_cases=True),
            )
        },
    ),
    "paper_search": Preset(
        env_id="steppo/PaperSearch-v0",
        demonstration_kwargs={"expert": "hasty"},
        invalid_action_reward=-0.1,
        small_policy_settings={**_STARTED_SETTINGS, "max_completion_length": 20, "iterations": 12},
        small_policy_kwargs=_FEW_TITLES,
        warm_start=replace(_READER, num_updates=1500),
        starts={"paper_search": _reading_start(_FEW_TITLES, Phase("clumsy", 3000, batch_size=32))},
    ),
}


def task_name(env: str) -> str:
    """The key of `PRESETS` that an id of this package's environments stands for; anything else is left as it is."""
    return next((name for name, preset in PRESETS.items() if preset.env_id == env), env)


def preset_of(env: str) -> Preset:
    """The preset of a task, or one for an environment of the user's own.

    Args:
        env: a key of `PRESETS`, or the id of its environment; or "module:id", where importing the module registers the
            id with Gymnasium. Such an environment has the splits "train", "validation" and "test".

    Raises:
        ValueError: it is neither.
    """
    if (name := task_name(env)) in PRESETS:
        return PRESETS[name]
    if ":" not in env:
        raise ValueError(
            f"env must be one of {', '.join(PRESETS)}, or module:id for an environment of your own, got {env!r}"
            + (did_you_mean(env, PRESETS) or ".")
        )
    return Preset(
        env_id=env,
        small_policy_settings={**_READING_SETTINGS, "max_completion_length": 32},
    )
