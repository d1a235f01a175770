"""The benchmark of wrong samplers: its fault is the one that its page describes, in training alone."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import pytest
from benchmark_scripts import load_benchmark

from steppo_gym.credit.rows import build_rows
from steppo_gym.rollouts.rollout import Assignment
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.step_data import sampled_log_probs

benchmark = load_benchmark("off_policy")


@pytest.fixture
def trainer(random_folder, tmp_path):
    options = Namespace(iterations=1, episodes=8, learning_rate=1e-3, slip=0.25, engine_ms=0.0)
    made = benchmark.make_trainer(random_folder, tmp_path, "wrong sampler, step_truncate", options, seed=0)
    yield made
    made.close()


def test_tokens_are_drawn_uniformly_as_often_as_it_is_told(trainer):
    todo = [Assignment(task, seed=0) for task in benchmark.TASKS[:6]]
    episodes = trainer.play(benchmark.SPEC, todo, temperature=1.0, seed=0).episodes
    sampled = sampled_log_probs(episodes)
    own = np.exp(trainer._forward.log_probs(build_rows(episodes), len(sampled)))
    words = trainer.model.config.vocab_size
    np.testing.assert_allclose(np.exp(sampled), 0.75 * own + 0.25 / words, rtol=1e-3)
    assert np.abs(np.log(own) - sampled).mean() > 0.1


def test_held_out_tasks_are_played_by_the_policy_itself(trainer):
    with trainer.sampling(0.0, 0) as policy:
        assert type(policy) is ModelPolicy
    with trainer.sampling(1.0, 0) as policy:
        assert type(policy) is benchmark.TestedPolicy and policy.slip == 0.25
