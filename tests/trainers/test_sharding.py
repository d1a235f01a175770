"""Models spread over processes learn, go on, sample and are saved as whole ones are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import distributed_updates
import pytest
import torch
from distributed_updates import QUICK, SHARDED, make_trainer, own_bytes
from ranks import run_ranks
from safetensors.torch import load_file
from trainer_runs import change, relative_difference, weights
from transformers import Qwen3ForCausalLM

from steppo_gym.rollouts.rollout import Assignment
from steppo_gym.trainers.sharding.weights import FileWeights, plain_name
from steppo_gym.trainers.step_trainer import StepTrainer

SCRIPT = Path(__file__).parents[1] / "distributed_updates.py"
BOUNDS = {"steppo-bf16": 5e-2}
"""Where the whole of a layer is in bfloat16 and not its matrix products alone."""


def torchrun(processes, policy, folder, *arguments, **environment):
    """A process that waits for another in vain ends with the time limit."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    finished = subprocess.run(
        [*command, str(SCRIPT), str(policy), str(folder), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        timeout=550,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def together(random_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    run_ranks(2, lambda: distributed_updates.main(random_folder, folder, "full", *QUICK))
    return folder


@pytest.mark.parametrize("name", QUICK)
def test_sharded_models_make_the_update_of_whole_ones(together, alone, name):
    whole, sharded = load_file(alone(name)), load_file(together / f"{name}.safetensors")
    assert whole.keys() == sharded.keys()
    for part in whole:
        assert relative_difference(whole[part], sharded[part]) < BOUNDS.get(name, 1e-5)


def test_a_sharded_run_goes_on_as_if_it_had_not_been_stopped(together):
    through, resumed = (
        load_file(together / place) for place in ("steppo-adam.safetensors", "again/resumed.safetensors")
    )
    for part in through:
        assert relative_difference(through[part], resumed[part]) < 1e-6


def test_a_process_holds_half_and_samples_the_same(together, random_folder, tmp_path):
    told = json.loads((together / "held.json").read_text())
    trainer = make_trainer("steppo-adam", random_folder, tmp_path)
    trainer.train()
    # Shares of small weights are uneven.
    assert told["bytes"] < 0.6 * own_bytes(trainer)
    todo = [Assignment("train-1", 3), Assignment("train-2", 4)]
    rollout = StepTrainer.play(trainer, trainer.spec, todo, temperature=1.0, seed=5)
    sampled = [list(step.response_ids) for episode in rollout.episodes for step in episode.steps]
    assert told["sampled"] == sampled


def test_what_is_saved_is_the_whole_policy(together, random_folder):
    before, after = (
        weights(Qwen3ForCausalLM.from_pretrained(folder)) for folder in (random_folder, together / "final")
    )
    learned = load_file(together / "steppo-adam.safetensors")["policy"]
    torch.testing.assert_close(change(before, after), learned, atol=1e-6, rtol=0)
    assert json.loads((together / "final" / "config.json").read_text())["architectures"] == ["Qwen3ForCausalLM"]


def test_only_the_rows_that_are_asked_for_are_read(random_folder):
    whole = load_file(random_folder / "model.safetensors")
    read = FileWeights(str(random_folder)).rows("model.embed_tokens.weight", 3, 2)
    assert torch.equal(read, whole["model.embed_tokens.weight"][3:5])


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("base_model.model.model.layers.0.mlp.up_proj.base_layer.weight", "model.layers.0.mlp.up_proj.weight"),
        ("backbone.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("base_model.model.lm_head.modules_to_save.default.weight", "lm_head.weight"),
        ("model.norm.weight", "model.norm.weight"),
    ],
)
def test_a_weight_is_found_under_adapters_and_in_critics(name, plain):
    assert plain_name(name, "model") == plain


def test_one_process_has_nothing_to_share(make_trainer):
    with pytest.raises(ValueError, match="found one"):
        make_trainer(shard="full")


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["full", "hybrid"])
def test_four_processes_do_too_and_two_go_on(alone, random_folder, tmp_path, shard):
    # As if there were two nodes of two processes.
    nodes = {"TEST_LOCAL_WORLD_SIZE": "2"} if shard == "hybrid" else {}
    four = torchrun(4, random_folder, tmp_path / "four", shard, **nodes)
    for name in SHARDED:
        whole, sharded = load_file(alone(name)), load_file(four / f"{name}.safetensors")
        for part in whole:
            assert relative_difference(whole[part], sharded[part]) < BOUNDS.get(name, 1e-5)
    torchrun(2, random_folder, four, "full", "resume")
    through, resumed = (load_file(four / place) for place in ("steppo-adam.safetensors", "again/resumed.safetensors"))
    for part in through:
        assert relative_difference(through[part], resumed[part]) < 1e-5
