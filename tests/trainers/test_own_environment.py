"""docs/own_environment.md as its reader would use it: the environment, the commands and the script in it work."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from forked import prepare_for_runs, run_script

from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.report import read_metrics
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, warm_started_policy

ENV = "sort_env:my/Sort-v0"
SMALL = {
    "iterations": 1, "episodes_per_iteration": 8, "updates_per_iteration": 2, "max_completion_length": 6,
    "num_slots": 4, "num_env_workers": 1, "report_to": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def blocks(repository: Path):
    """The environment and the script of the guide."""
    text = (repository / "docs" / "own_environment.md").read_text(encoding="utf-8")
    environment, script = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    return environment, script


@pytest.fixture
def folder(blocks, tmp_path):
    """A folder with the environment in it."""
    (tmp_path / "sort_env.py").write_text(blocks[0])
    return tmp_path


def train(folder, script, **flags):
    prepare_for_runs()
    return run_script(
        script, "--env", ENV, *(f"--{name}={value}" for name, value in (SMALL | flags).items()), cwd=folder
    )


def test_the_environment_keeps_the_contract(folder):
    # As the installed command: with -P Python itself does not look into the working directory.
    code = "from steppo_gym.cli import main; raise SystemExit(main())"
    command = [sys.executable, "-P", "-c", code, "check", ENV]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, f"{ENV} keeps the contract.\n"), done.stderr


def test_the_training_script_trains_on_it(folder, repository):
    small = {"demonstrations": 16, "warm_start_updates": 3, "test_tasks": 4, "validation_tasks": 4}
    done = train(folder, repository / "trainers" / "steppo.py", **small)
    assert done.returncode == 0, done.stderr
    (run,) = (folder / "runs").iterdir()
    assert run.name == "sort_env-my-Sort-v0-steppo-seed42"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["environment"] == ENV and summary["episodes"] == 8
    assert set(summary["after"]["greedy"]) == {"test"}
    assert 0 <= summary["after"]["greedy"]["test"]["in_place"] <= 1
    assert "eval_validation_in_place" in read_metrics(run / "metrics.jsonl")[0]


def test_the_script_of_the_guide_runs(folder, blocks, random_folder):
    settings = ", ".join(f"{name}={value!r}" for name, value in (SMALL | {"use_cpu": True}).items())
    script = re.sub(r'MODEL = ".*"', f"MODEL = {str(random_folder)!r}", blocks[1])
    script = re.sub(r"iterations=10, learning_rate=1e-6, max_completion_length=256", settings, script)
    script = script.replace("held_out, 100", "held_out, 4")
    (folder / "train.py").write_text(script)
    done = run_script(folder / "train.py", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"'eval_test_success': \d", done.stdout)


def test_an_environment_without_an_expert_needs_a_model(folder, repository, blocks):
    (folder / "sort_env.py").write_text(blocks[0].replace("def expert_response", "def expert"))
    done = train(folder, repository / "trainers" / "steppo.py")
    assert done.returncode == 1
    assert f"{ENV} has no expert_response" in done.stderr and "--model_name_or_path" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_module_makes_another_policy(folder, blocks, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    tiny = WarmStartConfig(
        num_demonstrations=4, num_updates=1, policy=SmallPolicyConfig(hidden_size=16, num_layers=1, num_heads=2)
    )

    def make():
        spec = EnvFactory(ENV, {"context": "append"})
        return warm_started_policy(spec, ["train-0", "train-1"], tiny, seed=0, num_workers=0, progress=False)

    first = make()
    assert make() == first
    (folder / "sort_env.py").write_text(blocks[0] + "\n# Changed.\n")
    assert make() != first
    # Other tests have modules and environments of these names in other folders.
    del sys.modules["sort_env"], gymnasium.registry["my/Sort-v0"]


def test_it_is_told_nothing_that_it_does_not_know():
    settings = parse_arguments(StepPO, ["--env", ENV, "--env_args", "max_steps=6"])
    assert settings.env_kwargs == {"context": "append", "action_format": "tag", "max_steps": 6}
    assert settings.run.description() == "(append context)"
