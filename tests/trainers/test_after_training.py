"""What a run with adapters leaves: it is evaluated, merged, trained on, and says what it is."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from trainer_runs import SMALL_RUN
from transformers import AutoModelForCausalLM

from steppo_gym.cli import _parser as parser
from steppo_gym.cli import main
from steppo_gym.env_arguments import env_argument
from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.trainers.results.adapters import ADAPTER_CONFIG, load_with_adapters
from steppo_gym.trainers.results.card import write_card
from steppo_gym.trainers.rules import GRPO, StepPO
from steppo_gym.trainers.run.launch import launch
from steppo_gym.trainers.step_config import StepConfig

RUN = SMALL_RUN | {"evaluate_every": 0}
OF_THE_DEFAULT_POLICY = ("demonstrations", "warm_start_updates")
ADAPTERS = ["--use_peft", "--lora_r", "4", "--lora_target_modules", "all-linear", "--learning_rate", "0.05"]


def run(folder, *flags, rule=StepPO, **changes):
    settings = RUN | changes | {"output_dir": folder}
    if "model_name_or_path" in changes:
        settings = {name: value for name, value in settings.items() if name not in OF_THE_DEFAULT_POLICY}
    argv = [f"--{name}={value}" for name, value in settings.items()]
    return launch(rule, [*argv, *flags])


@pytest.fixture(scope="module")
def adapted(tmp_path_factory):
    """The folder of a run that has trained adapters."""
    folder = tmp_path_factory.mktemp("adapters") / "run"
    run(folder, *ADAPTERS)
    return folder


@pytest.fixture(scope="module")
def merged(adapted):
    assert main(["merge", str(adapted)]) == 0
    return adapted / "merged"


def test_adapters_are_evaluated_as_the_run_has_tested_them(adapted, tmp_path):
    command = ["evaluate", "--model", str(adapted), "--tasks", "6", "--workers", "0", "--quiet", "--out", str(tmp_path)]
    assert main(command) == 0
    (file,) = (tmp_path / "episodes").glob("*.jsonl")
    played = [[step.response for step in episode.steps] for episode in read_episodes(file)]
    tested = read_episodes(adapted / "episodes" / "after-test-greedy.jsonl")
    assert played == [[step.response for step in episode.steps] for episode in tested]


def test_the_merged_model_is_the_one_with_adapters(adapted, tmp_path):
    folder, ids = tmp_path / "final", torch.arange(40)[None] % 30
    shutil.copytree(adapted / "final", folder)
    together = load_with_adapters(folder, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in together.named_parameters():
        if "lora_B" in name:
            # So few updates move nothing that could be seen.
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    together.save_pretrained(folder)
    assert main(["merge", str(folder), "--out", str(tmp_path / "out")]) == 0
    alone = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        expected = together(input_ids=ids).logits
        torch.testing.assert_close(alone(input_ids=ids).logits, expected, atol=1e-4, rtol=0)
        with together.disable_adapter():
            assert (together(input_ids=ids).logits - expected).abs().max() > 1e-2


def test_adapters_and_merged_models_are_trained_on(adapted, merged, tmp_path):
    untested = {"context": "append", "test_tasks": 0, "validation_tasks": 0}
    first = run(tmp_path / "one", rule=GRPO, model_name_or_path=adapted / "final", num_generations=2, **untested)
    second = run(tmp_path / "two", *ADAPTERS, model_name_or_path=merged, **untested)
    assert first["updates"] == second["updates"] == 1
    # Whole weights in one case, adapters on the merged model in the other.
    assert not (tmp_path / "one" / "final" / ADAPTER_CONFIG).exists()
    known = json.loads((tmp_path / "two" / "final" / ADAPTER_CONFIG).read_text())
    assert known["base_model_name_or_path"] == str(merged)


@pytest.mark.parametrize("flags", [["--use_peft"], ["--beta", "0.1"]])
def test_adapters_alone_are_no_reference_and_no_base(adapted, tmp_path, flags):
    with pytest.raises(SystemExit, match=r"needs a whole model. Run `steppo-gym merge"):
        run(tmp_path / "run", *flags, model_name_or_path=adapted / "final")


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--use_peft"], True), (["--use_peft", "--learning_rate=1e-5"], False), (["--beta=0.1"], False)],
)
def test_adapters_at_the_rate_of_all_weights_are_remarked_on(adapted, tmp_path, capsys, flags, said):
    with pytest.raises(SystemExit, match="needs a whole model"):
        run(tmp_path / "run", *flags, model_name_or_path=adapted / "final")
    assert ("learning rate 1e-06, as for all weights" in "".join(capsys.readouterr())) == said


def test_whole_weights_and_full_folders_are_not_merged(adapted, merged, capsys):
    assert main(["merge", str(merged), "--out", str(adapted / "again")]) == 1
    assert main(["merge", str(adapted)]) == 1
    said = capsys.readouterr().err
    assert "has whole weights already" in said
    assert "is not empty" in said


def test_a_base_that_is_gone_is_named(adapted, tmp_path, capsys):
    folder = tmp_path / "moved"
    folder.mkdir()
    for path in (adapted / "final").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(tmp_path / "gone")}))
    assert main(["merge", str(folder), "--out", str(tmp_path / "out")]) == 1
    assert f"belong to the model in {tmp_path / 'gone'}, which is not there" in capsys.readouterr().err
    for text in ("[1]", "{", '{"base_model_name_or_path": 3}'):
        (folder / ADAPTER_CONFIG).write_text(text)
        assert main(["merge", str(folder), "--out", str(tmp_path / "out")]) == 1
        assert f"{ADAPTER_CONFIG} does not say to which model" in capsys.readouterr().err


def test_the_card_says_what_it_is_and_how_well_it_plays(adapted, merged):
    summary = json.loads((adapted / "summary.json").read_text())
    card = ModelCard.load(adapted / "final" / "README.md")
    assert card.data.library_name == "peft"
    assert {"reinforcement-learning", "steppo-gym", "steppo", "lora"} <= set(card.data.tags)
    scores = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert scores["success, greedy"] == summary["after"]["greedy"]["test"]["success"]
    assert summary["command"] in card.text
    assert "steppo/KeyDoor-v0" in card.text
    assert (merged / "README.md").exists()


def test_the_command_of_a_card_plays_what_was_tested_where_no_run_is_beside_the_model(tmp_path):
    scores = {"greedy": {"test_seen": {"success": 0.5}, "test_unseen": {"success": 0.5}}}
    summary = {"algorithm": "StepPO", "env": "alfworld", "environment": "steppo/ALFWorld-v0", "task": "", "seed": 0}
    summary |= {"iterations": 1, "episodes": 4, "updates": 1, "evaluation_tasks": 4, "command": "steppo.py"}
    summary |= {"before": scores, "after": scores}
    kwargs = {"difficulty": "full", "context": "append", "max_steps": 30}
    write_card(tmp_path, summary, base=None, env_kwargs=kwargs | {"data": str(tmp_path)})
    (command,) = re.findall(r"`(steppo-gym evaluate .*?)`", (tmp_path / "README.md").read_text())
    options = parser().parse_args(shlex.split(command)[1:])
    assert (options.model, options.env, options.split, options.data) == ("FOLDER", "alfworld", "test_seen", "PATH")
    assert dict(map(env_argument, options.env_args)) == kwargs


def test_a_runs_folder_is_not_pushed(tmp_path):
    with pytest.raises(ValueError, match="hf upload NAME FOLDER/final"):
        StepConfig(output_dir=str(tmp_path), use_cpu=True, push_to_hub=True)
