"""Checkpoints are complete or not there, whatever was half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from chat_families import SIZES, family_tokenizer
from safetensors.torch import load_file, save_file
from trainer_runs import weights
from transformers import MixtralConfig, MixtralForCausalLM, TrainerCallback

from steppo_gym.errors import CheckpointError, NonFiniteError
from steppo_gym.trainers.checkpoints import (
    MARK,
    STATE_FILE,
    UNFINISHED,
    begin_checkpoint,
    complete_checkpoint,
    fault,
    newest_complete,
)
from steppo_gym.trainers.step_forward import StepForward


def write(folder: Path, update: int, *, limit: int | None = None, keep: str | None = None) -> Path:
    unfinished = begin_checkpoint(folder)
    inside = unfinished / f"checkpoint-{update}"
    inside.mkdir()
    for name in (STATE_FILE, "model.safetensors", "critic.safetensors"):
        (inside / name).write_text(f"{name} of {update}")
    return complete_checkpoint(unfinished, limit, keep)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_checkpoint_appears_when_it_is_complete(tmp_path: Path):
    place = write(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint-2"] and fault(place) is None
    assert set(json.loads((place / MARK).read_text())) == {STATE_FILE, "model.safetensors", "critic.safetensors"}
    # Begun, and then the process died: the next one does not mind.
    begin_checkpoint(tmp_path)
    (tmp_path / UNFINISHED / "checkpoint-4").mkdir()
    assert newest_complete(tmp_path) == (place, {})
    assert write(tmp_path, 6).name == "checkpoint-6"
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-6"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda place: (place / "critic.safetensors").unlink(), "critic.safetensors is missing"),
        (lambda place: (place / "model.safetensors").write_text("mod"), "model.safetensors has 3 bytes instead of 23"),
        (lambda place: (place / MARK).unlink(), "it has no complete.json"),
        (lambda place: (place / MARK).write_text('{"trainer_st'), "its complete.json is damaged"),
        (lambda place: (place / MARK).write_text("[]"), "its complete.json is damaged"),
        (lambda place: (place / MARK).write_text("{}"), "its complete.json is damaged"),
    ],
)
def test_the_newest_complete_one_is_taken_and_the_others_are_named(harm, reason, tmp_path: Path):
    first = write(tmp_path, 9)
    harm(write(tmp_path, 10))
    assert newest_complete(tmp_path) == (first, {"checkpoint-10": reason})
    shutil.rmtree(first)
    assert newest_complete(tmp_path) == (None, {"checkpoint-10": reason})


def test_the_only_complete_one_is_never_removed(tmp_path: Path):
    write(tmp_path, 2)
    write(tmp_path, 4)
    (tmp_path / "checkpoint-4" / "critic.safetensors").unlink()
    write(tmp_path, 6, limit=2)
    # The damaged one is none of the two.
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-6"]
    write(tmp_path, 8, limit=1, keep="checkpoint-2")
    assert names(tmp_path) == ["checkpoint-2", "checkpoint-8"]
    write(tmp_path, 10, limit=1)
    assert names(tmp_path) == ["checkpoint-10"]


def test_a_reference_that_follows_the_policy_is_gone_on_with(make_trainer):
    follows = {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1, "ref_model_mixup_alpha": 0.5}
    settings = {"script": "rloo", "num_generations": 2, "max_completion_length": 4, "save_every": 1, "iterations": 1}
    first = make_trainer(**settings, **follows)
    begun = weights(first.ref_model)
    first.train()
    reference = weights(first.ref_model)
    assert any(not torch.equal(begun[name], weight) for name, weight in reference.items())
    again = make_trainer(**settings | {"iterations": 2}, **follows)
    seen = []
    again.play_iteration = lambda *_: seen.append(weights(again.ref_model)) or again.undo()
    with pytest.raises(AttributeError, match="undo"):
        again.train(resume_from_checkpoint=f"{first.args.output_dir}/checkpoint-1")
    assert all(torch.equal(reference[name], weight) for name, weight in seen[0].items())


def test_a_checkpoint_without_the_state_of_the_optimizer_is_not_gone_on_with(make_trainer):
    settings = {"script": "rloo", "num_generations": 2, "max_completion_length": 4, "save_every": 1}
    first = make_trainer(**settings, save_only_model=True)
    first.train()
    again = make_trainer(**settings | {"iterations": 2})
    with pytest.raises(CheckpointError, match=r"checkpoint-1 has no optimizer\.pt, without which no run goes on as it"):
        again.train(resume_from_checkpoint=f"{first.args.output_dir}/checkpoint-1")


def test_experts_that_have_other_names_in_files_are_gone_on_with(make_trainer, tmp_path: Path):
    tokenizer = family_tokenizer("qwen2")
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    model = MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=2, **ids))
    trainer = make_trainer(script="grpo", num_generations=2, model=model, processing_class=tokenizer)
    trainer.save_model(str(tmp_path))
    learned = weights(model)
    for parameter in model.parameters():
        parameter.data.zero_()
    trainer._load_from_checkpoint(str(tmp_path))
    assert all(torch.equal(learned[name], weight) for name, weight in weights(model).items())

    saved = load_file(tmp_path / "model.safetensors")
    experts = [name for name in saved if ".experts." in name]
    assert experts and not {*experts} & {*learned}, "otherwise there would be no reason for this"
    norm = "model.norm.weight"
    save_file({name: weight for name, weight in saved.items() if name != norm}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"no weights for 1 parts of the model, such as {norm}"):
        trainer._load_from_checkpoint(str(tmp_path))


def test_a_checkpoint_that_cannot_be_written_costs_no_other(make_trainer, monkeypatch: pytest.MonkeyPatch):
    trainer = make_trainer(iterations=2, save_every=1, save_total_limit=1, max_completion_length=1)
    save = torch.save
    calls = []

    def fails(*args, **kwargs):
        calls.append(args)
        if trainer.state.global_step == 2:
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed\nby a disk")
        save(*args, **kwargs)

    monkeypatch.setattr(torch, "save", fails)
    with pytest.raises(CheckpointError, match=r"checkpoint-2 could not .* failed\. The newest complete one is checkpo"):
        trainer.train()
    folder = Path(trainer.args.output_dir)
    assert newest_complete(folder) == (folder / "checkpoint-1", {})


def last_weights(trainer):
    return {name: weight.detach().clone() for name, weight in trainer.model.named_parameters()}


class Pays:
    """Wraps `play` so that one step has another reward."""

    def __init__(self, trainer, reward):
        self.play, self.reward = trainer.play, reward
        trainer.play = self

    def __call__(self, *args, **kwargs):
        rollout = self.play(*args, **kwargs)
        object.__setattr__(rollout.episodes[0].steps[-1], "reward", self.reward)
        return rollout


@pytest.mark.parametrize("script", ["steppo", "grpo"])
def test_a_reward_that_float32_cannot_hold_stops_the_run_before_it_changes_anything(make_trainer, script):
    trainer = make_trainer(script=script, num_generations=2, save_every=1)
    before = last_weights(trainer)
    Pays(trainer, 1e308)
    with pytest.raises(NonFiniteError, match=r"^Iteration 1, update 1 of 1: step \d+ of task train-.* reward 1e\+308"):
        trainer.train()
    assert all(weight.equal(before[name]) for name, weight in last_weights(trainer).items())
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("factor", "what"), [(float("nan"), "the loss, with rewards up to 1, is nan"), (1e30, "gradient is inf")]
)
def test_a_loss_or_gradient_that_is_no_number_stops_the_run_before_the_update(make_trainer, monkeypatch, factor, what):
    trainer = make_trainer(save_every=1, max_grad_norm=0.0)
    before, loss = last_weights(trainer), StepForward.loss
    # Large enough for the norm, small enough for the loss.
    monkeypatch.setattr(StepForward, "loss", lambda *args: loss(*args) * factor)
    with pytest.raises(NonFiniteError, match=rf"^Iteration 1, update 1 of 1: .*{what}\. The update was not made"):
        trainer.train()
    assert all(weight.equal(before[name]) for name, weight in last_weights(trainer).items())


class Overflows(TrainerCallback):
    """What a learning rate that is far too high does to a weight."""

    def on_optimizer_step(self, args, state, control, model=None, **kwargs):
        next(model.parameters()).data[0, 0] = float("inf")


@pytest.mark.parametrize("save_every", [1, 0])
def test_no_checkpoint_has_a_weight_that_is_no_number(make_trainer, save_every):
    trainer = make_trainer(save_every=save_every, iterations=2, kwargs={"callbacks": [Overflows()]})
    with pytest.raises(NonFiniteError, match=r"^Iteration 2, .* the policy's weight .* is not finite\. No checkpoint"):
        trainer.train()
    assert not list(Path(trainer.args.output_dir).glob("checkpoint-*"))


def test_the_clip_of_values_grows_with_what_a_task_pays(make_trainer):
    for reward, scale in ((0.25, 1.0), (1.0, 1.0), (10.0, 10.0), (-4.0, 4.0)):
        trainer = make_trainer(max_completion_length=1)
        Pays(trainer, reward)
        rewards = []
        trainer.rule = remember(trainer.rule, rewards)
        trainer.train()
        assert trainer._iteration.reward_scale == max(1.0, *rewards) and scale in (trainer._iteration.reward_scale, 1.0)


def remember(rule, rewards):
    class Rule(type(rule)):
        def __call__(self, records):
            rewards.extend(abs(step.reward) for episode in records.episodes for step in episode.steps)
            return super().__call__(records)

    return Rule()
