"""Updates of the trainer against updates written out step by step: no rows, no micro-batches, no cache."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from trainer_runs import change, played, relative_difference, weights
from transformers import TrainerCallback

from steppo_gym.credit.advantages import step_advantages
from steppo_gym.errors import AllEpisodesFailedError
from steppo_gym.rollouts.pool import EnvFactory

GAMMA, LAMBDA = 0.9, 0.8
DESCENT = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "critic_learning_rate": 0.02,
    "gamma": GAMMA,
    "gae_lambda": LAMBDA,
    "bootstrap_truncated": True,
    # So small that the critic's gradient is clipped.
    "max_grad_norm": 0.3,
}


def breaking(task_ids, **kwargs):
    kwargs = {"context": "append", "broken": tuple(task_ids), **kwargs}
    return EnvFactory("trainer_envs:steppo-test/BreakingKeyDoor-v0", kwargs)


def value_of(critic, prompt_ids):
    ids = torch.tensor([prompt_ids])
    return critic(ids, torch.ones_like(ids))[0, -1]


def mean_log_prob(policy, step):
    ids = torch.tensor([[*step.prompt_ids, *step.response_ids]])
    log_probs = torch.log_softmax(policy(input_ids=ids).logits[0].float(), dim=-1)[len(step.prompt_ids) - 1 : -1]
    return log_probs.gather(1, torch.tensor(step.response_ids)[:, None]).mean()


@torch.no_grad()
def advantages_and_targets(critic, episode):
    """From the definition: advantage t is the sum of (gamma lambda)^k times the k-th later temporal difference."""
    values = [float(value_of(critic, step.prompt_ids)) for step in episode.steps]
    over = episode.ended == "terminated"
    values.append(0.0 if over else float(value_of(critic, episode.final_prompt_ids)))
    deltas = [step.reward + GAMMA * values[t + 1] - values[t] for t, step in enumerate(episode.steps)]
    advantages = [
        sum((GAMMA * LAMBDA) ** k * delta for k, delta in enumerate(deltas[t:])) for t in range(len(episode.steps))
    ]
    return advantages, [advantage + value for advantage, value in zip(advantages, values, strict=False)]


def reference_update(policy, critic, episodes):
    """One update of StepPO on the episodes that did not fail; where the update starts, all ratios are 1."""
    episodes = [episode for episode in episodes if episode.ended != "failed"]
    steps = [step for episode in episodes for step in episode.steps]
    credit = [advantages_and_targets(critic, episode) for episode in episodes]
    advantages = np.array([a for part, _ in credit for a in part])
    targets = [target for _, part in credit for target in part]
    advantages = (advantages - advantages.mean()) / advantages.std(ddof=1)
    policy.zero_grad(set_to_none=True)
    critic.zero_grad(set_to_none=True)
    for step, advantage, target in zip(steps, advantages, targets, strict=True):
        (-advantage * mean_log_prob(policy, step) / len(steps)).backward()
        (0.5 * (value_of(critic, step.prompt_ids) - target) ** 2 / len(steps)).backward()
    for module, rate in ((policy, DESCENT["learning_rate"]), (critic, DESCENT["critic_learning_rate"])):
        norm = torch.sqrt(sum((p.grad**2).sum() for p in module.parameters() if p.grad is not None))
        scale = min(1.0, DESCENT["max_grad_norm"] / float(norm))
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.grad is not None:
                    parameter -= rate * scale * parameter.grad


@pytest.mark.parametrize(
    ("context", "kind"), [("append", "full"), ("rebuilt", "full"), ("append", "lora"), ("append", "head")]
)
def test_updates_are_those_of_the_definition(make_trainer, task_ids, context, kind):
    # Every third task breaks in the middle of its episode. This protocol rewards every step, so that the rebuilt
    # context, which the policy knows nothing of, has something to learn from.
    spec = breaking(task_ids[::3], context=context, protocol="verl-agent")
    trainer = make_trainer(spec=spec, iterations=2, critic=kind, **DESCENT)
    reference = make_trainer(critic=kind)
    # The adapters of a critic start at random.
    reference.critic.load_state_dict(trainer.critic.state_dict())
    policy, critic = weights(trainer.model), weights(trainer.critic)
    trainer.train()
    for iteration in (1, 2):
        episodes = played(trainer, iteration)
        endings = {episode.ended for episode in episodes}
        assert endings == {"failed", "truncated"} if context == "rebuilt" else endings >= {"failed", "truncated"}
        # The steps before the failure are in the record; they must not be trained on.
        assert all(episode.steps for episode in episodes if episode.ended == "failed")
        reference_update(reference.model, reference.critic, episodes)
    if context == "append":
        assert any(episode.ended == "terminated" for number in (1, 2) for episode in played(trainer, number))
    expected = change(policy, weights(reference.model)), change(critic, weights(reference.critic))
    assert relative_difference(expected[0], change(policy, weights(trainer.model))) < 1e-4
    assert relative_difference(expected[1], change(critic, weights(trainer.critic))) < 1e-4
    failed = sum(episode.ended == "failed" for episode in played(trainer, 1))
    assert trainer.state.log_history[0]["failed_rate"] == pytest.approx(failed / 8)


def test_an_iteration_in_which_all_episodes_fail_stops_the_run_and_changes_nothing(make_trainer, task_ids):
    trainer = make_trainer(spec=breaking(task_ids), iterations=2, updates_per_iteration=2, beta=0.1)
    policy, critic = weights(trainer.model), weights(trainer.critic)
    with pytest.raises(
        AllEpisodesFailedError, match="the first at the boundary 'environment' with: RuntimeError: the door"
    ):
        trainer.train()
    assert trainer.state.global_step == 0
    assert change(policy, weights(trainer.model)).norm() == 0
    assert change(critic, weights(trainer.critic)).norm() == 0


def test_training_goes_on_after_an_iteration_of_failures(make_trainer, task_ids):
    # 16 tasks, 8 of them broken: after a while an iteration has both.
    trainer = make_trainer(spec=breaking(task_ids[:8]), task_ids=task_ids[:16], iterations=2, ratio="sqrt_centered")
    policy = weights(trainer.model)
    trainer.train()
    rates = [entry["failed_rate"] for entry in trainer.state.log_history[:2]]
    assert sum(rates) == 1.0
    assert change(policy, weights(trainer.model)).norm() > 0


def test_an_update_whose_episodes_all_failed_moves_nothing(make_trainer, task_ids, monkeypatch):
    # One episode an update. Adam remembers the gradients of those before it.
    trainer = make_trainer(spec=breaking(task_ids[::2]), updates_per_iteration=8)
    models = (trainer.model, trainer.critic)
    seen = [[weights(model) for model in models]]
    norms = {"grad_norm": [], "critic_grad_norm": []}

    class Watch(TrainerCallback):
        def on_step_end(self, *_, **__):
            seen.append([weights(model) for model in models])

    clip = torch.nn.utils.clip_grad_norm_

    def seen_clip(*args, **kwargs):
        norm = clip(*args, **kwargs)
        # In every update the policy's, and then the critic's.
        min(norms.values(), key=len).append(float(norm))
        return norm

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", seen_clip)

    trainer.add_callback(Watch())
    trainer.train()
    failed = sum(episode.ended == "failed" for episode in played(trainer, 1))
    assert 0 < failed < 8
    for number in range(len(models)):
        moved = [change(before[number], after[number]).norm() > 0 for before, after in pairwise(seen)]
        assert moved[0]
        assert moved.count(False) == failed
    # Means over the updates that had something to learn from.
    logged = trainer.state.log_history[0]
    assert logged["ratio_mean"] > 0.9
    for name, of_updates in norms.items():
        assert of_updates.count(0.0) == failed
        assert logged[name] == pytest.approx(sum(of_updates) / (8 - failed))


@pytest.mark.parametrize(("bootstrap", "timed_out"), [(True, False), (False, False), (False, True)])
def test_truncated_episodes_bootstrap_if_told_to_or_out_of_time_and_terminated_ones_do_not(
    make_trainer, monkeypatch, bootstrap, timed_out
):
    trainer = make_trainer(
        episodes_per_iteration=16,
        gamma=GAMMA,
        gae_lambda=LAMBDA,
        whiten_advantages=False,
        bootstrap_truncated=bootstrap,
    )
    if timed_out:
        play = trainer.play

        def play_out_of_time(*args, **kwargs):
            rollout = play(*args, **kwargs)
            late = [replace(e, timed_out=e.ended == "truncated") for e in rollout.episodes]
            return replace(rollout, episodes=late)

        monkeypatch.setattr(trainer, "play", play_out_of_time)
    with torch.no_grad():
        trainer.critic.head.bias.fill_(0.5)
    trainer.train()
    episodes = played(trainer, 1)
    lengths = [episode.num_steps for episode in episodes]
    rewards = [step.reward for episode in episodes for step in episode.steps]
    truncated = np.array([episode.ended == "truncated" for episode in episodes])
    assert 0 < truncated.sum() < 16

    def credit(final_values):
        constant = np.full(len(rewards), 0.5)
        return step_advantages(rewards, constant, final_values, steps_per_episode=lengths, gamma=GAMMA, lam=LAMBDA)

    final_values = {True: np.where(truncated, 0.5, 0.0), False: np.zeros(16)}
    has_value = bootstrap or timed_out
    advantages, targets = credit(final_values[has_value])
    logged = trainer.state.log_history[0]
    assert logged["value_mean"] == pytest.approx(0.5)
    assert logged["value_target_mean"] == pytest.approx(targets.mean(), rel=1e-5)
    assert logged["advantage_mean"] == pytest.approx(advantages.mean(), rel=1e-5)
    assert logged["advantage_std"] == pytest.approx(advantages.std(ddof=1), rel=1e-5)
    for wrong in (final_values[not has_value], np.full(16, 0.5)):
        assert abs(logged["value_target_mean"] - credit(wrong)[1].mean()) > 1e-3
