"""docs/own_credit_rule.md as its reader would use it: the file in it trains, outside of the project, with all flags."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import run_script

from steppo_gym.cli import main
from steppo_gym.credit import Credit, Records
from steppo_gym.credit.records import check_credit
from steppo_gym.errors import SteppoGymError
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.trainers.auditing.own_rules import own_rules
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.report import read_metrics
from steppo_gym.trainers.step_config import StepConfig, check_rule

SMALL = {
    "env": "key_door", "demonstrations": 24, "warm_start_updates": 4, "iterations": 1, "episodes_per_iteration": 8,
    "num_generations": 4, "updates_per_iteration": 2, "max_completion_length": 6, "num_slots": 4, "num_env_workers": 0,
    "test_tasks": 2, "validation_tasks": 2, "report_to": "none",
}  # fmt: skip
SMALL_AUDIT = (
    "--tasks 1 --episodes_per_task 4 --points 2 --continuations 2 --alternatives 0 --group_size 2 --groups 1 "
    "--batches 2 --quiet"
)


@pytest.fixture
def folder(repository: Path, tmp_path):
    """A folder with the guide's rule in it."""
    text = (repository / "docs" / "own_credit_rule.md").read_text(encoding="utf-8")
    (tmp_path / "step_baseline.py").write_text(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0])
    return tmp_path


@pytest.fixture
def rule(folder, monkeypatch):
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "step_baseline", raising=False)
    import step_baseline

    yield step_baseline.StepBaseline
    sys.modules.pop("step_baseline")


def test_it_trains_and_is_audited_with_its_own_flags_and_all_others(folder, monkeypatch, capsys):
    flags = SMALL | {"gamma": 0.5, "seed": 3, "ratio": "geometric"}
    done = run_script(folder / "step_baseline.py", *(f"--{name}={value}" for name, value in flags.items()), cwd=folder)
    assert done.returncode == 0, done.stderr
    run = folder / "runs" / "key_door-stepbaseline-seed3"
    record = json.loads((run / "config.json").read_text())
    assert record["algorithm"] == "StepBaseline"
    assert record["rule"] == {"gamma": 0.5, "whiten": False} and record["critic"] is None
    assert (record["config"]["loss_average"], record["config"]["ratio"]) == ("steps", "geometric")
    assert json.loads((run / "summary.json").read_text())["updates"] == 2
    assert any("policy_loss" in entry for entry in read_metrics(run / "metrics.jsonl"))
    # Its audit scores it where it is named, with the settings of the run, and says so where it is not.
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "step_baseline", raising=False)
    audit = ["audit", "runs/key_door-stepbaseline-seed3", *SMALL_AUDIT.split()]
    assert main(audit) == 0
    assert (
        "Left out because it is a rule of your own, to be named as --rule: StepBaseline.\n" in capsys.readouterr().out
    )
    assert main([*audit, "--rule", "step_baseline:StepBaseline"]) == 0
    said = capsys.readouterr().out
    assert "| stepbaseline | " in said and "rule of your own" not in said
    sys.modules.pop("step_baseline")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_module:Rule", "--rule no_such_module:Rule: No module named 'no_such_module'."),
        ("step_baseline:Nothing", "has no attribute 'Nothing'."),
        ("step_baseline:launch", "--rule must be module:Class, a credit rule such as .*, got step_baseline:launch."),
        ("StepBaseline", "--rule must be module:Class, .*, got StepBaseline."),
        ("steppo_gym.trainers.rules:GRPO", "there is a rule of the name GRPO already"),
    ],
)
def test_an_audit_refuses_what_is_no_rule_in_one_line(rule, capsys, name, said):
    assert main(["audit", "expert:0.5", "--env", "key_door", "--rule", name]) == 1
    error = capsys.readouterr().err
    assert re.search(said, error) and error.count("\n") == 1


def test_a_rule_without_its_decorator_is_named(folder, monkeypatch, refused):
    """Its settings would be fields, of which each is true: `if self.whiten`."""
    text = (folder / "step_baseline.py").read_text()
    (folder / "undecorated.py").write_text(text.replace("@dataclass(frozen=True)", ""))
    monkeypatch.syspath_prepend(folder)
    said = r"StepBaseline is no dataclass, so that gamma is no setting of it\. Write @dataclass\(frozen=True\) above"
    with pytest.raises(ValueError, match=said):
        own_rules(["undecorated:StepBaseline"])
    rule = sys.modules.pop("undecorated").StepBaseline
    with refused(f"^{said}"):
        parse_arguments(rule, ["--env=key_door", "--gamma=0.5"])
    with pytest.raises(ValueError, match=said):
        check_rule(rule, StepConfig(use_cpu=True), None)


