"""`make test` checks types beside the tests: each can fail it, and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLS = ("ruff", "pyright", "python")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("failing", ["nothing", *TOOLS])
def test_whatever_fails_fails_the_whole(failing: str, repository: Path, tmp_path: Path):
    for name in TOOLS:
        script = f'#!/bin/sh\necho "{name} $* [$PYTHONDONTWRITEBYTECODE]"\nexit {int(name == failing)}\n'
        (tmp_path / name).write_text(script)
        (tmp_path / name).chmod(0o755)
    shutil.copy(repository / "Makefile", tmp_path)
    # Those of a `make` that runs these tests are not for this one.
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    done = subprocess.run(
        ["make", "test", f"RUN={tmp_path}", "INSTALLED=", "ARGS=-k door"],
        cwd=tmp_path, env=environment | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode == 0) == (failing == "nothing"), done.stdout + done.stderr
    ran = [line for line in done.stdout.splitlines() if line.endswith("[]")]
    if failing == "ruff":
        assert ran == ["ruff check . []"]
    else:
        assert [line.split()[0] for line in ran] == ["ruff", "ruff", "python", "pyright"]
        assert "-m pytest" in ran[2] and ran[2].endswith("-k door []")
