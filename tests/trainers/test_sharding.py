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
from transformers import Qwen3Config, Qwen3ForCausalLM

from steppo_gym.rollouts.rollout import Assignment
from steppo_gym.trainers.sharding.weights import FileWeights, plain_name
from steppo_gym.trainers.step_trainer import StepTrainer

SCRIPT = Path(__file__).parents[1] / "distributed_updates.py"


def bound(name):
    """A relative difference; in bfloat16 the whole of a sharded layer is, and not its matrix products alone."""
    return 5e-2 if name.endswith("bf16") else 1e-5


def differences(one, other):
    """Of what two files say has changed: by part, relative."""
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    return {part: relative_difference(first[part], second[part]) for part in first}


def sampled(trainer):
    """The responses of two episodes, token by token."""
    todo = [Assignment("train-1", 3), Assignment("train-2", 4)]
    rollout = StepTrainer.play(trainer, trainer.spec, todo, temperature=1.0, seed=5)
    return [list(step.response_ids) for episode in rollout.episodes for step in episode.steps]


def run_updates(processes, *arguments, node=None):
    """`distributed_updates.main` in several processes, of nodes of so many if that is said."""

    def call():
        if node is not None:
            os.environ["LOCAL_WORLD_SIZE"] = str(node)
        distributed_updates.main(*arguments)

    run_ranks(processes, call)


def torchrun(processes, *arguments):
    """The same from the command line; a process that waits for another in vain ends with the time limit."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    finished = subprocess.run(
        [*command, str(SCRIPT), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=550,
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]


@pytest.fixture(scope="module")
def together(random_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sharded")
    run_updates(2, random_folder, folder, "full", *QUICK)
    return folder


@pytest.mark.parametrize("name", QUICK)
def test_sharded_models_make_the_update_of_whole_ones(together, alone, name):
    assert max(differences(alone(name), together / f"{name}.safetensors").values()) < bound(name)


def test_a_sharded_run_goes_on_as_if_it_had_not_been_stopped(together):
    through, resumed = together / "steppo-adam.safetensors", together / "again" / "resumed.safetensors"
    assert max(differences(through, resumed).values()) < 1e-6


def test_a_process_holds_half_and_samples_the_same(together, random_folder, tmp_path):
    told = json.loads((together / "held.json").read_text())
    trainer = make_trainer("steppo-adam", random_folder, tmp_path)
    trainer.train()
    # Shares of small weights are uneven.
    assert told["bytes"] < 0.6 * own_bytes(trainer)
    assert told["sampled"] == sampled(trainer)


def test_models_are_never_whole_while_they_are_built(random_folder, tmp_path):
    config = Qwen3Config.from_pretrained(random_folder)
    # Few layers: what Python keeps of each is not what is measured.
    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4, "head_dim": 64}
    config.update(sizes | {"num_attention_heads": 8, "num_key_value_heads": 8, "layer_types": ["full_attention"] * 4})
    model = Qwen3ForCausalLM(config)
    whole = sum(parameter.nbytes for parameter in model.parameters()) / 2**20
    model.save_pretrained(tmp_path / "large")
    run_updates(2, random_folder, tmp_path, "full", "built")
    for rank in (0, 1):
        told = json.loads((tmp_path / f"built-{rank}.json").read_text())
        most = told["most"]
        print(f"{whole:.0f} MiB whole, process {rank}: {told}")
        # Half of policy and critic are one of them; before they were shared out they would be two.
        assert whole < most < 1.5 * whole


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
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("processes", "shard"), [(2, "full"), (4, "full"), (4, "hybrid")])
def test_every_set_up_is_that_of_one_process(alone, random_folder, tmp_path, processes, shard):
    folder = tmp_path / "sharded"
    run_updates(processes, random_folder, folder, shard, *SHARDED, node=2 if shard == "hybrid" else None)
    worst = {name: differences(alone(name), folder / f"{name}.safetensors") for name in SHARDED}
    # Each on as many processes, and on others.
    through, resumed = folder / "steppo-adam.safetensors", folder / "again" / "resumed.safetensors"
    worst["resumed"] = differences(through, resumed)
    other = 2 if processes == 4 else 4
    torchrun(other, random_folder, folder, "full", "resume")
    worst[f"resumed on {other}"] = differences(through, resumed)
    for name, parts in worst.items():
        print(f"{processes} {shard:7} {name:30}", *(f"{part} {value:.1e}" for part, value in parts.items()))
    for name, parts in worst.items():
        assert max(parts.values()) < bound(name), name
    trainer = make_trainer("steppo-adam", random_folder, tmp_path)
    trainer.train()
    told = json.loads((folder / "held.json").read_text())
    assert told["sampled"] == sampled(trainer)
    # Under hybrid a node of two holds the whole.
    parts = 2 if shard == "hybrid" else processes
    assert told["bytes"] < 1.25 / parts * own_bytes(trainer)
