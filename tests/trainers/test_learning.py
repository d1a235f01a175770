"""StepPO changes what a policy does: it unlearns the fault of the demonstrations it was warm-started on."""

from __future__ import annotations

from dataclasses import replace

from steppo_gym.rollouts.demonstrations import MessageCodec, demonstrate
from steppo_gym.rollouts.rollout import Assignment
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig, build_model
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, demonstration_rows, imitate


def greedy_success(trainer, number=50):
    """On tasks that are neither demonstrated nor trained on."""
    assignments = [Assignment(f"train-{task}", seed=0) for task in range(500, 500 + number)]
    episodes = trainer.play(trainer.spec, assignments, temperature=0.0, seed=0).episodes
    return sum(episode.success for episode in episodes) / number


def test_a_fault_of_the_demonstrations_is_unlearnt(make_trainer, spec, task_ids, tokenizer, codec):
    model = build_model(tokenizer, SmallPolicyConfig(hidden_size=64, num_layers=2, num_heads=2), seed=0)
    messages = MessageCodec()
    hasty = demonstrate(replace(spec, kwargs={**spec.kwargs, "expert": "hasty"}), task_ids, messages, seed=0)
    rows = [row for d in hasty for row in demonstration_rows(d, messages, codec, observation_weight=0.3)]
    brief = WarmStartConfig(num_updates=150, batch_size=8)
    imitate(model, rows, brief, pad_token_id=tokenizer.pad_token_id, seed=0, progress=False)
    trainer = make_trainer(
        model=model,
        iterations=3,
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
