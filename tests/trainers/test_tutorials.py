"""Every command of the tutorials, as their readers type them but for smaller budgets."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
from chat_families import family_model, family_tokenizer
from forked import fork, prepare_for_runs

from steppo_gym.cli import main

TUTORIALS = Path(__file__).parents[2] / "docs" / "tutorials"
MODEL = "Qwen/Qwen3-0.6B"
COMMON = (
    "--iterations 1 --episodes_per_iteration 8 --updates_per_iteration 1 --max_completion_length 3 --num_slots 8 "
    "--num_env_workers 0 --report_to none"
)
# Only what is smaller is put behind a command; the last of two equal flags counts.
SMALLER = {
    "train": f"{COMMON} --env_args max_steps=4 --test_tasks 2 --validation_tasks 2",
    "made": "--demonstrations 24 --warm_start_updates 4",
    "evaluate": "--tasks 2 --max_tokens 3 --workers 0 --quiet",
    "audit": "--tasks 2 --episodes_per_task 2 --points 2 --continuations 2 --alternatives 1 --group_size 2 --groups 2 "
    "--batches 2 --workers 0 --quiet",
}


def commands(page):
    """The commands of a page, in order; a loop over seeds is its first seed."""
    for block in re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
        for line in block.splitlines():
            loop = re.fullmatch(r"for seed in (\d)[\d ]*; do (.*); done", line)
            yield loop[2].replace("$seed", loop[1]) if loop else line


@pytest.fixture
def folder(tmp_path, repository):
    """Where the commands are typed, with the environment of the guide and a small chat model."""
    guide = (repository / "docs" / "own_environment.md").read_text(encoding="utf-8")
    (tmp_path / "sort_env.py").write_text(re.findall(r"```python\n(.*?)```", guide, flags=re.DOTALL)[0])
    tokenizer = family_tokenizer("qwen3")
    family_model("qwen3", tokenizer).save_pretrained(tmp_path / "chat_model")
    tokenizer.save_pretrained(tmp_path / "chat_model")
    return tmp_path


def arguments_of(command):
    words = shlex.split(command.replace(MODEL, "chat_model"))
    # The shell's work.
    words = [found for word in words for found in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    if words[0] == "python":
        made = () if "--model_name_or_path" in words else shlex.split(SMALLER["made"])
        return [*words[1:], *shlex.split(SMALLER["train"]), *made]
    assert words[0] == "steppo-gym"
    return [*words[1:], *shlex.split(SMALLER.get(words[1], ""))]


def run(command, folder):
    def call():
        os.chdir(folder)
        argv = arguments_of(command)
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        elif command.startswith("python "):
            sys.argv = argv
            sys.path.insert(0, str(Path(argv[0]).parent))
            runpy.run_path(argv[0], run_name="__main__")
        else:
            sys.exit(main(argv))

    prepare_for_runs()
    return fork(call)


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("*.md")), ids=lambda page: page.stem)
def test_every_command_of_a_tutorial_works(page, folder, repository):
    found = list(commands(page))
    assert len(found) >= 4
    if "in an empty folder" not in page.read_text(encoding="utf-8"):
        (folder / "trainers").symlink_to(repository / "trainers")
    for command in found:
        done = run(command, folder)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        for written in re.findall(r"--(?:html|output|out) (\S+)", command):
            assert (folder / written).exists(), command


def test_all_commands_are_run():
    shown = [line for page in TUTORIALS.glob("*.md") for line in page.read_text(encoding="utf-8").splitlines()]
    typed = [line for line in shown if re.match(r"(\$ |for |python |steppo-gym )", line)]
    assert len(typed) == sum(len(list(commands(page))) for page in TUTORIALS.glob("*.md"))
