"""The whole job from a command line: what it writes, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_script
from matplotlib.image import imread
from safetensors.torch import load_file, save_file
from trainer_runs import fixed_metrics
from transformers import Qwen3ForCausalLM

from steppo_gym.cli import main
from steppo_gym.rollouts.episode import Episode, Step, read_episodes
from steppo_gym.trainers.auditing.critic import TrainedCritic
from steppo_gym.trainers.checkpoints import CRITIC_FILE
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.policy.critic import Critic
from steppo_gym.trainers.rules import ALGORITHMS, StepPO
from steppo_gym.trainers.run.arguments import HELP_GROUPS, USUAL_NAMES, parse_arguments
from steppo_gym.trainers.run.launch import launch
from steppo_gym.trainers.run.presets import PRESETS, Difficulty
from steppo_gym.trainers.run.report import read_metrics
from steppo_gym.trainers.step_config import StepConfig

FLAGS = {
    "env": "key_door",
    "env_args": "max_steps=8",
    "demonstrations": 24,
    "warm_start_updates": 4,
    "iterations": 2,
    "episodes_per_iteration": 8,
    "updates_per_iteration": 2,
    "max_completion_length": 6,
    "num_slots": 4,
    "num_env_workers": 0,
    "test_tasks": 4,
    "validation_tasks": 3,
    "evaluate_every": 1,
    "save_every": 1,
    # So that everything that can be logged is.
    "beta": 0.01,
    "seed": 5,
}


def run(*flags, script="steppo", **changes):
    argv = [f"--{name}={value}" for name, value in (FLAGS | changes).items()] + list(flags)
    return launch(ALGORITHMS[script], argv)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and the summary it returned."""
    folder = tmp_path_factory.mktemp("launch") / "run"
    return folder, run(output_dir=folder)


def test_a_run_leaves_its_record(finished):
    folder, _ = finished
    files = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    assert {
        "config.json",
        "metrics.jsonl",
        "summary.json",
        "learning_curve.png",
        "checkpoint-2/critic.safetensors",
        "checkpoint-4/optimizer.pt",
        "final/model.safetensors",
        "final/tokenizer.json",
    } <= files
    assert sum(name.startswith("tensorboard/events.out.tfevents") for name in files) == 1
    height, width, _ = imread(folder / "learning_curve.png").shape
    assert height > 300 and width > 500


def test_the_summary_says_what_was_done_and_how_it_went(finished):
    folder, returned = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary.items() >= returned.items()
    assert summary["algorithm"] == "StepPO" and summary["environment"] == "steppo/KeyDoor-v0"
    assert (summary["seed"], summary["iterations"], summary["episodes"], summary["updates"]) == (5, 2, 16, 4)
    assert summary["evaluation_tasks"] == 4 and summary["resumed"] is False
    assert summary["wall_seconds"] > 0
    assert "--env=key_door" in summary["command"]
    assert {"python", "steppo-gym", "torch", "transformers", "trl", "gymnasium"} <= summary["versions"].keys()
    assert all(re.match(r"\d+\.\d+", version) for version in summary["versions"].values())
    for when in ("before", "after"):
        for mode, key in (("greedy", f"success_{when}"), ("sampled", f"sampled_success_{when}")):
            episodes = list(read_episodes(folder / "episodes" / f"{when}-test-{mode}.jsonl"))
            assert [episode.task_id for episode in episodes] == [f"test-{number}" for number in range(4)]
            assert summary[key] == sum(episode.success for episode in episodes) / 4
            assert summary[when][mode]["test"]["episode_steps"] == sum(e.num_steps for e in episodes) / 4


def test_the_episodes_of_training_are_kept(finished):
    folder, _ = finished
    for number in (1, 2):
        episodes = list(read_episodes(folder / "episodes" / f"iteration-{number:04d}.jsonl"))
        assert len(episodes) == 8
        assert all(episode.task_id.startswith("train-") and episode.steps for episode in episodes)


def test_metrics_are_logged_once_per_iteration_and_evaluation(finished):
    folder, _ = finished
    entries = read_metrics(folder / "metrics.jsonl")
    training = [(entry["update"], entry["iteration"]) for entry in entries if "policy_loss" in entry]
    evaluation = [(entry["update"], entry["iteration"]) for entry in entries if "eval_validation_success" in entry]
    assert training == [(2, 1.0), (4, 2.0)]
    assert evaluation == [(0, 0.0), (2, 1.0), (4, 2.0)]


