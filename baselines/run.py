"""Run a training script once per seed and record what came out.

    python baselines/run.py --env alfworld --seeds 0 1 2

Each run is a process of its own. When it has ended, one JSON line is appended to
`baselines/results/<env>-<algorithm>.jsonl`: the run's summary, the commit and the arguments. A seed that has a line for
the same arguments is not run again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


def main(argv: list[str] | None = None) -> None:
    """Read the command line and run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="alfworld", help="task of the training script")
    parser.add_argument("--algorithm", default="steppo", help="which script in trainers/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="one run each")
    parser.add_argument("--runs", type=Path, default=Path("runs", "baselines"), help="where the runs' folders go")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the records go")
    arguments, passed_on = parser.parse_known_args(argv)
    path = arguments.results / f"{arguments.env}-{arguments.algorithm}.jsonl"
    for seed in arguments.seeds:
        if any(line["seed"] == seed and line["arguments"] == passed_on for line in read_results(path)):
            print(f"seed {seed}: recorded in {path}")
            continue
        folder = arguments.runs / f"{arguments.env}-{arguments.algorithm}-seed{seed}"
        summary = run_seed(arguments.env, arguments.algorithm, seed, passed_on, folder)
        path.parent.mkdir(exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**summary, "arguments": passed_on, "commit": commit()}) + "\n")


def run_seed(env: str, algorithm: str, seed: int, passed_on: list[str], folder: Path) -> dict[str, Any]:
    """Run one seed to its end, going on from a checkpoint if a run was interrupted, and return its summary.

    Raises:
        subprocess.CalledProcessError: the run failed; its own message has been printed.
    """
    script = REPOSITORY / "trainers" / f"{algorithm}.py"
    command = [sys.executable, str(script), "--env", env, "--seed", str(seed), "--output_dir", str(folder), *passed_on]
    if any(folder.glob("checkpoint-*")):
        command.append("--resume")
    subprocess.run(command, check=True, env=os.environ)
    return json.loads((folder / "summary.json").read_text())


def read_results(path: Path) -> list[dict[str, Any]]:
    """The recorded lines, none if there is no file yet."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def commit() -> str:
    """The commit that is checked out, with "+" if files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    return (git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if git("status", "--porcelain", "-uno") else "")


if __name__ == "__main__":
    main()
