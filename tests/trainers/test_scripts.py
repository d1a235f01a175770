"""The script of every algorithm: short, alike in its flags, and able to do the whole job."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from dataclasses import fields, make_dataclass
from pathlib import Path
from unittest import mock

import pytest
from trainer_runs import SCRIPTS, names
from transformers import Qwen3ForCausalLM

from steppo_gym.rollouts.episode import read_episodes
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.rules import ALGORITHMS, GRPO
from steppo_gym.trainers.run.arguments import HELP_GROUPS, parse_arguments, script_name
from steppo_gym.trainers.run.report import read_metrics
from steppo_gym.trainers.setting import setting
from steppo_gym.trainers.step_config import StepConfig

WITH_CRITIC = {script for script, rule in ALGORITHMS.items() if rule.critic}
WITH_GROUPS = {script for script, rule in ALGORITHMS.items() if rule.needs_groups}
WITH_STATES = {script for script, rule in ALGORITHMS.items() if "anchor" in names(rule)}
FLAGS = {
    "env": "key_door",
    # Rules that branch play on from every step.
    "env_args": "max_steps=6",
    "demonstrations": 24,
    "warm_start_updates": 4,
    "iterations": 1,
    "episodes_per_iteration": 8,
    "updates_per_iteration": 2,
    "max_completion_length": 6,
    "num_slots": 8,
    "num_env_workers": 0,
    "test_tasks": 0,
    "validation_tasks": 1,
    "evaluate_every": 1,
    "beta": 0.01,
    "seed": 5,
    "report_to": "none",
}


def argv(**changes):
    return [f"--{name}={value}" for name, value in (FLAGS | changes).items()]


def changed(rule):
    """A value of each of the rule's settings that is not its default."""
    others = {"anchor": "observation", "history": 4, "continuations": 2, "forks": 2, "siblings": 2}
    values = {field.name: (field.default, others.get(field.name, 0.375)) for field in fields(rule)}
    return {name: not default if isinstance(default, bool) else other for name, (default, other) in values.items()}


def test_every_algorithm_has_a_script_and_a_name(repository: Path):
    with_main = {path.stem for path in (repository / "trainers").glob("*.py") if "__main__" in path.read_text()}
    assert with_main == {*SCRIPTS, "make_start"}
    assert ALGORITHMS["reinforce_pp"].title() == "REINFORCE++" and ALGORITHMS["steppo"].title() == "StepPO"


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_page_of_the_algorithms_has_its_row(repository: Path, script):
    page = (repository / "docs" / "algorithms.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `{script}\.py` \|.*$", page, flags=re.MULTILINE)
    *_, critic, ratio, average, _ = (cell.strip() for cell in row.split("|"))
    rule = ALGORITHMS[script]
    config = StepConfig.for_rule(rule, output_dir="unused", use_cpu=True)
    assert critic == {"step": "before each step", "token": "before each token", None: "none"}[rule.critic]
    assert (ratio, average) == (config.ratio, config.loss_average)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_a_handful_of_lines_and_launches_its_rule(repository: Path, script):
    path = repository / "trainers" / f"{script}.py"
    text = path.read_text()
    assert len(text.splitlines()) <= 10
    assert f"python trainers/{script}.py --env alfworld" in text
    assert script_name(ALGORITHMS[script].title()) == script
    with mock.patch("steppo_gym.trainers.run.launch.launch") as launch:
        runpy.run_path(str(path), run_name="__main__")
        launch.assert_called_once_with(ALGORITHMS[script])
        runpy.run_path(str(path), run_name="__mp_main__")
        launch.assert_called_once()