def test_what_is_watched_can_be_the_test_tasks(tmp_path):
    summary = run("--watch=test", output_dir=tmp_path / "run", iterations=1, updates_per_iteration=1)
    entries = read_metrics(tmp_path / "run" / "metrics.jsonl")
    watched = [entry for entry in entries if any(name.startswith("eval_") for name in entry)]
    assert [(entry["update"], entry["eval_test_success"]) for entry in watched] == [
        (0, summary["success_before"]),
        (1, summary["success_after"]),
    ]
    assert not any(name.startswith("eval_validation") for entry in watched for name in entry)


def test_without_test_tasks_only_the_validation_tasks_are_played(tmp_path, capsys):
    folder = tmp_path / "run"
    summary = run(output_dir=folder, test_tasks=0, iterations=1, updates_per_iteration=1)
    assert (summary["success_before"], summary["sampled_success_after"], summary["evaluation_tasks"]) == (None, None, 0)
    assert summary["before"] == summary["after"] == {"greedy": {}, "sampled": {}}
    assert not list((folder / "episodes").glob("*test*"))
    assert (folder / "learning_curve.png").exists()
    evaluated = [entry for entry in read_metrics(folder / "metrics.jsonl") if "eval_validation_success" in entry]
    assert [entry["update"] for entry in evaluated] == [0, 1]
    assert "% before" not in capsys.readouterr().out


