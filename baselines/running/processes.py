"""Runs jobs as processes, some at a time; an interrupted one goes on from its checkpoint.

The folder of a run holds `job.json` from its start until its line is recorded. If it says the same as what is about to
run, the commit included, the run goes on from its checkpoint; any other folder is started anew. So no run mixes two
settings, and a run whose line was deleted is repeated.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppo_gym.baselines.jobs import Job
from steppo_gym.baselines.records import checked_out_commit
from steppo_gym.baselines.running.progress import Progress
from steppo_gym.storage.json_lines import LOCK_FILE, read_lines, write_whole
from steppo_gym.trainers.checkpoints import newest_complete
from steppo_gym.trainers.run.interruption import SIGNALS

JOB_FILE, LOG_FILE = "job.json", "log.txt"
POLL_SECONDS = 0.5
STOP_SECONDS = 45.0
"""What processes are given to finish their updates and write a checkpoint when they are told to end."""
INTERRUPTED = tuple(128 + number for number in SIGNALS)
"""Exit statuses of runs that somebody ended, and that can be gone on with."""


@dataclass(frozen=True)
class Failure:
    """A run that ended with an error."""

    job: Job
    log: Path


class BusyError(Exception):
    """Another process runs the same jobs."""


@dataclass(frozen=True, eq=False)
class _Running:
    job: Job
    folder: Path
    process: subprocess.Popen[bytes]
    started: float

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    @property
    def has_policy(self) -> bool:
        """Whether the policy it starts from has been made: something has been evaluated."""
        return (self.folder / "metrics.jsonl").exists()

    @property
    def share_done(self) -> float:
        """Of its iterations."""
        if not self.has_policy:
            return 0.0
        try:
            config = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))["config"]
            return read_lines(self.folder / "metrics.jsonl")[-1]["iteration"] / config["iterations"]
        except (ValueError, IndexError):
            # Read while the run was writing it; half a second later it will be whole.
            return 0.0


def run_jobs(
    jobs: Sequence[Job],
    runs: Path,
    *,
    num_processes: int,
    on_end: Callable[[Job, Path, str], str],
    durations: Sequence[float] = (),
) -> list[Failure]:
    """Run all jobs and return those that failed; when one fails, the others go on.

    When it is interrupted, the processes are stopped before the exception is passed on.

    Args:
        jobs: in the order in which they should start. A job waits while another one of its seed makes the policy that
            all runs of that seed start from.
        runs: the folder of all runs.
        num_processes: at a time, of one thread each.
        on_end: called with a job that has ended well, its folder and its commit; returns what to say about it.
        durations: seconds that runs took in earlier sessions, for the estimate of the time left.

    Raises:
        BusyError: a run of an earlier session, which was ended without it, still goes on.
    """
    for job in jobs:
        _require_left(runs / job.folder)
    waiting, running, failures, warm_seeds = list(jobs), list[_Running](), list[Failure](), set[int]()
    progress = Progress(len(jobs), num_processes, durations)
    try:
        while waiting or running:
            for run in [run for run in running if run.process.poll() is not None]:
                running.remove(run)
                if run.process.returncode == 0:
                    progress.end(_finish(run.job, run.folder, on_end), run.seconds)
                elif run.process.returncode in INTERRUPTED:
                    failures.append(Failure(run.job, run.folder / LOG_FILE))
                    progress.end(f"{run.job.name}: interrupted; the same command goes on with it")
                else:
                    failures.append(Failure(run.job, run.folder / LOG_FILE))
                    # Not to be gone on with: its checkpoint may be why it failed.
                    (run.folder / JOB_FILE).unlink()
                    progress.end(f"{run.job.name}: failed, see {run.folder / LOG_FILE}")
            warm_seeds |= {run.job.seed for run in running if run.has_policy}
            cold_seeds = {run.job.seed for run in running} - warm_seeds
            while len(running) < num_processes and (job := next_job(waiting, cold_seeds)) is not None:
                waiting.remove(job)
                if _has_ended(job, runs / job.folder):
                    progress.end(_finish(job, runs / job.folder, on_end))
                else:
                    running.append(_start(job, runs / job.folder))
                    cold_seeds |= {job.seed} - warm_seeds
            progress.show([(run.seconds, run.share_done) for run in running], len(waiting))
            time.sleep(POLL_SECONDS)
    finally:
        _stop(running)
        progress.close()
    return failures


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Keep others out of a folder of runs as long as this process works in it.

    Raises:
        BusyError: somebody does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_FILE).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BusyError(f"Another process works in {folder}. Wait for it, or stop it.") from error
        yield


def _require_left(folder: Path) -> None:
    """Raise a BusyError if somebody works in the folder of a run, which would be removed or gone on with under them."""
    if not (folder / LOCK_FILE).exists():
        return
    try:
        with exclusive(folder):
            pass
    except BusyError as error:
        raise BusyError(f"A run of an earlier session still works in {folder}. Wait for it, or stop it.") from error


def next_job(waiting: Sequence[Job], cold_seeds: Set[int]) -> Job | None:
    """The first job of a seed that is not cold: whose policy is not being made at this moment."""
    return next((job for job in waiting if job.seed not in cold_seeds), None)


def may_resume(folder: Path, wanted: Mapping[str, Any]) -> bool:
    """Whether a folder holds an interrupted run of exactly this job, and a checkpoint of it."""
    return _read_job(folder) == wanted and newest_complete(folder)[0] is not None


def _start(job: Job, folder: Path) -> _Running:
    """Go on with the run in the folder if it is this job's, else begin anew."""
    wanted = job_record(job, checked_out_commit())
    resume = may_resume(folder, wanted)
    if not resume and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / JOB_FILE, json.dumps(wanted, indent=2))
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            [*job.command(folder), *(["--resume"] if resume else [])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | job.environment,
            # A group of its own, so that its workers can be stopped with it.
            start_new_session=True,
        )
    return _Running(job, folder, process, time.monotonic())


def _has_ended(job: Job, folder: Path) -> bool:
    """Whether the folder holds a whole run of the job that has not been recorded, of whatever commit."""
    known = _read_job(folder)
    same = isinstance(known, dict) and "commit" in known and known == job_record(job, known["commit"])
    return same and (folder / "summary.json").exists()


def _finish(job: Job, folder: Path, on_end: Callable[[Job, Path, str], str]) -> str:
    said = on_end(job, folder, json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))["commit"])
    (folder / JOB_FILE).unlink()
    return said


def job_record(job: Job, commit: str) -> dict[str, Any]:
    """What `job.json` says: all that two halves of a run must share."""
    return {"script": job.algorithm.script, "arguments": job.arguments, "commit": commit}


def _read_job(folder: Path) -> dict[str, Any] | None:
    """None if there is none, or one that was not written to its end: whose folder it is, is not known then."""
    try:
        return json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        print(f"{folder / JOB_FILE} is damaged; the run starts anew.", file=sys.stderr)
        return None


def _stop(running: Sequence[_Running]) -> None:
    """Stop what is still running; what does not end in time is killed."""
    for run in running:
        _signal(run, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    for run in running:
        try:
            run.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _signal(run, signal.SIGKILL)
            run.process.wait()


def _signal(run: _Running, number: signal.Signals) -> None:
    if run.process.poll() is None:
        os.killpg(run.process.pid, number)
