"""What may not change the result of training, and what must."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from trainer_runs import change, fixed_metrics, played, relative_difference, untimed, weights
from transformers import Qwen3ForCausalLM, TrainerCallback

from steppo_gym.credit.rows import build_rows
from steppo_gym.rollouts.rollout import Assignment, Rollout, RolloutStats
from steppo_gym.trainers.evaluation import first_tasks
from steppo_gym.trainers.step_data import Slice, sampled_log_probs

# Plain gradient descent with long strides: the change of a parameter is its gradient, and ratios leave 1.
DESCENT = {"optim": "sgd", "learning_rate": 0.05, "critic_learning_rate": 0.05, "updates_per_iteration": 2}


def train(trainer, **kwargs):
    """What the training changes in policy and critic, each as one vector."""
    before = weights(trainer.model), weights(trainer.critic)
    trainer.train(**kwargs)
    return change(before[0], weights(trainer.model)), change(before[1], weights(trainer.critic))


def plays(trainer, episodes):
    """The trainer, with episodes that another one of its seed has played: playing takes most of the time."""
    trainer.play = lambda *_, **__: Rollout(tuple(episodes), RolloutStats(num_episodes=len(episodes), seconds=1.0))
    return trainer


def adapters():
    return LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


# With adapters the critic's are on the policy's own frozen weights.
CRITICS = {
    "full": {},
    "lora": {"critic": "lora"},
    "head": {"critic": "head"},
    "adapters and lora": {"kwargs": {"peft_config": adapters()}},
}


@pytest.mark.parametrize("ratio", ["token", "geometric", "sqrt_centered"])
def test_neither_micro_batches_nor_accumulation_change_an_update(make_trainer, ratio):
    whole = make_trainer(ratio=ratio, max_tokens_per_micro_batch=100_000, **DESCENT)
    policy, critic = train(whole)
    # The second of the two updates has ratios of its own, so that they take part in what is compared.
    assert whole.state.log_history[0]["approx_kl"] > 1e-5
    for settings in (
        {"max_tokens_per_micro_batch": 1},
        {"max_tokens_per_micro_batch": 700},
        {"gradient_accumulation_steps": 2},
        {"gradient_accumulation_steps": 4, "max_tokens_per_micro_batch": 300},
    ):
        other = make_trainer(ratio=ratio, **DESCENT | settings)
        other_policy, other_critic = train(plays(other, played(whole, 1)))
        assert relative_difference(policy, other_policy) < 1e-5, settings
        assert relative_difference(critic, other_critic) < 1e-5, settings
        for name, value in whole.state.log_history[0].items():
            if name in ("loss", "policy_loss", "value_loss", "entropy", "approx_kl", "ratio_mean", "clip_fraction"):
                assert other.state.log_history[0][name] == pytest.approx(value, rel=1e-4, abs=1e-6), (settings, name)


def test_the_ratios_differ(make_trainer):
    first, *others = (make_trainer(ratio=ratio, **DESCENT) for ratio in ("token", "geometric", "sqrt_centered"))
    changes = [train(first)[0], *(train(plays(other, played(first, 1)))[0] for other in others)]
    assert relative_difference(changes[0], changes[1]) > 1e-3
    assert relative_difference(changes[1], changes[2]) > 1e-3


def test_a_seed_decides_everything(make_trainer):
    settings = {"iterations": 2, "updates_per_iteration": 2, "num_generations": 2}
    runs = [make_trainer(seed=seed, **settings) for seed in (3, 3, 4)]
    first, second, third = (train(trainer) for trainer in runs)
    assert fixed_metrics(runs[0].state.log_history) == fixed_metrics(runs[1].state.log_history)
    assert first[0].equal(second[0]) and first[1].equal(second[1])
    assert not first[0].equal(third[0])


def test_worker_processes_change_nothing(make_trainer):
    # By default workers are found out whether to overlap with; then rounding may differ.
    runs = [make_trainer(iterations=2, num_env_workers=number, overlap_environments=True) for number in (0, 2)]
    alone, together = (train(trainer) for trainer in runs)
    assert fixed_metrics(runs[0].state.log_history) == fixed_metrics(runs[1].state.log_history)
    assert alone[0].equal(together[0]) and alone[1].equal(together[1])


def test_a_run_keeps_to_what_it_has_found_out(make_trainer):
    """The log entries come back with a checkpoint, so a run that goes on does too."""
    for setting, logged, expected in (
        (None, [], False),
        (None, [1.0], True),
        (None, [1.0, 0.0], False),
        (None, [1.0, 0.5], False),
        (True, [0.0], True),
        (False, [1.0], False),
    ):
        trainer = make_trainer(overlap_environments=setting)
        trainer.state.log_history = [{"environments_overlap": value} for value in logged] + [{"eval_success": 1.0}]
        rollout = trainer.play(trainer.spec, [Assignment("train-0", 0)], temperature=1.0, seed=0)
        assert rollout.stats.overlap is expected, (setting, logged)


@pytest.mark.parametrize("kind", CRITICS)
def test_a_resumed_run_is_the_run_that_did_not_stop(make_trainer, kind):
    settings = {
        **CRITICS[kind],
        "iterations": 2,
        "updates_per_iteration": 2,
        "num_iterations": 2,
        "gradient_accumulation_steps": 2,
        "save_every": 1,
        "lr_scheduler_type": "linear",
    }
    straight = make_trainer(**settings)
    straight.train()
    resumed = make_trainer(**settings)
    resumed.train(resume_from_checkpoint=str(Path(straight.args.output_dir, "checkpoint-4")))
    assert [entry["step"] for entry in straight.state.log_history[:2]] == [4, 8]
    # The log of the first iteration comes from the checkpoint. All is equal to the last bit.
    straight_log, resumed_log = (fixed_metrics(run.state.log_history[:2]) for run in (straight, resumed))
    assert resumed_log == straight_log
    for own, other in ((straight.model, resumed.model), (straight.critic, resumed.critic)):
        other_weights = weights(other)
        assert all(weight.equal(other_weights[name]) for name, weight in weights(own).items())
    assert untimed(played(resumed, 2)) == untimed(played(straight, 2))


def test_the_critic_is_saved_with_a_checkpoint(make_trainer):
    trainer = make_trainer()
    trainer.train()
    saved = load_file(Path(trainer.args.output_dir, "checkpoint-1", "critic.safetensors"))
    expected = trainer.critic.state_dict()
    assert saved.keys() == expected.keys()
    assert all(saved[name].equal(expected[name]) for name in saved)
    assert float(saved["head.weight"].abs().max()) > 0


def test_the_critic_has_a_learning_rate_of_its_own(make_trainer):
    start = make_trainer()
    policy, critic = weights(start.model), weights(start.critic)
    frozen_policy, frozen_critic = make_trainer(learning_rate=0.0), make_trainer(critic_learning_rate=0.0)
    for trainer in (frozen_policy, frozen_critic):
        trainer.train()
    assert change(policy, weights(frozen_policy.model)).norm() == 0
    assert change(critic, weights(frozen_policy.critic)).norm() > 0
    assert change(policy, weights(frozen_critic.model)).norm() > 0
    assert change(critic, weights(frozen_critic.critic)).norm() == 0


def test_an_optimizer_of_ones_own_trains_the_critic_too(make_trainer, policy_folder):
    model = Qwen3ForCausalLM.from_pretrained(policy_folder)
    own = torch.optim.SGD(model.parameters(), lr=1e-3)
    trainer = make_trainer(model=model, critic_learning_rate=0.05, kwargs={"optimizers": (own, None)})
    critic = weights(trainer.critic)
    # Asked for more than once, as by the scripts before training.
    assert trainer.create_optimizer() is own and len(trainer.create_optimizer().param_groups) == 2
    trainer.train()
    assert change(critic, weights(trainer.critic)).norm() > 0
    assert [group["initial_lr"] for group in own.param_groups] == [1e-3, 0.05]


def test_a_scheduler_that_does_not_know_the_critic_is_refused(make_trainer, model):
    own = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(own, lambda step: 0.5**step)
    trainer = make_trainer(model=model, kwargs={"optimizers": (own, schedule)})
    with pytest.raises(ValueError, match=r"^optimizers: the scheduler .* choose lr_scheduler_type\.$"):
        trainer.train()


def test_the_norm_of_the_gradient_is_the_mean_over_the_updates_of_an_iteration(make_trainer, monkeypatch):
    trainer, norms = make_trainer(updates_per_iteration=2), []
    clip = trainer._clip_grad_norm
    monkeypatch.setattr(trainer, "_clip_grad_norm", lambda model: norms.append(clip(model)) or norms[-1])
    trainer.train()
    assert len(norms) == 2 and norms[0] != norms[1]
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(sum(map(float, norms)) / 2)


def test_the_longest_response_is_one_number_in_sampling_and_in_the_loss(make_trainer):
    trainer = make_trainer(max_completion_length=None, loss_average="constant", **DESCENT)
    part = Slice((), num_episodes=3, num_steps=6, num_tokens=12)
    iteration = SimpleNamespace(credit=SimpleNamespace(unit="step"))
    totals = trainer._forward.begin_update(iteration, [part], lambda counts: [counts])
    with trainer.sampling(1.0, 0) as policy:
        assert totals.policy_denominator == 3 * policy.max_response_tokens == 3 * 256


def test_gradients_are_unscaled_once_an_update_as_the_scaler_of_float16_demands(make_trainer, monkeypatch):
    trainer, unscaled = make_trainer(updates_per_iteration=2), []
    monkeypatch.setattr(trainer.accelerator, "unscale_gradients", lambda: unscaled.append(trainer.state.global_step))
    trainer.train()
    assert unscaled == [0, 1]
    # None takes memory while the next iteration is played.
    assert all(weight.grad is None for model in (trainer.model, trainer.critic) for weight in model.parameters())


@pytest.mark.parametrize(
    "settings",
    [
        # Everything that could move parameters without a gradient: weight decay, momentum, and clipping that is off.
        {"optim": "adamw_torch", "weight_decay": 0.5, "lr_scheduler_type": "linear"},
        {"optim": "sgd", "optim_args": "momentum=0.9", "weight_decay": 0.5, "max_grad_norm": 0.0},
        {"optim": "adamw_torch", "weight_decay": 0.5, "beta": 0.1, "ratio": "sqrt_centered"},
    ],
)
def test_only_the_critic_learns_while_it_warms_up(make_trainer, settings):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            seen.append((weights(trainer.model), weights(trainer.critic)))

    trainer = make_trainer(
        iterations=3,
        updates_per_iteration=2,
        gradient_accumulation_steps=2,
        critic_warmup_iterations=2,
        kwargs={"callbacks": [Watch()]},
        **settings,
    )
    policy, critic = weights(trainer.model), weights(trainer.critic)
    trainer.train()
    for update, (own, value) in enumerate(seen):
        assert all(own[name].equal(policy[name]) for name in policy) == (update < 4), update
        assert change(critic, value).norm() > 0
    log = trainer.state.log_history[:3]
    # The policy is measured all the same.
    assert all(entry["entropy"] > 0 and entry["policy_loss"] is not None for entry in log)
    assert [entry["approx_kl"] < 1e-8 for entry in log] == [True, True, False]
    if settings.get("max_grad_norm") != 0.0:
        assert [entry["grad_norm"] > 0 for entry in log] == [False, False, True]
    # What the optimiser keeps of the policy begins with the first update of it.
    kept = [trainer.optimizer.state[p] for p in trainer.model.parameters() if p in trainer.optimizer.state]
    assert all(float(state["step"]) == 2 for state in kept if "step" in state)


def test_a_run_resumed_while_the_critic_warms_up_is_the_run_that_did_not_stop(make_trainer):
    settings = {"iterations": 3, "critic_warmup_iterations": 2, "save_every": 1}
    straight, resumed = make_trainer(**settings), make_trainer(**settings)
    straight.train()
    resumed.train(resume_from_checkpoint=str(Path(straight.args.output_dir, "checkpoint-1")))
    for own, other in ((straight.model, resumed.model), (straight.critic, resumed.critic)):
        other_weights = weights(other)
        assert all(weight.equal(other_weights[name]) for name, weight in weights(own).items())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_first_update_starts_at_the_policy_that_sampled(make_trainer, temperature, recompute):
    trainer = make_trainer(temperature=temperature, recompute_log_probs=recompute, updates_per_iteration=1)
    trainer.train()
    logged = trainer.state.log_history[0]
    assert logged["clip_fraction"] == 0.0
    assert logged["approx_kl"] < 1e-8
    assert logged["ratio_mean"] == pytest.approx(1, abs=1e-4) and logged["ratio_max"] == pytest.approx(1, abs=1e-3)


def test_recomputed_log_probs_are_the_samplers(make_trainer, task_ids):
    trainer = make_trainer(temperature=0.7, max_tokens_per_micro_batch=900)
    assignments = [Assignment(task_id, seed=1) for task_id in task_ids[:14]]
    episodes = trainer.play(trainer.spec, assignments, temperature=0.7, seed=2).episodes
    sampled = sampled_log_probs(episodes)
    recomputed = trainer._forward.log_probs(build_rows(episodes), len(sampled))
    assert len({round(value, 3) for value in sampled}) > 50
    assert abs(sampled - recomputed).max() < 1e-4


def test_the_kl_from_the_reference_starts_at_zero(make_trainer):
    trainer = make_trainer(beta=0.1, iterations=3, learning_rate=3e-3)
    trainer.train()
    kl = [entry["kl"] for entry in trainer.state.log_history[:3]]
    assert abs(kl[0]) < 1e-7
    assert kl[1] > 1e-5 and kl[2] > 1e-5
    held = make_trainer(beta=100.0, iterations=3, learning_rate=3e-3)
    held.train()
    assert held.state.log_history[2]["kl"] < kl[2]


def test_the_reference_is_the_policy_that_was_given_and_not_what_lies_in_its_folder(make_trainer, model):
    with torch.no_grad():
        model.model.norm.weight *= 1.5
    trainer = make_trainer(model=model, beta=0.1)
    trainer.train()
    assert abs(trainer.state.log_history[0]["kl"]) < 1e-7


def test_the_reference_of_adapters_that_the_policy_came_with_has_them(make_trainer, model):
    settings = LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(model, settings)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            weight += 0.05 * ("lora_B" in name)
    trainer = make_trainer(model=adapted, beta=0.1)
    before = {name: weight for name, weight in weights(adapted).items() if ".ref." in name}
    trainer.train()
    assert abs(trainer.state.log_history[0]["kl"]) < 1e-7
    after = weights(adapted)
    assert before and all(weight.equal(after[name]) for name, weight in before.items())


@pytest.mark.parametrize(("beta", "critic"), [(0.0, None), (0.1, "lora"), (0.0, "full"), (0.0, "head")])
def test_adapters_and_critic_are_all_that_is_trained_with_peft(make_trainer, beta, critic):
    trainer = make_trainer(kwargs={"peft_config": adapters()}, beta=beta, critic=critic, iterations=3)
    policy, values = weights(trainer.model), weights(trainer.critic)
    trainer.train()
    after = weights(trainer.model)
    changed = {name for name in policy if not policy[name].equal(after[name])}
    assert changed and all("lora_" in name for name in changed)
    assert any("lora_B" in name for name in changed)
    changes = {name for name, weight in weights(trainer.critic).items() if not weight.equal(values[name])}
    if critic in ("full", "head"):
        # The copy has no adapters, and all of it learns; a head is all there is.
        assert not any("lora_" in name for name in values)
        assert changes == set(values)
        assert (set(values) == {"head.weight", "head.bias"}) == (critic == "head")
    else:
        expected = {name for name in values if "lora_" in name or name.startswith("head.")}
        assert changes == expected < set(values)
    if beta:
        kl = [entry["kl"] for entry in trainer.state.log_history[:2]]
        assert abs(kl[0]) < 1e-7 < kl[1]
    files = {file.name for file in Path(trainer.args.output_dir, "checkpoint-3").iterdir()}
    assert {"adapter_model.safetensors", "critic.safetensors"} <= files


@pytest.mark.parametrize("size", [1, 4])
def test_groups_are_episodes_of_one_task_from_one_state(make_trainer, size):
    trainer = make_trainer(num_generations=size, iterations=2)
    trainer.train()
    seeds = set()
    for iteration in (1, 2):
        episodes = played(trainer, iteration)
        groups = {}
        for episode in episodes:
            groups.setdefault(episode.group, []).append(episode)
        assert len(groups) == 8 // size
        for members in groups.values():
            assert len(members) == size
            assert len({(member.task_id, member.seed) for member in members}) == 1
            assert size == 1 or len({member.steps for member in members}) > 1
        assert len({members[0].task_id for members in groups.values()}) == len(groups)
        seeds |= {episode.seed for episode in episodes}
    assert len(seeds) == 2 * 8 // size


def test_all_tasks_are_played_before_one_comes_again(make_trainer, task_ids):
    trainer = make_trainer(iterations=4, task_ids=task_ids[:16], max_completion_length=1)
    trainer.train()
    tasks = [[episode.task_id for episode in played(trainer, number)] for number in (1, 2, 3, 4)]
    assert sorted(tasks[0] + tasks[1]) == sorted(tasks[2] + tasks[3]) == sorted(task_ids[:16])
    assert tasks[0] + tasks[1] != tasks[2] + tasks[3]


def test_a_resumed_run_plays_the_tasks_that_it_would_have_played_in_a_later_round_too(make_trainer, task_ids):
    settings = {"iterations": 5, "task_ids": task_ids[:16], "max_completion_length": 1, "save_every": 1}
    straight = make_trainer(**settings)
    straight.train()
    for done in (2, 3):
        resumed = make_trainer(**settings)
        resumed.train(resume_from_checkpoint=str(Path(straight.args.output_dir, f"checkpoint-{done}")))
        for number in range(done + 1, 6):
            assert untimed(played(resumed, number)) == untimed(played(straight, number)), (done, number)


def test_too_few_tasks_for_an_iteration_are_refused(make_trainer, task_ids):
    with pytest.raises(ValueError, match="An iteration plays 8 different tasks, but the training split has only 3"):
        make_trainer(task_ids=task_ids[:3])


def test_evaluation_is_greedy_and_the_same_each_time(make_trainer, spec):
    held_out = [first_tasks("train", spec, 5), first_tasks("again", spec, 3)]
    trainer = make_trainer(kwargs={"evaluation_sets": held_out}, learning_rate=0.0, evaluate_every=1, iterations=2)
    assert held_out[0].task_ids == tuple(f"train-{number}" for number in range(5))
    first = trainer.play_evaluation_set(held_out[0], temperature=0.0)
    second = trainer.play_evaluation_set(held_out[0], temperature=0.0, seed=9)
    assert [episode.task_id for episode in first] == list(held_out[0].task_ids)
    assert untimed(first) == untimed(second)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_train_success" in entry]
    assert [entry["step"] for entry in entries] == [1, 2]
    success = sum(episode.success for episode in first) / 5
    assert [entry["eval_train_success"] for entry in entries] == [success, success]
    assert all(math.isfinite(entry["eval_again_return"]) for entry in entries)
    # Scores of held-out tasks are no scores of training.
    assert not any("success" in entry for entry in entries)
