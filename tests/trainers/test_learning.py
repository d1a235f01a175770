"""StepPO changes what a policy does: it unlearns the fault of the demonstrations it was warm-started on."""

from __future__ import annotations

import random

from steppo_gym.demonstrations import DemonstratedStep, Demonstration
from steppo_gym.rollout import Assignment
from steppo_gym.trainers.small_policy import SmallPolicyConfig, build_model
from steppo_gym.trainers.warm_start import WarmStartConfig, demonstration_rows, imitate

FAULT = 0.7
"""Chance that the demonstrator reads the note once more instead of taking the key."""


def dawdle(spec, task_ids):
    """Demonstrations whose usual response before a key does nothing, so that imitating the usual never wins."""
    env, rng = spec.make(), random.Random(0)
    for task_id in task_ids:
        observation, info = env.reset(seed=0, options={"task_id": task_id})
        steps, over = [], False
        while not over:
            response = env.expert_response()
            if "take" in response and rng.random() < FAULT:
                response = "<action>read note</action>"
            steps.append(DemonstratedStep(observation, response))
            observation, _, terminated, truncated, info = env.step(response)
            over = terminated or truncated
        yield Demonstration(task_id, "", tuple(steps), info["success"], "append")


def greedy_success(trainer, number=100):
    """On tasks that are neither demonstrated nor trained on."""
    assignments = [Assignment(f"train-{task}", seed=0) for task in range(500, 500 + number)]
    episodes = trainer.play(trainer.spec, assignments, temperature=0.0, seed=0).episodes
    return sum(episode.success for episode in episodes) / number


def test_a_fault_of_the_demonstrations_is_unlearnt(make_trainer, spec, task_ids, tokenizer, codec):
    model = build_model(tokenizer, SmallPolicyConfig(hidden_size=64, num_layers=2, num_heads=2), seed=0)
    rows = [row for d in dawdle(spec, task_ids) for row in demonstration_rows(d, codec, observation_weight=0.3)]
    imitate(model, rows, WarmStartConfig(num_updates=150), pad_token_id=tokenizer.pad_token_id, seed=0, progress=False)
    trainer = make_trainer(
        model=model,
        iterations=6,
        episodes_per_iteration=64,
        updates_per_iteration=8,
        learning_rate=5e-4,
        critic_learning_rate=2e-3,
        num_slots=64,
        save_episodes=False,
    )
    before = greedy_success(trainer)
    trainer.train()
    after = greedy_success(trainer)
    assert before < 0.2
    assert after > before + 0.3
