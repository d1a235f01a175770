"""Repeat a very small run on another processor, emulated, and compare its numbers and weights.

    python benchmarks/other_processor.py

It needs `qemu-x86_64` (Debian's package qemu-user) and some minutes. The run is two updates of StepPO on HotpotQA from
the shipped start, with evaluations, held to AVX2 like the head-to-head comparison. The emulated processor has AVX2 and
no AVX-512. The run is also done here without being held to anything, to show what that changes.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steppo_gym.baselines.jobs import INSTRUCTIONS, REPOSITORY
from steppo_gym.storage.json_lines import read_lines

EMULATOR = "qemu-x86_64"
AVX2_ALONE = {"AuthenticAMD": "EPYC", "GenuineIntel": "Haswell"}
"""By vendor, what has AVX2 and no AVX-512."""
RUN = (
    "--env", "hotpotqa", "--start", str(REPOSITORY / "trainers" / "starts" / "hotpotqa"), "--iterations", "1",
    "--episodes_per_iteration", "8", "--updates_per_iteration", "2", "--num_slots", "8", "--num_generations", "1",
    "--test_tasks", "2", "--validation_tasks", "2", "--num_env_workers", "0", "--save_every", "0",
    "--save_episodes", "False", "--report_to", "none", "--seed", "0",
)  # fmt: skip
TIMED = re.compile("second|runtime|overlap|memory|peak")
"""In names of metrics that depend on the clock or the machine."""


def play(folder: Path, prefix: tuple[str, ...], environment: Mapping[str, str]) -> tuple[list[dict[str, Any]], bytes]:
    """Run it in a folder; returns its metrics and its weights."""
    script = REPOSITORY / "trainers" / "steppo.py"
    started = time.perf_counter()
    done = subprocess.run(
        [*prefix, sys.executable, str(script), *RUN, "--output_dir", str(folder)],
        env=os.environ | environment | {"OMP_NUM_THREADS": "1"},
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


def vendor() -> str:
    """Of this machine's processor."""
    found = re.search(r"vendor_id\s*: (\w+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return found[1] if found and found[1] in AVX2_ALONE else "GenuineIntel"


def differences(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> list[str]:
    """Names of metrics that are not equal to the last bit."""
    names = {name for entry in (*one, *other) for name in entry}
    said = [{name: [json.dumps(entry.get(name)) for entry in run] for name in names} for run in (one, other)]
    return sorted(name for name in names if said[0][name] != said[1][name])


def main(argv: Sequence[str] | None = None) -> None:
    """Exits with 1 if the emulated run differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=AVX2_ALONE.values(), help="default: one of this machine's vendor")
    options = parser.parse_args(argv)
    if shutil.which(EMULATOR) is None:
        print(f"Skipped: there is no {EMULATOR} here. On Debian it comes with `apt install qemu-user`.")
        return
    held, cpu = INSTRUCTIONS["avx2"], options.cpu or AVX2_ALONE[vendor()]
    emulated = f"on {cpu}, emulated"
    with tempfile.TemporaryDirectory() as folder:
        here, weights = play(Path(folder, "here"), (), held)
        others = {
            "here, held to nothing": play(Path(folder, "free"), (), {}),
            emulated: play(Path(folder, "emulated"), (EMULATOR, "-cpu", cpu), held),
        }
    number = len({name for entry in here for name in entry})
    for where, (metrics, own) in others.items():
        found, kept = differences(here, metrics), "the same" if own == weights else "other"
        print(f"{where}: {kept} weights, {len(found)} of {number} metrics differ", *found)
    metrics, own = others[emulated]
    sys.exit(bool(differences(here, metrics)) or own != weights)


if __name__ == "__main__":
    main()
