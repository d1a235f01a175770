"""Settings: what is computed, and what is refused with which words."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.rules import ALGORITHMS, GRPO, StepPO
from steppo_gym.trainers.step_config import StepConfig, check_rule


def make_config(rule=StepPO, **settings):
    return StepConfig.for_rule(rule, output_dir="unused", use_cpu=True, report_to="none", **settings)


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
        ({"ratio": "step"}, "ratio must be one of token, geometric, sqrt_centered, got 'step'."),
        ({"loss_average": "rows"}, "loss_average must be one of tokens, steps, episodes, constant, got 'rows'."),
        ({"kl_in": "both"}, "kl_in must be one of loss, reward, got 'both'."),
        ({"generation_batch_size": 8}, "Set episodes_per_iteration instead of generation_batch_size, which follows"),
        ({"max_steps": 7}, "Set iterations instead of max_steps"),
        ({"optim": "lomo"}, "optim lomo changes weights in every backward pass"),
        ({"optim": "galore_adamw_layerwise"}, "optim galore_adamw_layerwise changes weights in every backward pass"),
        ({"optim": "schedule_free_adamw"}, "optim schedule_free_adamw has other weights in updates than"),
        ({"eval_steps": 7}, "Set evaluate_every instead of eval_steps"),
        (
            {"policy_servers": "http://a", "policy_servers_folder": "b", "overlap_environments": False},
            "overlap_environments has no effect with policy_servers: each response is asked for as soon as",
        ),
        ({"stream_responses": True, "overlap_environments": True}, "has no effect with stream_responses"),
        (
            {"stream_responses": True, "policy_servers": "http://a", "policy_servers_folder": "b"},
            "stream_responses is for the trainer's own model: leave out policy_servers.",
        ),
        ({"num_env_workers": 0, "env_step_timeout": 5.0}, "env_step_timeout has no effect without num_env_workers"),
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


@pytest.mark.parametrize("script", ALGORITHMS)
def test_rules_that_compare_episodes_refuse_groups_of_one(script):
    rule = ALGORITHMS[script]
    assert make_config(rule).num_generations == (8 if rule.needs_groups else 1)
    check_rule(rule, make_config(rule), None)
    if rule.needs_groups:
        with pytest.raises(ValueError, match="num_generations must be at least 2, got 1: an episode that is alone"):
            check_rule(rule, make_config(rule, num_generations=1), None)
    else:
        check_rule(rule, make_config(rule, num_generations=1), None)


def test_settings_of_a_critic_that_is_not_there_are_refused():
    check_rule(StepPO, make_config(), CriticConfig())
    with pytest.raises(ValueError, match="GRPO has no critic, got a critic_config"):
        check_rule(GRPO, make_config(GRPO), CriticConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"critic_learning_rate": -1.0}, "critic_learning_rate must be at least 0, got -1.0."),
        ({"critic_warmup_iterations": -1}, "critic_warmup_iterations must be at least 0, got -1."),
        ({"value_clip_range": 0.0}, "value_clip_range must be above 0, or None, got 0.0."),
    ],
)
def test_a_critic_that_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CriticConfig(**settings)
    assert CriticConfig(value_clip_range=None, critic_learning_rate=0.0).value_clip_range is None


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
    ("script", "ratio", "loss_average", "kl_in", "gamma", "critic", "needs_groups"),
    [
        ("steppo", "geometric", "steps", "loss", 0.99, "step", False),
        ("ppo", "token", "tokens", "loss", 1.0, "token", False),
        ("reinforce_pp", "token", "tokens", "reward", 1.0, None, False),
        ("grpo", "token", "episodes", "loss", None, None, True),
        ("gspo", "geometric", "episodes", "loss", None, None, True),
        ("rloo", "token", "tokens", "reward", None, None, True),
        ("gigpo", "token", "steps", "loss", 0.95, None, True),
        ("hgpo", "token", "steps", "loss", 0.95, None, True),
        ("gagpo", "geometric", "steps", "loss", 0.95, None, True),
        ("capo", "sqrt_centered", "steps", "loss", 0.99, "step", False),
        ("g2po", "token", "steps", "loss", 0.95, None, True),
        ("graphgpo", "token", "steps", "loss", None, None, True),
        ("mt_grpo", "token", "tokens", "loss", None, None, True),
        ("empg", "token", "episodes", "loss", None, None, True),
        ("planpo", "token", "episodes", "loss", None, None, True),
        ("vineppo", "token", "tokens", "loss", 1.0, None, False),
        ("bpo", "token", "steps", "loss", 1.0, None, True),
    ],
)
def test_what_makes_an_algorithm(script, ratio, loss_average, kl_in, gamma, critic, needs_groups):
    rule = ALGORITHMS[script]
    config = make_config(rule)
    assert (config.ratio, config.loss_average, config.kl_in) == (ratio, loss_average, kl_in)
    assert (getattr(rule(), "gamma", None), rule.critic, rule.needs_groups) == (gamma, critic, needs_groups)


@pytest.mark.parametrize("rule", ALGORITHMS.values())
def test_algorithms_differ_in_what_is_theirs_alone(rule):
    assert set(rule.defaults) <= {"ratio", "loss_average", "kl_in", "num_generations"}
    own, usual = make_config(rule), make_config(StepPO, **{"ratio": "token", "loss_average": "tokens"})
    changed = {field.name for field in fields(StepConfig) if getattr(own, field.name) != getattr(usual, field.name)}
    assert changed == {name for name, value in rule.defaults.items() if value != getattr(usual, name)}


def test_what_is_given_goes_before_what_the_rule_changes():
    assert make_config(StepPO, ratio="token").ratio == "token"


def test_a_processor_computes_in_float32():
    config = make_config()
    assert not config.bf16 and not config.fp16
