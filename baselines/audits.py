"""Audit the policy of a task at three points of its training, and hold the audit against what rules learned.

    python baselines/audits.py run key_door hotpotqa    # train once, audit what it began as, was and became
    python baselines/audits.py report                   # the tables
    python baselines/audits.py report --write           # AUDITS.md

A run goes on where it was stopped: training from its checkpoint, an audit from its last point. What is recorded in
`results/audits/` is not played again.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import starmap
from pathlib import Path
from typing import Any

from steppo_gym.baselines.compared.default_jobs import (
    HOTPOTQA,
    MAIN_JOB,
    MAIN_JOB_FIRST_START,
    PAPER_SEARCH,
    WEBSHOP,
    WEBSHOP_FIRST_START,
)
from steppo_gym.baselines.compared.head_to_head import HEAD_TO_HEAD_KEY_DOOR
from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.jobs import REPOSITORY, Job
from steppo_gym.baselines.protocols import ALFWORLD, KEY_DOOR
from steppo_gym.baselines.records import RESULTS, checked_out_commit, read_results
from steppo_gym.baselines.run import ending_in_one_line
from steppo_gym.baselines.running.processes import exclusive
from steppo_gym.baselines.selection import choose
from steppo_gym.baselines.tables.audits import audits_page
from steppo_gym.env_arguments import env_argument_text
from steppo_gym.storage.json_lines import read_lines, write_whole
from steppo_gym.trainers.auditing.source import training_keywords
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.starts import start_of, starting_policy

PAGE = Path(__file__).with_name("AUDITS.md")
WHERE = ("start", "middle", "end")
TASKS: dict[str, Protocol] = {
    "key_door": KEY_DOOR,
    "key_door_head_to_head": HEAD_TO_HEAD_KEY_DOOR,
    "alfworld": MAIN_JOB,
    "alfworld_first_start": MAIN_JOB_FIRST_START,
    "alfworld_warm": ALFWORLD,
    "hotpotqa": HOTPOTQA,
    "webshop": WEBSHOP,
    "webshop_first_start": WEBSHOP_FIRST_START,
    "paper_search": PAPER_SEARCH,
}
"""Whose StepPO run is audited. Only those of KeyDoor and alfworld_warm are of several rules, which can be ordered."""
SIZES = ("--tasks", "8", "--episodes_per_task", "16", "--points", "60", "--continuations", "16", "--batches", "200")
"""Of an audit; the seed is that of the training run."""


@dataclass(frozen=True)
class Audited:
    """One task with one seed: the run that is trained for it, and its audits."""

    name: str
    seed: int
    runs: Path
    training: tuple[str, ...] = ()
    """Flags in place of the protocol's."""

    @functools.cached_property
    def job(self) -> Job:
        """StepPO's run of the protocol, at its chosen grid point."""
        protocol = TASKS[self.name]
        steppo = protocol.algorithm("steppo")
        point = choose(protocol, steppo, read_results(RESULTS, protocol, "grid"))
        return Job(protocol, "matrix", steppo, point, self.seed)

    @property
    def arguments(self) -> list[str]:
        """Of the training script."""
        # The audit says itself how the policy does.
        kept = (
            *("--watch", "validation", "--test_tasks", "0", "--validation_tasks", "0", "--evaluate_every", "0"),
            *("--save_total_limit", "3"),
        )
        return [*self.job.arguments, *kept, *self.training, "--output_dir", str(self.folder)]

    @property
    def folder(self) -> Path:
        """Of the training run."""
        return self.runs / f"{self.name}-seed{self.seed}"

    def train(self) -> dict[str, str]:
        """Train, if that has not been done, and say what is audited: by `WHERE`, a folder with a policy."""
        settings = parse_arguments(ALGORITHMS["steppo"], self.arguments)
        settings = replace(settings, start=start_of(settings))
        start = starting_policy(settings)[0]
        half = max(1, settings.config.iterations // 2)
        if not (self.folder / "final").is_dir():
            # A run that was ended before its first checkpoint begins again.
            resume = ["--resume"] if (self.folder / "config.json").exists() else []
            script = REPOSITORY / "trainers" / "steppo.py"
            command = [sys.executable, str(script), *self.arguments, "--save_every", str(half), *resume]
            subprocess.run(command, check=True, env=os.environ | self.job.environment)
        updates = settings.config.updates_in_iteration
        middle = self.folder / f"checkpoint-{half * updates}"
        return {"start": str(start), "middle": str(middle), "end": str(self.folder / "final")}

    def audit(self, where: str, source: str, sizes: Sequence[str]) -> dict[str, Any]:
        """Audit one policy and give what is recorded of it."""
        folder = self.runs / f"{self.name}-seed{self.seed}-{where}"
        call = "import sys; from steppo_gym.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", call, "audit", source, "--env", self.job.protocol.env]
        config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        if where == "start":
            # It lies in no run that would say how its environments were made.
            command += ["--env_args", *starmap(env_argument_text, training_keywords(config).items())]
            command += ["--max_response_tokens", str(config["config"]["max_completion_length"])]
        command += [*SIZES, *sizes, "--seed", str(self.seed), "--out", str(folder)]
        subprocess.run(command, check=True, env=os.environ | self.job.environment)
        return recorded(folder) | {"task": self.name, "where": where, "seed": self.seed, "commit": checked_out_commit()}


