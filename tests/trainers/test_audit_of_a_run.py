"""`steppo-gym audit` of a run of the trainer: what an iteration was given beside what its steps were worth."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from chat_families import family_model, family_tokenizer
from peft import LoraConfig, get_peft_model

from steppo_gym.cli import main
from steppo_gym.rollouts.episode import read_episodes, write_episodes
from steppo_gym.trainers.auditing.source import critic_of, played_by, training_of
from steppo_gym.trainers.checkpoints import save_critic
from steppo_gym.trainers.policy.critic import Critic
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.launch import launch
from steppo_gym.view.episode_file import EpisodeFile
from steppo_gym.view.run_folder import open_runs

SIZES = ["--points", "5", "--continuations", "3", "--alternatives", "1", "--batches", "2", "--quiet"]


@pytest.fixture(scope="module")
def run(policy_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audited") / "doors"
    flags = {
        "env": "key_door", "context": "append", "model_name_or_path": policy_folder, "output_dir": folder,
        "iterations": 2, "episodes_per_iteration": 6, "num_generations": 2, "updates_per_iteration": 2,
        "max_completion_length": 10, "learning_rate": 1e-4, "critic_learning_rate": 1e-3, "num_slots": 6,
        "num_env_workers": 0, "test_tasks": 0, "validation_tasks": 0, "save_every": 1, "report_to": "none",
        "gae_lambda": 0.5,
    }  # fmt: skip
    launch(ALGORITHMS["steppo"], [f"--{name}={value}" for name, value in flags.items()])
    return folder


def test_a_critic_on_weights_that_no_checkpoint_has_is_not_read(tmp_path):
    settings = {"max_prompt_tokens": None, "max_completion_length": 10, "max_steps": 2}
    trained = {"critic": {"critic": "lora", "bootstrap_truncated": False}, "config": settings}
    plain = family_model("qwen2", family_tokenizer("qwen2"))
    some = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    for adapters, kept in ((some, True), (replace(some, modules_to_save=["embed_tokens"]), False), (None, False)):
        policy = copy.deepcopy(plain)
        policy = policy if adapters is None else get_peft_model(policy, adapters)
        save_critic(Critic(policy, "lora"), tmp_path)
        assert (critic_of(tmp_path, trained, ALGORITHMS["steppo"], policy) is not None) == kept


def audit(run, folder, *more):
    return main(["audit", str(run), "--out", str(folder), *SIZES, *more])


def test_the_credit_of_an_iteration_stands_beside_its_truth(run, tmp_path, capsys):
    assert audit(run, tmp_path / "a", "--iteration", "2") == 0
    capsys.readouterr()
    recorded = run / "episodes" / "iteration-0002.jsonl"
    assert (tmp_path / "a" / "episodes.jsonl").read_bytes() == recorded.read_bytes()
    settings = json.loads((tmp_path / "a" / "settings.json").read_text())
    assert settings["source"].endswith("checkpoint-2") and settings["iteration"] == 2
    (opened,) = open_runs([tmp_path / "a"])
    file = EpisodeFile(opened.episode_file("episodes.jsonl"), opened.tokenizer_file())
    trained = EpisodeFile(recorded, run / "tokenizer" / "tokenizer.json")
    points = file.truth.points()
    assert len(points) == 5
    for point in points:
        (here,), (there,) = (one.steps(point["episode"], point["place"], 1) for one in (file, trained))
        assert here.pop("truth")["credit"]["steppo"]["batches"] > 0
        # Advantage, value, ratios and tokens are those of training, text and all.
        assert here == there and "advantage" in here and "value" in here and here["tokens"]
    report = json.loads((tmp_path / "a" / "report.json").read_text())
    # The critic of the checkpoint is read, and groups are those of the run.
    assert {"steppo", "grpo"} <= set(report["rules"]) and "ppo" in report["left_out"]


def test_what_the_policy_of_the_iteration_would_do_is_what_it_did(run, tmp_path):
    """The responses of an iteration are among those its own policy begins with, far more often than by chance."""
    assert audit(run, tmp_path / "a", "--iteration", "2", "--continuations", "8") == 0
    lines = [json.loads(line) for line in (tmp_path / "a" / "truth.jsonl").read_text().splitlines()]
    assert np.mean([line["responses"][0]["draws"] / line["continuations"] for line in lines]) > 0.1


def test_what_cannot_be_audited_of_a_run_is_named(run, tmp_path, capsys):
    for more, message in (
        (("--iteration", "1"), "checkpoint-0 is not there. Episodes and the policy that played them are there for: 2."),
        (("--iteration", "7"), "Iteration 7 cannot be audited"),
        (("--iteration", "2", "--tasks", "3"), "--tasks is about episodes that are played"),
        (("--env", "alfworld"), "is a run on key_door, and --env says alfworld"),
    ):
        assert audit(run, tmp_path / "b", *more) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "b").exists()
    assert main(["audit", "expert:0.5", "--iteration", "2", "--env", "key_door"]) == 1
    assert "--iteration needs the folder of a run" in capsys.readouterr().err
    assert main(["audit", "expert:0.5"]) == 1
    assert "Give --env" in capsys.readouterr().err


def test_an_audit_goes_on_with_the_same_weights_alone(run, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    small = ("--tasks", "2", "--episodes_per_task", "2", "--group_size", "2", "--groups", "2")
    assert audit(copy, tmp_path / "c", *small) == 0
    shutil.copyfile(copy / "checkpoint-2" / "model.safetensors", copy / "final" / "model.safetensors")
    capsys.readouterr()
    assert audit(copy, tmp_path / "c", *small) == 1
    assert "holds an audit with another model_hash" in capsys.readouterr().err


def test_what_was_played_ahead_is_audited_by_the_weights_it_was_played_with(run, tmp_path):
    shutil.copytree(run / "episodes", tmp_path / "episodes")
    shutil.copyfile(run / "config.json", tmp_path / "config.json")
    for number in (2, 4):
        (tmp_path / f"checkpoint-{number}").mkdir()
    file = tmp_path / "episodes" / "iteration-0002.jsonl"
    assert played_by(tmp_path, 2, training_of(tmp_path, None)) == (tmp_path / "checkpoint-2", file)
    episodes = [replace(e, steps=tuple(replace(s, version=0) for s in e.steps)) for e in read_episodes(file)]
    write_episodes(file, episodes)
    shutil.copyfile(file, tmp_path / "episodes" / "iteration-0003.jsonl")
    with pytest.raises(ValueError, match=r"checkpoint-0 is not there.*there for: none"):
        played_by(tmp_path, 2, training_of(tmp_path, None))
