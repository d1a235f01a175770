"""Repeat a very small run on another processor, an emulated Intel Haswell, and compare its numbers and weights.

    python benchmarks/other_processor.py

It needs `qemu-x86_64` (Debian's package qemu-user) and some minutes. The run is a warm start, two updates of StepPO on
KeyDoor, and evaluations, held to AVX2 like the head-to-head comparison. It is also run here without being held to
anything, to show what that would change.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steppo_gym.baselines.jobs import INSTRUCTIONS, REPOSITORY
from steppo_gym.storage.cache import VARIABLE
from steppo_gym.storage.json_lines import read_lines

EMULATOR = ("qemu-x86_64", "-cpu", "Haswell")
RUN = (
    "--env", "key_door", "--start", "warm", "--demonstrations", "24", "--warm_start_updates", "4", "--iterations", "1",
    "--episodes_per_iteration", "8", "--updates_per_iteration", "2", "--num_slots", "8", "--num_generations", "1",
    "--test_tasks", "4", "--validation_tasks", "4", "--max_completion_length", "6", "--num_env_workers", "0",
    "--save_every", "0", "--save_episodes", "False", "--report_to", "none", "--seed", "0",
)  # fmt: skip
TIMED = re.compile("second|runtime|overlap|memory|peak")
"""In names of metrics that depend on the clock or the machine."""


def play(folder: Path, prefix: tuple[str, ...], environment: Mapping[str, str]) -> tuple[list[dict[str, Any]], bytes]:
    """Run it in a folder, with a warm start of its own; returns its metrics and its weights."""
    script = REPOSITORY / "trainers" / "steppo.py"
    # Beside it and not in it, because a run wants an empty folder.
    own = {VARIABLE: str(folder.with_suffix(".cache")), "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    done = subprocess.run(
        [*prefix, sys.executable, str(script), *RUN, "--output_dir", str(folder)],
        env=os.environ | environment | own,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"The run in {folder.name} failed:\n{done.stderr[-2000:]}")
    print(f"{folder.name}: {time.perf_counter() - started:.0f} s", flush=True)
    entries = [
        {name: value for name, value in entry.items() if not TIMED.search(name)}
        for entry in read_lines(folder / "metrics.jsonl")
    ]
    return entries, (folder / "final" / "model.safetensors").read_bytes()


def differences(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    """Names of metrics that are not equal to the last bit."""
    names = {name for entry in (*one, *other) for name in entry}
    said = [{name: [json.dumps(entry.get(name)) for entry in run] for name in names} for run in (one, other)]
    return sorted(name for name in names if said[0][name] != said[1][name])


def main() -> None:
    """Exits with 1 if the emulated run differs."""
    if shutil.which(EMULATOR[0]) is None:
        print(f"Skipped: there is no {EMULATOR[0]} here. On Debian it comes with `apt install qemu-user`.")
        return
    held = INSTRUCTIONS["avx2"]
    with tempfile.TemporaryDirectory() as folder:
        here, weights = play(Path(folder, "here"), (), held)
        others = {
            "here, held to nothing": play(Path(folder, "free"), (), {}),
            "on the emulated processor": play(Path(folder, "emulated"), EMULATOR, held),
        }
    number = len({name for entry in here for name in entry})
    for where, (metrics, own) in others.items():
        found, kept = differences(here, metrics), "the same" if own == weights else "other"
        print(
            f"{where}: {kept} weights, {len(found)} of {number} metrics differ{': ' if found else ''}{', '.join(found)}"
        )
    metrics, own = others["on the emulated processor"]
    sys.exit(1 if differences(here, metrics) or own != weights else 0)


if __name__ == "__main__":
    main()