def recorded(folder: Path) -> dict[str, Any]:
    """What is kept of an audit: settings, report, and of each point its true advantage and what rules gave."""
    points = [
        {
            "advantage": record["responses"][0]["advantage"],
            "verdict": record["verdict"],
            "credit": {name: [given["mean"], given["std"]] for name, given in record["credit"].items()},
        }
        for record in read_lines(folder / "truth.jsonl")
    ]
    settings, report = (
        json.loads((folder / name).read_text(encoding="utf-8")) for name in ("settings.json", "report.json")
    )
    # A path on whoever's machine says nothing; the hash says which model it was.
    return {"settings": {**settings, "source": ""}, "report": report, "points": points}


def run(audited: Audited, results: Path, sizes: Sequence[str]) -> None:
    """Play and record what is missing of one task."""
    files = {where: results / "audits" / f"{audited.name}-seed{audited.seed}-{where}.json" for where in WHERE}
    if all(file.exists() for file in files.values()):
        print(f"{audited.name}, seed {audited.seed}: all recorded.")
        return
    for where, source in audited.train().items():
        if not files[where].exists():
            record = audited.audit(where, source, sizes)
            files[where].parent.mkdir(parents=True, exist_ok=True)
            write_whole(files[where], json.dumps(record, indent=1, allow_nan=False) + "\n")


def read_audits(results: Path) -> list[Mapping[str, Any]]:
    """All recorded audits, by task, seed and point of training."""
    found = [json.loads(file.read_text(encoding="utf-8")) for file in (results / "audits").glob("*.json")]
    tasks = list(TASKS)
    return sorted(found, key=lambda one: (tasks.index(one["task"]), one["seed"], WHERE.index(one["where"])))


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train and audit what is missing")
    running.add_argument("tasks", nargs="+", choices=TASKS, metavar="TASK", help=", ".join(TASKS))
    running.add_argument("--seed", type=int, default=0, help="of the training run and its audits [%(default)s]")
    running.add_argument(
        "--runs", type=Path, default=Path("runs", "audits"), help="folder of what is played [%(default)s]"
    )
    running.add_argument("--training", nargs=argparse.REMAINDER, default=[], help="flags of trainers/steppo.py; last")
    running.add_argument("--sizes", default="", metavar="FLAGS", help="of steppo-gym audit, in one pair of quotes")
    reporting = commands.add_parser("report", help="print the tables")
    reporting.add_argument("--write", action="store_true", help="write AUDITS.md instead")
    for command in (running, reporting):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of what is recorded")
    options = parser.parse_args(argv)
    if options.command == "report":
        page = audits_page(read_audits(options.results), TASKS, RESULTS)
        if options.write:
            PAGE.write_text(page, encoding="utf-8")
        else:
            print(page)
        return
    try:
        with ending_in_one_line(), exclusive(options.runs):
            for name in options.tasks:
                audited = Audited(name, options.seed, options.runs, tuple(options.training))
                run(audited, options.results, options.sizes.split())
    except subprocess.CalledProcessError as error:
        sys.exit(f"{error} The same command goes on where it was.")


if __name__ == "__main__":
    main()
