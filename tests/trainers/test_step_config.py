"""Settings: what is computed, and what is refused with which words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.trainers.algorithm_configs import StepPOConfig
from steppo_gym.trainers.step_config import StepConfig


def make_config(tmp_folder="unused", **settings):
    return StepPOConfig(output_dir=tmp_folder, use_cpu=True, report_to="none", **settings)


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
    with pytest.raises(ValueError, match=re.escape(message)):
        make_config(**settings)


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


def test_steppo_has_one_ratio_per_step():
    assert make_config().ratio == "geometric"
    assert StepConfig(output_dir="unused", use_cpu=True, report_to="none").ratio == "token"


def test_a_processor_computes_in_float32():
    config = make_config()
    assert not config.bf16 and not config.fp16