def test_the_configuration_is_written_down(finished):
    folder, _ = finished
    record = json.loads((folder / "config.json").read_text())
    assert record["algorithm"] == "StepPO"
    assert record["run"]["env"] == "key_door" and record["run"]["context"] == "append"
    assert record["config"]["seed"] == 5 and record["config"]["ratio"] == "geometric"
    assert record["config"]["learning_rate"] == PRESETS["key_door"].small_policy_settings["learning_rate"]
    assert record["rule"] == {"gamma": 0.99, "gae_lambda": 0.95, "whiten_advantages": True}
    assert record["critic"]["bootstrap_truncated"] is False
    assert record["preset"]["env_id"] == "steppo/KeyDoor-v0"


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(finished, tmp_path):
    folder, summary = finished
    stopped = tmp_path / "stopped"
    shutil.copytree(folder, stopped)
    # Stopped in the second iteration: its checkpoint is missing, some of its metrics are written.
    shutil.rmtree(stopped / "checkpoint-4")
    (stopped / "summary.json").unlink()
    resumed = run("--resume", output_dir=stopped)
    assert resumed["resumed"] is True
    for name in ("before", "after", "success_before", "success_after"):
        assert resumed[name] == summary[name]
    own, other = (read_metrics(path / "metrics.jsonl") for path in (stopped, folder))
    # The last entry is transformers' own account of the time.
    assert fixed_metrics(own)[:-1] == fixed_metrics(other)[:-1]
    weights = [Qwen3ForCausalLM.from_pretrained(path / "final").state_dict() for path in (stopped, folder)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    assert (stopped / "summary.json").exists()


def test_a_folder_with_a_run_is_not_written_over(finished):
    folder, _ = finished
    message = f"{folder} holds a run already. Continue it with --resume, or name another --output_dir."
    with pytest.raises(SystemExit, match=f"^{re.escape(message)}$"):
        run(output_dir=folder)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(
        SystemExit, match=r"--resume: no checkpoint in .*empty\. Name the run's folder with --output_dir"
    ):
        run("--resume", output_dir=tmp_path / "empty")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--env", "chess"], r"--env must be one of .*alfworld, key_door.*, or module:id .*, got 'chess'\.$"),
        (["--env", "alfwrld"], r"--env must be one of .*, got 'alfwrld'\. Did you mean alfworld\?$"),
        (
            ["--env=key_door", "--difficulty=hard"],
            r"^--difficulty: key_door has only one\. Tasks that have several: alfworld\.$",
        ),
        (["--env=mine:my/Env-v0", "--difficulty=easy"], r"^--difficulty: mine:my/Env-v0 has only one\."),
        (["--env=alfworld", "--difficulty", "hard"], r"--difficulty must be one of easy, medium, full, got 'hard'"),
        (["--env=alfworld", "--data=x", "--difficulty=easy"], "cannot be combined with --data"),
        (["--env=key_door", "--learning_rte=1"], r"steppo\.py: unknown flag .*\. Did you mean --learning_rate\?"),
        (["--env=key_door", "--modl", "x"], r"unknown flag --modl\. Did you mean --model_name_or_path\?"),
        (["--env=key_door", "--lr", "1e-5"], r"unknown flag --lr\. Did you mean --learning_rate\?"),
        (["--env=key_door", "--batch-size=4"], r"unknown flag --batch-size\. Did you mean --episodes_per_iteration\?"),
        (["--env=key_door", "--gamma=2"], r"steppo\.py: gamma must be between 0 and 1, got 2\.0"),
        (
            ["--env=key_door", "--watch=test", "--test_tasks=0"],
            "--watch test plays the test tasks during training, but --test_tasks is 0",
        ),
    ],
)
def test_bad_input_ends_with_a_message(flags, message, refused):
    with refused(message):
        parse_arguments(StepPO, flags)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--watch=train", "invalid choice: 'train' (choose from 'validation', 'test')"),
        ("--loss_average=rows", "invalid choice: 'rows' (choose from 'tokens', 'steps', "),
        ("--kl_in=both", "invalid choice: 'both' (choose from 'loss', 'reward')"),
        ("--ratio=step", "invalid choice: 'step' (choose from 'token', 'geometric', "),
    ],
)
def test_a_bad_choice_ends_with_the_good_ones(flag, message, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(StepPO, ["--env=key_door", flag])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert flag.partition("=")[0] in error
    # Newer versions of Python leave the quotes out.
    assert message.replace("'", "") in error.replace("'", "")


@pytest.mark.parametrize("task", sorted(PRESETS))
def test_help_shows_flags_that_exist_with_the_values_of_the_task(task, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(StepPO, ["--env", task, "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    names = re.findall(r"^  --(\w+)", shown, flags=re.MULTILINE)
    common = [name for group in HELP_GROUPS.values() for name in group]
    if not PRESETS[task].difficulties:
        common.remove("difficulty")
    assert names[: len(common)] == common
    assert names[len(common) :] == [field.name for kind in (StepPO, CriticConfig) for field in fields(kind)]
    found = parse_arguments(StepPO, ["--env", task])
    for name in names:
        assert any(hasattr(part, name) for part in (found.run, found.config, found.model, found.rule, found.critic)), (
            name
        )
    easiest = next(iter(PRESETS[task].difficulties.values()), Difficulty())
    for name, value in {**PRESETS[task].small_policy_settings, **easiest.settings}.items():
        if name in names:
            assert re.search(rf"--{name} .*\[{re.escape(str(value))}\]$", shown, flags=re.MULTILINE), name
    with pytest.raises(SystemExit) as ended:
        parse_arguments(StepPO, ["--env", task, "--help_all"])
    assert ended.value.code == 0
    everything = capsys.readouterr().out
    assert all(f"--{name}" in everything for name in [*names, "deepspeed", "lora_r", "vllm_mode"])
    assert ("--difficulty" in everything) == bool(PRESETS[task].difficulties)


def test_names_of_elsewhere_are_no_flags_and_stand_for_some(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(StepPO, ["--help_all"])
    flags = set(re.findall(r"^  (--\w+)", capsys.readouterr().out, flags=re.MULTILINE))
    assert flags.isdisjoint(USUAL_NAMES) and flags.issuperset(USUAL_NAMES.values())


def test_an_id_is_a_name_of_its_task():
    found, short = (parse_arguments(StepPO, [f"--env={name}"]) for name in ("steppo/KeyDoor-v0", "key_door"))
    assert found.run.env == "key_door" and found.preset is short.preset
    assert found.config.learning_rate == short.config.learning_rate


def test_own_values_go_before_those_of_the_task():
    found = parse_arguments(StepPO, ["--env=key_door", "--learning_rate=0.5"])
    assert found.config.learning_rate == 0.5
    assert found.critic.critic_learning_rate == found.preset.small_policy_settings["critic_learning_rate"]


def test_only_the_default_policy_gets_the_keywords_meant_for_it(policy_folder):
    for flags, top_k in (((), 2), (("--model_name_or_path", str(policy_folder)), None)):
        found = parse_arguments(StepPO, ["--env", "hotpotqa", *flags])
        preset, kwargs = found.preset, found.env_kwargs
        assert kwargs.get("top_k") == top_k
        assert kwargs["context"] == ("append" if top_k else "rebuilt")
        assert preset.spec("test", kwargs).kwargs["split"] == "test"
        assert preset.spec("test", {**kwargs, "data": "folder"}).kwargs["split"] == "validation"


def test_keywords_of_the_environment_go_before_those_of_the_task():
    flags = ["--env", "webshop", "--env_args", "goals=human", "results_per_page=10"]
    kwargs = parse_arguments(StepPO, flags).env_kwargs
    assert (kwargs["goals"], kwargs["results_per_page"], kwargs["nouns"]) == ("human", 10, "words")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("goals", "NAME=VALUE"),
        ("split=test", "cannot choose the split"),
        ("context=append", "context has a flag of its own. Give it as --context"),
        ("data=x", "Give it as --data"),
    ],
)
def test_bad_keywords_of_the_environment_end_the_run(text, message, refused):
    with refused(message):
        parse_arguments(StepPO, ["--env", "webshop", "--env_args", text])


def test_a_model_of_the_users_gets_the_general_values(policy_folder):
    argv = ["--env=key_door", f"--model_name_or_path={policy_folder}"]
    found = parse_arguments(StepPO, argv)
    assert found.run.context == "rebuilt"
    assert found.run.invalid_action_reward is None
    assert found.config.learning_rate == StepConfig(output_dir="unused", use_cpu=True).learning_rate


def test_the_readme_of_the_trainers_lists_what_is_logged(finished, repository: Path, tmp_path):
    # Between them these have all there is: a critic, whitened credit, groups of episodes and of states, and branches.
    folders = [finished[0], tmp_path / "groups", tmp_path / "branches"]
    small = {"iterations": 1, "test_tasks": 0, "validation_tasks": 0, "env_args": "max_steps=6", "evaluate_every": 0}
    run(script="gigpo", output_dir=folders[1], **small)
    run(script="vineppo", output_dir=folders[2], continuations=1, **small)
    readme = (repository / "trainers" / "README.md").read_text(encoding="utf-8")
    section = readme.partition("## Metrics")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)
    assert len(listed) == len(set(listed))
    entries = [entry for folder in folders for entry in read_metrics(folder / "metrics.jsonl")]
    logged = set.union(*(set(entry) for entry in entries if "policy_loss" in entry))
    # Of runs that sample elsewhere, or from older weights (tests/trainers/test_sampling_elsewhere.py).
    elsewhere = {"sampler_kl", "correction_mean", "correction_sample_size", "correction_cut", "overlap_wait_seconds"}
    phases = {name for name in logged if re.fullmatch(r"phase_(\w+)_seconds", name)}
    assert "| `phase_<name>_seconds` |" in section and phases
    assert set(listed) == (logged - phases) | elsewhere


def test_a_run_whose_episodes_all_fail_ends_with_the_first_cause(tmp_path, repository: Path):
    """As a script, because the exit status counts."""
    module = "import gymnasium\nfrom steppo_gym.envs.key_door.env import KeyDoorEnv\n" + FALLS
    (tmp_path / "falls.py").write_text(module)
    flags = FLAGS | {"env": "falls:my/Falls-v0", "output_dir": tmp_path / "run", "num_env_workers": 1}
    argv = [f"--{n}={v}" for n, v in flags.items()]
    done = run_script(repository / "trainers" / "steppo.py", *argv, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert (
        "All 4 episodes failed, the first at the boundary 'environment' with: RuntimeError: the floor gave way" in last
    )


FALLS = """
class Falls(KeyDoorEnv):
    def __init__(self, split="train", context="append", **kwargs):
        super().__init__(split=split, context=context, **kwargs)
        self.falls = split != "train"

    def _apply(self, response):
        if self.falls:
            raise RuntimeError("the floor gave way")
        return super()._apply(response)

gymnasium.register("my/Falls-v0", entry_point=Falls)
"""


def test_models_that_are_named_run_their_layers_again_for_gradients(policy_folder):
    assert parse_arguments(StepPO, ["--model_name_or_path", str(policy_folder)]).config.activation_checkpointing is True
    off = ["--model_name_or_path", str(policy_folder), "--activation_checkpointing", "false"]
    assert parse_arguments(StepPO, off).config.activation_checkpointing is False
    assert parse_arguments(StepPO, []).config.activation_checkpointing is False


def test_a_run_is_audited_in_the_environment_it_was_trained_in(finished, tmp_path, capsys):
    folder, _ = finished
    sizes = "--tasks 2 --episodes_per_task 2 --points 3 --continuations 2 --alternatives 1 --group_size 2 --batches 3"
    flags = ["--out", str(tmp_path / "audit"), *sizes.split(), "--quiet"]
    assert main(["audit", str(folder), "--env", "key_door", *flags]) == 0
    printed = capsys.readouterr().out
    assert "| grpo |" in printed and "| steppo |" in printed
    assert "Left out because it reads a critic of tokens, and none was kept with the policy: ppo." in printed
    settings = json.loads((tmp_path / "audit" / "settings.json").read_text())
    assert settings["env_kwargs"]["context"] == "append" and settings["env_kwargs"]["split"] == "train"
    episodes = read_episodes(tmp_path / "audit" / "episodes.jsonl")
    assert max(len(step.response_ids) for episode in episodes for step in episode.steps) == 6
    assert main(["audit", str(folder), "--env", "alfworld", *flags]) == 1
    assert "is a run on key_door, and --env says alfworld" in capsys.readouterr().err
    checkpoint = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))[0]
    flags[1] = str(tmp_path / "first")
    assert main(["audit", str(checkpoint), "--env", "key_door", *flags]) == 0
    assert "| steppo |" in capsys.readouterr().out


def test_an_audit_reads_the_values_that_training_would(finished, tmp_path):
    """Against one forward pass over each prompt and response together."""
    folder, _ = finished
    checkpoint = next(iter(folder.glob("checkpoint-*")))
    model = Qwen3ForCausalLM.from_pretrained(checkpoint, dtype="float32")
    steps = (
        Step((5, 6, 7), (8, 9), None, "a", 0.0, "s"),
        Step((5, 6, 7, 8, 9, 3), (4,), None, "b", 0.0, "r"),
    )
    episode = Episode("t", steps, "truncated", (5, 6, 7, 8, 9, 3, 4, 2), group=0)
    critic = Critic(model).eval()
    # The head of so short a run may still say 0 everywhere.
    critic.head.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    assert critic.state_dict().keys() == load_file(checkpoint / CRITIC_FILE).keys()
    file = tmp_path / CRITIC_FILE
    save_file(critic.state_dict(), file)
    ids = torch.tensor([[5, 6, 7, 8, 9, 3, 4, 2]])
    with torch.no_grad():
        values = critic(ids, torch.ones_like(ids))[0].double().numpy()
    for unit, places, bootstrap in (("step", [2, 5, 7], True), ("token", [2, 3, 5, 7], True), ("step", [2, 5], False)):
        found = TrainedCritic(model, file, unit, kind=None, bootstrap_truncated=bootstrap)([episode])
        assert found[: len(places)] == pytest.approx(values[places], abs=1e-5)
        assert bootstrap or found.tolist()[-1] == 0.0
    late = replace(episode, timed_out=True)
    found = TrainedCritic(model, file, "step", kind=None, bootstrap_truncated=False)([late])
    assert found == pytest.approx(values[[2, 5, 7]], abs=1e-5)
    # As rows are cut in training; the steps before are of any length.
    cut = TrainedCritic(model, file, "step", kind=None, bootstrap_truncated=True, max_tokens=3)([episode])
    with torch.no_grad():
        last = critic(ids[:, -3:], torch.ones_like(ids[:, -3:]))[0, -1]
    assert cut == pytest.approx([*values[[2, 5]], float(last)], abs=1e-5)
    assert abs(float(last) - values[7]) > 1e-4
    assert np.abs(values).max() > 1e-4
