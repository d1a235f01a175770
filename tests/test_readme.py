"""The README's code runs, and what it names exists."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from steppo_gym import registered_ids


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(readme: str):
    blocks = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Task: " in done.stdout
        assert "True" in done.stdout, "the expert in the README's episode does not win"


def test_environment_table_lists_all_registered_ids(readme: str):
    listed = set(re.findall(r"^\| `(steppo/[^`]+)`", readme, flags=re.MULTILINE))
    assert listed == set(registered_ids())


def test_linked_files_and_scripts_exist(readme: str, repository: Path):
    links = re.findall(r"\]\((?!http)([^)]+)\)", readme)
    scripts = re.findall(r"python ([\w/]+\.py)", readme)
    assert links
    assert scripts
    for path in links + scripts:
        assert (repository / path).exists(), path


def test_make_targets_exist(readme: str, repository: Path):
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", readme, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_flags_in_the_readme_are_flags_of_the_script(readme: str, repository: Path):
    flags = {
        flag
        for command in re.findall(r"python trainers/steppo\.py ((?:[^\n]*\\\n)*[^\n]*)", readme)
        for flag in re.findall(r"--\w+", command.split("#")[0])
    }
    flags |= set(re.findall(r"ARGS='(--\w+)", readme)) - {"-k"}
    done = subprocess.run(
        [sys.executable, str(repository / "trainers" / "steppo.py"), "--help_all"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    known = set(re.findall(r"--\w+", done.stdout)) | {"--help", "--help_all"}
    assert flags <= known, flags - known
