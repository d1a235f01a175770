"""Every recipe is read by every script, and what it describes fits the cards it names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from transformers import Qwen2Config, Qwen3Config

from steppo_gym.cli import main
from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.trainers.rules import ALGORITHMS, GRPO, StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.launch import launch

RECIPES = Path(__file__).parents[2] / "recipes"
TASKS = ("alfworld", "webshop", "hotpotqa", "paper_search")
QWEN3 = {"vocab_size": 151_936, "head_dim": 128, "num_key_value_heads": 8, "tie_word_embeddings": True}
SMALLER = {**QWEN3, "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16}
LARGER = {**QWEN3, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 32}
QWEN2 = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
}
MODELS = {
    "1.7b-lora-24gb": (Qwen3Config(**SMALLER), 1, 24),
    "1.7b-80gb": (Qwen3Config(**SMALLER), 1, 80),
    "4b-4x80gb": (Qwen3Config(**LARGER), 4, 80),
    "7b-8x80gb": (Qwen2Config(**QWEN2), 8, 80),
}
"""By file: the architecture of the model it names, its cards, and their GB."""


def files(*names):
    return ["--config", *(str(RECIPES / f"{name}.yaml") for name in names)]


def test_the_recipes_are_those_known_here():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*TASKS, *MODELS, "two-nodes"}


def read(script, task, model, *more):
    settings = parse_arguments(ALGORITHMS[script], files(task, model, *more))
    told, cards = yaml.safe_load((RECIPES / f"{model}.yaml").read_text()), MODELS[model][1]
    assert settings.run.env == task
    assert settings.model.model_name_or_path == told["model_name_or_path"]
    assert settings.config.shard == ("none" if cards == 1 else "hybrid" if more else "full")
    assert (settings.critic is not None) == (ALGORITHMS[script].critic is not None)
    # Each process has whole groups for each of its updates.
    config, processes = settings.config, cards * (2 if more else 1)
    assert config.episodes_per_iteration % (config.steps_per_generation * processes) == 0
    assert config.episodes_per_iteration // processes % config.num_generations == 0


@pytest.mark.parametrize("script", ALGORITHMS)
def test_every_script_reads_every_recipe(script):
    for task, model in zip(TASKS, MODELS, strict=True):
        read(script, task, model)
    read(script, TASKS[0], "7b-8x80gb", "two-nodes")


@pytest.mark.parametrize("script", ["steppo", "grpo"])
@pytest.mark.parametrize("task", TASKS)
def test_every_task_goes_with_every_model(script, task):
    for model, (_, cards, _) in MODELS.items():
        read(script, task, model)
        if cards > 1:
            read(script, task, model, "two-nodes")


def test_later_files_and_the_command_line_go_first():
    both = files("alfworld", "1.7b-lora-24gb")
    assert parse_arguments(StepPO, both).config.max_prompt_tokens == 7168
    assert parse_arguments(StepPO, [*both, "--max_prompt_tokens", "99"]).config.max_prompt_tokens == 99
    assert parse_arguments(GRPO, both).config.num_generations == 8
    assert parse_arguments(StepPO, both).config.num_generations == 1
    assert parse_arguments(StepPO, both).critic.critic == "lora"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "must hold `flag: value` lines"),
        ("a: {b: 1}", "must be a number"),
        ("a: [", "is no YAML"),
        ("nonsense: 1", "nonsense"),
    ],
)
def test_a_file_that_is_no_recipe_is_one_line(text, said, tmp_path, refused):
    (tmp_path / "r.yaml").write_text(text)
    with refused(said):
        parse_arguments(StepPO, ["--config", str(tmp_path / "r.yaml")])


def test_a_file_that_is_no_text_is_named(tmp_path, refused):
    (tmp_path / "r.yaml").write_bytes(b"\xd0\xff")
    with refused(r"--config: .*r\.yaml is no text"):
        parse_arguments(StepPO, ["--config", str(tmp_path / "r.yaml")])


@pytest.mark.parametrize("model", ["1.7b-lora-24gb", *(pytest.param(m, marks=pytest.mark.slow) for m in [*MODELS][1:])])
def test_a_recipe_fits_its_cards(model, tmp_path, capsys):
    config, cards, size = MODELS[model]
    config.save_pretrained(tmp_path)
    # The task with the longest contexts.
    flags = [*files("paper_search", model), "--model_name_or_path", str(tmp_path)]
    status = main(["memory", "--gpus", str(cards), "--card", str(size), "--", *flags])
    assert status == 0, capsys.readouterr().out


def test_the_twin_of_the_recipe_of_a_small_card_runs_to_a_policy_that_is_evaluated(random_folder, tmp_path):
    """The same flags on a tiny model and fewer, shorter episodes."""
    sizes = {
        "model_name_or_path": random_folder,
        "max_prompt_tokens": 2048,
        "max_completion_length": 6,
        "max_tokens_per_micro_batch": 4096,
        "iterations": 1,
        "episodes_per_iteration": 4,
        "updates_per_iteration": 1,
        "num_slots": 4,
        "num_env_workers": 0,
        "test_tasks": 2,
        "validation_tasks": 1,
        "output_dir": tmp_path / "run",
        "report_to": "none",
    }
    given = [
        *files("alfworld", "1.7b-lora-24gb"),
        *(f"--{name}={value}" for name, value in sizes.items()),
        "--env_args",
        "max_steps=3",
    ]
    launch(StepPO, given)
    assert main(["merge", str(tmp_path / "run")]) == 0
    for model in ("final", "merged"):
        out = tmp_path / model
        command = [
            "evaluate",
            "--model",
            str(tmp_path / "run" / model),
            "--split",
            "test_seen",
            "--tasks",
            "2",
            "--workers",
            "0",
            "--quiet",
        ]
        assert main([*command, "--out", str(out)]) == 0
        (file,) = (out / "episodes").glob("*.jsonl")
        assert len(list(read_episodes(file))) == 2
    told, found = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("run", "final"))
    assert found["scores"] == told["after"]["greedy"]["test_seen"]
    again = launch(
        StepPO,
        [
            *given,
            f"--model_name_or_path={tmp_path / 'run' / 'merged'}",
            f"--output_dir={tmp_path / 'again'}",
            "--test_tasks=0",
            "--validation_tasks=0",
        ],
    )
    assert again["updates"] == 1
