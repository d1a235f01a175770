"""The README's code runs, and what it names exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from steppo_gym import registered_ids


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def printed(text: str) -> str:
    """What the only Python block of a page prints."""
    (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_episode_of_the_readme_is_won(readme: str):
    output = printed(readme)
    assert "Task: " in output
    assert output.splitlines()[-1].startswith("True {"), "the expert does not win"


def test_the_evaluation_of_the_guide_plays_its_panel(repository: Path):
    scores = ast.literal_eval(printed((repository / "docs" / "evaluating.md").read_text(encoding="utf-8")))
    assert scores["success"] == 1.0 and scores["failed_rate"] == 0.0


def test_the_first_lines_say_what_it_is_for(readme: str):
    start = " ".join(readme.splitlines()[:10])
    for said in (
        "StepPO",
        "CAPO",
        "2604.18401",
        "credit",
        "token",
        "WebShop",
        "ALFWorld",
        "pip install",
        "reward 0",
        "panel",
    ):
        assert said in start, said


def test_it_is_short_enough_to_be_read(readme: str):
    assert len(readme.splitlines()) <= 150


def test_environment_table_lists_all_registered_ids(readme: str):
    listed = set(re.findall(r"^\| `(steppo/[^`]+)`", readme, flags=re.MULTILINE))
    assert listed == set(registered_ids())