def test_a_script_can_be_run_as_a_module(tmp_path):
    module = [sys.executable, "-m", "steppo_gym.trainers.steppo", "--help"]
    done = subprocess.run(module, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "usage: python trainers/steppo.py --env TASK" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_all_scripts_offer_the_same_flags_and_their_own(script, capsys):
    rule = ALGORITHMS[script]
    with pytest.raises(SystemExit) as ended:
        parse_arguments(rule, ["--env=key_door", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: python trainers/{script}.py --env TASK" in shown
    listed = re.findall(r"^  --(\w+)", shown, flags=re.MULTILINE)
    common = [name for names in HELP_GROUPS.values() for name in names if name != "difficulty"]
    assert listed[: len(common)] == common
    own = [field.name for kind in (rule, CriticConfig)[: 1 + (script in WITH_CRITIC)] for field in fields(kind)]
    assert listed[len(common) :] == own


@pytest.mark.parametrize("script", SCRIPTS)
def test_settings_reach_the_rule(script):
    rule = ALGORITHMS[script]
    flags = [f"--{name}={value}" for name, value in changed(rule).items()]
    usual, own = (parse_arguments(rule, ["--env=key_door", *given]).rule for given in ((), flags))
    assert usual == rule()
    assert own == rule(**changed(rule))
    assert all(getattr(usual, name) != value for name, value in changed(rule).items())


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_flag_that_only_others_have_is_refused_by_name(script, refused):
    rule = ALGORITHMS[script]
    having = {s: names(r) | (names(CriticConfig) if r.critic else set()) for s, r in ALGORITHMS.items()}
    foreign = set().union(*having.values()) - having[script]
    assert foreign
    for name in sorted(foreign):
        others = ", ".join(f"{other}.py" for other in SCRIPTS if name in having[other])
        said = f"{script}.py: {ALGORITHMS[script].title()} has no setting {name}. Scripts that have it: {others}.\n"
        with refused(f"^{re.escape(said)}$"):
            parse_arguments(rule, ["--env=key_door", f"--{name}", "0.5"])


def test_the_negative_of_a_foreign_flag_is_refused_by_name_too(refused):
    with refused(r"GRPO has no setting bootstrap_truncated\. Scripts that have it: steppo\.py, ppo\.py, capo\.py\."):
        parse_arguments(GRPO, ["--env=key_door", "--no_bootstrap_truncated"])


@pytest.mark.parametrize(
    ("rule_settings", "message"),
    [({"beta": 1.0}, "every run has beta already"), ({"gamma": 1.0}, "defaults names rato, which no run has")],
)
def test_a_rule_that_cannot_be_a_script_is_refused(rule_settings, message, refused):
    (name,) = rule_settings
    rule = make_dataclass("Mine", [(name, float, setting(1.0, "Help."))], bases=(GRPO,), frozen=True)
    rule.defaults = {"rato": "token"}
    with refused(f"Mine: {message}"):
        parse_arguments(rule, ["--env=key_door"])


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_does_the_whole_job(script, tmp_path, monkeypatch, capsys):
    folder, fewer = tmp_path / "run", {"continuations": 1} if script == "vineppo" else {}
    monkeypatch.setattr(sys, "argv", [f"trainers/{script}.py", *argv(output_dir=folder, **fewer)])
    runpy.run_module(f"steppo_gym.trainers.{script}", run_name="__main__")
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["algorithm"], summary["updates"], summary["episodes"]) == (ALGORITHMS[script].title(), 2, 8)
    assert summary["command"].startswith(f"{script}.py --env=key_door")
    (entry,) = (entry for entry in read_metrics(folder / "metrics.jsonl") if "policy_loss" in entry)
    assert ("value_loss" in entry) == (script in WITH_CRITIC)
    assert ("group_size" in entry) == (script in WITH_GROUPS)
    assert ("state_group_size" in entry) == (script in WITH_STATES)
    assert entry["advantage_std"] >= 0
    assert "kl" in entry
    episodes = list(read_episodes(folder / "episodes" / "iteration-0001.jsonl"))
    assert len({episode.group for episode in episodes}) == (1 if script in WITH_GROUPS else 8)
    assert Qwen3ForCausalLM.from_pretrained(folder / "final").num_parameters() > 0
    # Nothing was tested, so nothing is said of it.
    assert summary["success_before"] is summary["success_after"] is None
    assert summary["evaluation_tasks"] == 0
    assert "% before" not in capsys.readouterr().out