def test_a_rule_is_named_once_and_like_its_runs(rule):
    assert own_rules(["step_baseline:StepBaseline"]) == {"stepbaseline": rule}
    with pytest.raises(ValueError, match="there is a rule of the name StepBaseline already"):
        own_rules(["step_baseline:StepBaseline"] * 2)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--gae_lambda=.9",
            "step_baseline.py: StepBaseline has no setting gae_lambda. Scripts that have it: ",
        ),
        ("--critic_learning_rate=1", "step_baseline.py: StepBaseline has no setting critic_learning_rate."),
        ("--gamma=2", "step_baseline.py: gamma must be between 0 and 1, got 2.0."),
        ("--num_generations=1", "step_baseline.py: num_generations must be at least 2, got 1"),
    ],
)
def test_bad_input_ends_with_a_line(rule, monkeypatch, refused, flag, message):
    monkeypatch.setattr(sys, "argv", ["step_baseline.py"])
    with refused(f"^{re.escape(message)}"):
        parse_arguments(rule, ["--env=key_door", flag])


def test_its_defaults_go_before_those_of_the_task(rule, monkeypatch):
    defaults = {**rule.defaults, "updates_per_iteration": 2, "learning_rate": 3e-4}
    monkeypatch.setattr(rule, "defaults", defaults)
    config = parse_arguments(rule, ["--env=key_door"]).config
    assert (config.updates_per_iteration, config.learning_rate) == (2, 3e-4)
    assert config.iterations == 8
    config = parse_arguments(rule, ["--env=key_door", "--updates_per_iteration=4"]).config
    assert config.updates_per_iteration == 4


def test_its_settings_stand_in_the_help(rule, capsys):
    with pytest.raises(SystemExit):
        parse_arguments(rule, ["--env=key_door", "--help"])
    own = capsys.readouterr().out.partition("\nStepBaseline:\n")[2].partition("\n\n")[0]
    assert re.findall(r"^  --(\w+) +(.*)$", own, flags=re.MULTILINE) == [
        ("gamma", "Discount per step [0.95]"),
        ("whiten", "Normalize advantages over the iteration [False]"),
    ]


def test_its_credit_is_that_of_its_definition(rule):
    def episode(group, *rewards):
        steps = tuple(Step((1,), (2,), None, "", reward, "") for reward in rewards)
        return Episode("task", steps, "terminated", group=group)

    episodes = [episode(0, 0.0, 0.0, 1.0), episode(0, 0.0), episode(1, 1.0)]
    credit = rule(gamma=0.5)(Records(episodes, np.zeros(0)))
    assert (credit.unit, credit.whiten) == ("step", False)
    assert credit.advantages.tolist() == [0.125, 0.0, 0.0, -0.125, 0.0]
    assert rule()(Records([], np.zeros(0))).advantages.shape == (0,)


@pytest.mark.parametrize(
    ("credit", "critic", "said"),
    [
        (np.zeros(3), None, r'must return Credit\("step" or "token", ...\), got \[0'),
        (Credit("episode", np.zeros(2)), None, r'must return Credit\("step" or "token", ...\)'),  # type: ignore[arg-type]
        (Credit("step", np.zeros(2)), None, r"for each step: its advantages must have shape \(3,\), got \(2,\)"),
        (Credit("step", np.zeros((3, 1))), None, r"must have shape \(3,\), got \(3, 1\)"),
        (Credit("token", np.zeros(1)), None, r"for each token: its advantages must have shape \(6,\), got \(1,\)"),
        (Credit("step", *np.zeros((3, 3))), "token", "with a critic of tokens must give each token"),
        (Credit("step", np.zeros(3)), "step", "must give each step an advantage, a value and a return"),
        (Credit("step", np.zeros(3), np.zeros(5), np.zeros(3)), "step", r"its values must have shape \(3,\)"),
        (Credit("step", np.zeros(3), state_group_sizes=np.ones(2, int)), None, "its state_group_sizes must have shape"),
    ],
)
def test_credit_of_the_wrong_shape_is_named(credit, critic, said):
    episode = Episode("task", tuple(Step((1,), (2, 3), None, "", 0.0, "") for _ in range(3)), "terminated")
    records = Records((episode,), np.zeros(0))
    with pytest.raises(SteppoGymError, match=said):
        check_credit(credit, records, critic)
    check_credit(Credit("step", *np.zeros((3, 3))), records, "step")
    check_credit(Credit("token", np.zeros(6), state_group_sizes=np.ones(3, int)), records, None)


def test_lists_of_numbers_become_arrays():
    """The file of an iteration's credit is written of them after its updates."""
    credit = Credit("step", [1, 2], [0.5, 0.5], torch.tensor([1.5, 2.5]))  # type: ignore[arg-type]
    for numbers in (credit.advantages, credit.values, credit.returns):
        assert isinstance(numbers, np.ndarray) and numbers.dtype == np.float64


def test_a_rule_cannot_write_to_what_others_read():
    """The trainer's own log-probabilities and values are among it."""
    episode = Episode("task", (Step((1,), (2,), None, "", 1.0, ""),), "terminated")
    values, log_probs = np.zeros(2), np.full(1, -0.5)
    records = Records([episode], values, np.ones(1), log_probs)
    for name in ("values", "token_rewards", "log_probs", "environment_rewards", "rewards", "returns", "entropies"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(records, name)[:] = 7.0
    assert values.flags.writeable and log_probs.flags.writeable
    credit = Credit("step", records.rewards)
    credit.advantages[:] = 7.0
    assert records.rewards.tolist() == [2.0]
