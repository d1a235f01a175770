"""A wrong value on the command line of a script costs one line."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from steppo_gym.trainers.rules import GRPO, StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.launch import launch

SERVED = ["--policy_servers=http://localhost:8000", "--policy_servers_folder=a/b"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning_rate", "abc"], "argument --learning_rate: invalid float value: 'abc'. --help says more."),
        (["--seed"], "steppo.py: argument --seed: expected one argument. --help says more."),
        (["--learning-rte=1"], "unknown flag --learning-rte. Did you mean --learning_rate? --help_all"),
        (["--xyzzyx", "1"], "steppo.py: unknown flag --xyzzyx. --help_all lists every flag."),
        (["--report_to", "wandb"], "steppo.py: --report_to wandb needs a package. Run `pip install wandb`."),
        (["--report_to", "paper"], "steppo.py: --report_to must be none or some of "),
        ([*SERVED, "--model_name_or_path=a/b"], "--policy_servers_folder is where new weights go"),
        ([*SERVED, "--start=./a/b/"], "--policy_servers_folder is where new weights go"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line(flags, said, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(StepPO, ["--env=key_door", *flags])
    # What is no number of an exit status is printed by Python.
    text = ended.value.code if isinstance(ended.value.code, str) else capsys.readouterr().err.rstrip("\n")
    assert text.startswith("steppo.py: ") and said in text and "\n" not in text and len(text) < 400


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--env=webshop", "--data=/no/such/folder"], "/no/such/folder"),
        (["--env=key_door", "--env_args", "colour=red"], "colour"),
        (["--env=key_door", "--context=both"], "'both'"),
        (["--env=key_door", "--action_format=xml"], "'xml'"),
        (["--env=key_door", "--protocol=mine"], "mine"),
        (["--env=hotpotqa", "--data=/no/such", "--env_args", "retriever=http://127.0.0.1:9"], "/no/such"),
        (["--env=plain_env:plain/Env-v0", "--protocol=steppo"], "protocol"),
        (["--env=plain_env:plain/Env-v0", "--invalid_action_reward=-1"], "invalid_action_reward"),
        (["--env=no_such_module:a/B-v0"], "no_such_module"),
    ],
)
def test_what_the_environment_does_not_take_is_one_line(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain_env.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended:
        launch(GRPO, [*flags, "--num_generations=2"])
    text = capsys.readouterr().err.rstrip("\n")
    assert ended.value.code == 2
    assert text.startswith("grpo.py: ") and said in text and "\n" not in text
    assert not (tmp_path / "runs").exists()


PLAIN = """
import gymnasium
from steppo_gym.envs.key_door.env import KeyDoorEnv

class Plain(KeyDoorEnv):
    def __init__(self, split="train", context="append", action_format="tag"):
        super().__init__(split=split, context=context, action_format=action_format)

gymnasium.register("plain/Env-v0", entry_point=Plain)
"""


def test_scripts_say_their_version(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(GRPO, ["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"grpo.py {version('steppo-gym')}\n"
