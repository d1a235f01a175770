"""Runs of seconds that are ended at a chosen moment, each in a process of its own.

    python tests/killed_runs.py FOLDER          # every way to end a run at every moment; writes FOLDER/matrix.jsonl

A child is forked from a process that has all modules, so that it starts in no time. Its moment is the n-th call of a
function; what ends it is a signal to itself, or a limit on the size of files, which is a disk that is full.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from forked import prepare_for_runs
from safetensors.torch import load_file

FLAGS = {
    "env": "key_door", "env_args": "max_steps=3", "demonstrations": 24, "warm_start_updates": 4, "iterations": 2,
    "episodes_per_iteration": 4, "updates_per_iteration": 2, "max_completion_length": 4, "num_slots": 4,
    "num_env_workers": 0, "test_tasks": 2, "validation_tasks": 2, "evaluate_every": 1, "save_every": 1,
    "save_total_limit": 1, "seed": 5, "report_to": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Moment:
    """The n-th call of a function, before or after it."""

    owner: str
    name: str
    number: int
    after: bool = False


_CONSOLE = "steppo_gym.trainers.run.console:Console"
_TRAINER = "steppo_gym.trainers.step_trainer:StepTrainer"
_FILES = "steppo_gym.trainers.checkpoints"
# Episodes are numbered through: 4 of the tests before, 2 of validation, 4 of iteration 1, 2, 4 of iteration 2, 2, 4.
MOMENTS = {
    "demonstrations": Moment("steppo_gym.trainers.warm_start.warm_start", "_make_policy", 1),
    "evaluation before training": Moment(_CONSOLE, "on_episode", 2),
    "first rollout": Moment(_CONSOLE, "on_episode", 8),
    "first update": Moment(_TRAINER, "_begin_update", 1, after=True),
    "first checkpoint": Moment(_TRAINER, "_save_optimizer_and_scheduler", 1, after=True),
    "second rollout": Moment(_CONSOLE, "on_episode", 14),
    "last update": Moment(_TRAINER, "_begin_update", 4, after=True),
    "evaluation in training": Moment(_CONSOLE, "on_episode", 17),
    "checkpoint: before any file": Moment(_FILES, "begin_checkpoint", 2, after=True),
    "checkpoint: the policy's files": Moment(_TRAINER, "save_model", 2, after=True),
    "checkpoint: optimizer and schedule": Moment(_TRAINER, "_save_optimizer_and_scheduler", 2, after=True),
    "checkpoint: random state": Moment(_TRAINER, "_save_rng_state", 2, after=True),
    "checkpoint: critic": Moment("steppo_gym.trainers.recorded_trainer", "save_critic", 2, after=True),
    "checkpoint: mark, not moved": Moment(_FILES, "_to_disk", 29),
    "checkpoint: moved, old one there": Moment(_FILES, "_remove_older", 2),
    "evaluation after training": Moment(_CONSOLE, "on_episode", 20),
}
ENDINGS = ("SIGKILL", "SIGTERM", "SIGINT", "full disk")
STATUS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129, "full disk": 1}


def run(folder: Path, *flags: str, moment: Moment | None = None, ending: str = "SIGKILL", script="steppo", **changes):
    """Run in a forked process.

    Returns:
        Its exit status, negative if a signal ended it, and what it printed.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    prepare_for_runs()
    # A pipe, which is not full when the disk is.
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 70
        with contextlib.suppress(BaseException):
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(reading)
            status = _child(folder, flags, moment, ending, script, changes)
        os._exit(status)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as said:
        text = said.read()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), text


def _child(folder, flags, moment, ending, script, changes) -> int:
    import traceback

    from steppo_gym.trainers.rules import ALGORITHMS
    from steppo_gym.trainers.run.launch import launch

    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ["STEPPO_GYM_CACHE"] = str(folder.parent / "cache")
    if moment is not None:
        _arm(moment, ending)
    argv = [f"--{name}={value}" for name, value in (FLAGS | {"output_dir": folder} | changes).items()]
    try:
        launch(ALGORITHMS[script], [*argv, *flags])
    except SystemExit as ended:
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
            return 1
        return ended.code or 0
    except BaseException:
        traceback.print_exc()
        return 71
    return 0


def _arm(moment: Moment, ending: str) -> None:
    import importlib

    module, _, owner_name = moment.owner.partition(":")
    owner = importlib.import_module(module)
    owner = getattr(owner, owner_name) if owner_name else owner
    function, calls = getattr(owner, moment.name), [0]

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        calls[0] += 1
        due = calls[0] == moment.number
        if due and not moment.after:
            _end(ending)
        result = function(*args, **kwargs)
        if due and moment.after:
            _end(ending)
        return result

    setattr(owner, moment.name, wrapper)


def _end(ending: str) -> None:
    if ending == "full disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, resource.RLIM_INFINITY))
    else:
        os.kill(os.getpid(), signal.Signals[ending])


def numbers(folder: Path) -> dict:
    """All that a run has computed: what it logged, its scores and its weights, without what depends on the clock."""
    timed = ("seconds", "per_second", "runtime")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    logged = [{n: v for n, v in line.items() if not n.endswith(timed)} for line in lines if "train_runtime" not in line]
    summary = json.loads((folder / "summary.json").read_text())
    weights = load_file(folder / "final" / "model.safetensors")
    return {
        "logged": logged,
        "before": summary["before"],
        "after": summary["after"],
        "weights": {name: sha256(weight.numpy().tobytes()).hexdigest() for name, weight in weights.items()},
    }


def difference(folder: Path, whole: Path) -> str:
    """What two runs differ in, "" if in nothing."""
    own, other = numbers(folder), numbers(whole)
    return ", ".join(name for name in own if own[name] != other[name])


def killed_and_resumed(folder: Path, whole: Path, moment: str, ending: str) -> dict:
    """End a run at a moment, go on with it, and compare it with one that was not ended."""
    started = time.perf_counter()
    status, said = run(folder, moment=MOMENTS[moment], ending=ending)
    again, said_again = run(folder, "--resume")
    outcome = difference(folder, whole) if again == 0 else "did not end"
    return {
        "moment": moment,
        "ending": ending,
        "status": status,
        "traceback": "Traceback" in said + said_again,
        "last_words": said.strip().splitlines()[-1][:2000] if said.strip() else "",
        "passed_over": "passed over" in said_again,
        "began_again": "begins again" in said_again,
        "resumed_status": again,
        "differs_in": outcome,
        "said_again": "" if again == 0 else said_again[-2000:],
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    """Run the whole matrix, or the endings that are named."""
    import steppo_gym.trainers.run.launch  # noqa: F401 - before the first fork

    folder, endings = Path(sys.argv[1]), sys.argv[2:] or ENDINGS
    whole = folder / "whole" / "run"
    status, said = run(whole)
    assert status == 0, said
    for ending in endings:
        for number, moment in enumerate(MOMENTS):
            cell = killed_and_resumed(folder / f"{ending}-{number}".replace(" ", "-") / "run", whole, moment, ending)
            with (folder / "matrix.jsonl").open("a") as file:
                file.write(json.dumps(cell) + "\n")
            print(cell, flush=True)


if __name__ == "__main__":
    main()
