"""Settings of the algorithms for tests, and what they read from a trainer after a run."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import torch

from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.sharding.layout import as_number
from steppo_gym.trainers.step_config import StepConfig

SCRIPTS = tuple(ALGORITHMS)

SMALL_RUN = {
    "env": "key_door",
    "demonstrations": 24,
    "warm_start_updates": 10,
    "iterations": 1,
    "episodes_per_iteration": 4,
    "updates_per_iteration": 1,
    "max_completion_length": 7,
    "num_slots": 6,
    "num_env_workers": 0,
    "test_tasks": 6,
    "validation_tasks": 2,
    "report_to": "none",
}
"""Flags of a whole run of a few seconds, from its demonstrations to its tests."""


def names(settings):
    """The fields of a class of settings."""
    return {field.name for field in fields(settings)}


def settings_of(script, **settings):
    """Settings of a run, credit rule and settings of the critic, without what other algorithms alone have."""
    rule = ALGORITHMS[script]
    own, critic = ({n: v for n, v in settings.items() if n in names(kind)} for kind in (rule, CriticConfig))
    others = set().union(names(CriticConfig), *map(names, ALGORITHMS.values()))
    config = StepConfig.for_rule(rule, **{n: v for n, v in settings.items() if n not in others})
    return config, rule(**own), CriticConfig(**critic) if rule.critic else None


def fixed_metrics(log):
    """The log without what depends on the clock."""
    timed = ("seconds", "per_second", "runtime")
    return [{name: value for name, value in entry.items() if not name.endswith(timed)} for entry in log]


def untimed(episodes):
    """Episodes without the seconds that each step took."""
    return [
        replace(
            episode, steps=tuple(replace(step, generation_seconds=0, environment_seconds=0) for step in episode.steps)
        )
        for episode in episodes
    ]


def weights(module):
    """All parameters of a module, by name, copied; whole ones of a sharded module."""
    whole = {name: as_number(parameter.detach()) for name, parameter in module.named_parameters()}
    return {name: parameter.clone() for name, parameter in whole.items()}


def change(before, after):
    """One vector of what changed from one `weights` to another, in float64."""
    assert before.keys() == after.keys()
    return torch.cat([(after[name].double() - before[name].double()).flatten() for name in before])


def relative_difference(first, second):
    """|first - second| / |first| of two vectors; the first must not be 0."""
    assert first.norm() > 0
    return float((first - second).norm() / first.norm())


def played(trainer, iteration):
    """The episodes of an iteration, counted from 1, as written to disk."""
    return list(read_episodes(Path(trainer.args.output_dir, "episodes", f"iteration-{iteration:04d}.jsonl")))
