"""Settings: what is computed, and what is refused with which words."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.trainers.algorithm_configs import (
    EpisodeGroupConfig,
    GAGPOConfig,
    GiGPOConfig,
    GSPOConfig,
    HGPOConfig,
    LeaveOneOutConfig,
    PPOConfig,
    ReinforcePlusPlusConfig,
    StepPOConfig,
)
from steppo_gym.trainers.step_config import StepConfig

WITH_GROUPS = (EpisodeGroupConfig, GSPOConfig, LeaveOneOutConfig, GiGPOConfig, HGPOConfig, GAGPOConfig)
WITH_STATES = (GiGPOConfig, HGPOConfig, GAGPOConfig)
ALL = (StepPOConfig, PPOConfig, ReinforcePlusPlusConfig, *WITH_GROUPS)


def make_config(config_class=StepPOConfig, **settings):
    return config_class(output_dir="unused", use_cpu=True, report_to="none", **settings)


@given(
    iterations=st.integers(1, 5),
    updates=st.integers(1, 4),
    passes=st.integers(1, 3),
    accumulation=st.integers(1, 3),
    groups=st.integers(1, 3),
    group=st.integers(1, 4),
)
def test_trls_counts_follow_from_ours(iterations, updates, passes, accumulation, groups, group):
    episodes = 2 * updates * accumulation * groups * group
    config = make_config(
        iterations=iterations,
        updates_per_iteration=updates,
        num_iterations=passes,
        gradient_accumulation_steps=accumulation,
        episodes_per_iteration=episodes,
        num_generations=group,
    )
    assert config.max_steps == iterations * updates * passes
    assert config.updates_in_iteration == config.logging_steps == updates * passes
    # TRL collects a generation batch of so many episodes, and hands it out in so many slices.
    assert config.per_device_train_batch_size * config.steps_per_generation == episodes == config.generation_batch_size
    assert config.steps_per_generation == updates * accumulation
    assert config.num_generations == group


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"iterations": 0}, "iterations must be at least 1, got 0."),
        ({"episodes_per_iteration": 1}, "episodes_per_iteration must be at least 2, got 1."),
        ({"updates_per_iteration": -1}, "updates_per_iteration must be at least 1, got -1."),
        ({"num_generations": 0}, "num_generations must be at least 1, got 0."),
        ({"num_slots": 0}, "num_slots must be at least 1, got 0."),
        ({"gamma": 1.01}, "gamma must be between 0 and 1, got 1.01."),
        ({"gae_lambda": -0.1}, "gae_lambda must be between 0 and 1, got -0.1."),
        ({"ratio": "step"}, "ratio must be one of token, geometric, sqrt_centered, got 'step'."),
        ({"loss_average": "rows"}, "loss_average must be one of tokens, steps, episodes, constant, got 'rows'."),
        ({"kl_in": "both"}, "kl_in must be one of loss, reward, got 'both'."),
        ({"generation_batch_size": 8}, "Set episodes_per_iteration instead of generation_batch_size."),
        ({"max_steps": 7}, "Set iterations instead of max_steps"),
        ({"top_p": 0.9, "min_p": 0.1}, "top_p, min_p: rollouts sample from the whole distribution"),
        (
            {"episodes_per_iteration": 10, "updates_per_iteration": 4},
            "episodes_per_iteration (10) must be a multiple of updates_per_iteration x "
            "gradient_accumulation_steps x processes (4).",
        ),
        (
            {"episodes_per_iteration": 8, "num_generations": 3, "updates_per_iteration": 1},
            "The episodes of one process (8) must be a multiple of num_generations (3)",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    for config_class in (StepPOConfig, ReinforcePlusPlusConfig):
        with pytest.raises(ValueError, match=re.escape(message)):
            make_config(config_class, **settings)


@pytest.mark.parametrize("config_class", WITH_GROUPS)
def test_rules_that_compare_episodes_refuse_groups_of_one(config_class):
    assert make_config(config_class).num_generations == 8
    with pytest.raises(ValueError, match="num_generations must be at least 2, got 1: an episode that is alone"):
        make_config(config_class, num_generations=1)
    with pytest.raises(ValueError, match=re.escape("loss_average must be one of tokens, steps, episodes, constant")):
        make_config(config_class, loss_average="rows")


@pytest.mark.parametrize("config_class", WITH_STATES)
def test_states_are_compared_by_one_of_two_anchors(config_class):
    assert make_config(config_class).anchor == "state"
    assert make_config(config_class, anchor="observation").anchor == "observation"
    with pytest.raises(ValueError, match="anchor must be state or observation, got 'prompt'"):
        make_config(config_class, anchor="prompt")


def test_a_history_cannot_be_negative():
    assert make_config(HGPOConfig, history=0).history == 0
    with pytest.raises(ValueError, match="history must be at least 0, got -1"):
        make_config(HGPOConfig, history=-1)


def test_a_batch_that_the_processes_cannot_share_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match=re.escape("x processes (12)")):
        make_config(episodes_per_iteration=8, updates_per_iteration=4)


def test_evaluation_and_checkpoints_are_counted_in_iterations():
    config = make_config(iterations=9, updates_per_iteration=4, num_iterations=2, evaluate_every=3, save_every=2)
    assert (config.eval_strategy.value, config.eval_steps, config.save_steps) == ("steps", 24, 16)
    config = make_config(iterations=9, evaluate_every=0, save_every=0)
    assert config.eval_strategy.value == "no"
    assert config.save_steps == config.max_steps


@pytest.mark.parametrize(
    ("config_class", "ratio", "loss_average", "gamma", "kl_in"),
    [
        (StepPOConfig, "geometric", "steps", 0.99, "loss"),
        (PPOConfig, "token", "tokens", 1.0, "loss"),
        (ReinforcePlusPlusConfig, "token", "tokens", 1.0, "reward"),
        (EpisodeGroupConfig, "token", "episodes", 0.99, "loss"),
        (GSPOConfig, "geometric", "episodes", 0.99, "loss"),
        (LeaveOneOutConfig, "token", "tokens", 0.99, "reward"),
        (GiGPOConfig, "token", "steps", 0.95, "loss"),
        (HGPOConfig, "token", "steps", 0.95, "loss"),
        (GAGPOConfig, "geometric", "steps", 0.95, "loss"),
    ],
)
def test_what_makes_an_algorithm(config_class, ratio, loss_average, gamma, kl_in):
    config = make_config(config_class)
    assert (config.ratio, config.loss_average, config.gamma, config.kl_in) == (ratio, loss_average, gamma, kl_in)


@pytest.mark.parametrize("config_class", ALL)
def test_algorithms_differ_in_what_is_theirs_alone(config_class):
    theirs = {"ratio", "loss_average", "gamma", "kl_in", "num_generations"}
    usual, own = make_config(StepConfig), make_config(config_class)
    changed = {field.name for field in fields(StepConfig) if getattr(own, field.name) != getattr(usual, field.name)}
    assert changed <= theirs


def test_a_processor_computes_in_float32():
    config = make_config()
    assert not config.bf16 and not config.fp16
