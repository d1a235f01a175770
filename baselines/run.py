"""Run what is missing of a benchmark and record one line per run.

    python baselines/run.py key_door --grid     # every algorithm on the same grid, scored on validation tasks
    python baselines/run.py key_door            # every algorithm at its best grid point, scored on test tasks

A run is a process of its own. When it has ended, its line is appended to a file in `baselines/results/`; runs that have
a line are not repeated, and interrupted ones go on from their checkpoint. `python baselines/table.py` makes the tables.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from steppo_gym.baselines.compared.protocol import Algorithm, GridPoint, Protocol
from steppo_gym.baselines.controls import CONTROLS, control_seeds, play_control
from steppo_gym.baselines.jobs import Job, Stage, grid_jobs, matrix_jobs, missing, stage_folder
from steppo_gym.baselines.protocols import PROTOCOLS
from steppo_gym.baselines.records import (
    RESULTS,
    MixedProtocolsError,
    append_line,
    checked_out_commit,
    read_results,
    record,
    require_one_code,
    results_file,
)
from steppo_gym.baselines.running.processes import BusyError, Failure, exclusive, run_jobs
from steppo_gym.baselines.selection import IncompleteGridError, choose
from steppo_gym.trainers.run.interruption import SIGNALS


def main(argv: Sequence[str] | None = None) -> None:
    """Read the command line and run what is missing; exits with 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("protocol", choices=PROTOCOLS, help="what is compared: see protocols.py")
    parser.add_argument("--grid", action="store_true", help="the runs that choose learning rate and clip range")
    parser.add_argument("--algorithms", nargs="+", metavar="KEY", help="only these rows; all by default")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="only these; the protocol's by default")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at a time [%(default)s]"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs", "baselines"), help="folder of the runs [%(default)s]")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the recorded lines")
    options = parser.parse_args(argv)
    protocol = PROTOCOLS[options.protocol]
    known = {algorithm.key: algorithm for algorithm in protocol.algorithms}
    unknown = [key for key in options.algorithms or () if key not in known]
    if unknown:
        parser.error(f"{protocol.name} has no algorithm {', '.join(unknown)}; it has {', '.join(known)}.")
    if options.jobs < 1:
        parser.error(f"--jobs must be at least 1, got {options.jobs}.")
    stage: Stage = "grid" if options.grid else "matrix"
    allowed = protocol.grid_seeds if options.grid else protocol.seeds
    if set(options.seeds or ()) - set(allowed):
        parser.error(f"--seeds of this stage are {' '.join(map(str, allowed))}, got {options.seeds}.")
    with ending_in_one_line():
        failures = run(
            protocol,
            stage,
            [known[key] for key in options.algorithms or known],
            options.seeds or allowed,
            runs=options.runs,
            results=options.results,
            num_processes=options.jobs,
        )
    say_failures(failures)


@contextlib.contextmanager
def ending_in_one_line() -> Iterator[None]:
    """Exit with a message where runs cannot go on.

    `kill` and the end of the terminal stop them as Ctrl-C does, or they would go on without anybody.
    """
    for number in SIGNALS:
        # Ignored under nohup.
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        yield
    except (BusyError, IncompleteGridError, MixedProtocolsError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. The same command goes on where it was.")


def say_failures(failures: Sequence[Failure]) -> None:
    """Exit with 1 and the logs of the runs that failed, if any did."""
    if failures:
        logs = "\n".join(f"  {failure.job.name}: {failure.log}" for failure in failures)
        sys.exit(f"{len(failures)} runs failed; the same command tries them again.\n{logs}")


def run(
    protocol: Protocol,
    stage: Stage,
    algorithms: Sequence[Algorithm],
    seeds: Sequence[int],
    *,
    runs: Path,
    results: Path,
    num_processes: int,
) -> list[Failure]:
    """Run and record what has no line yet, and return the runs that failed.

    Raises:
        IncompleteGridError: the matrix needs grid runs that have not been recorded.
        MixedProtocolsError: a file of results holds lines of another protocol, or of other code where all is of one.
        BusyError: another process is at it.
    """
    if protocol.one_code:
        require_one_code(protocol, results, checked_out_commit())
    with exclusive(runs / stage_folder(protocol, stage)):
        path, lines = results_file(results, protocol, stage), read_results(results, protocol, stage)
        if stage == "grid":
            jobs = grid_jobs(protocol, algorithms, seeds)
        else:
            jobs = matrix_jobs(protocol, _chosen(protocol, algorithms, results), seeds)
            record_controls(protocol, results)
        left = list(missing(jobs, lines))
        print(f"{protocol.name} ({protocol.hash}), {stage}: {len(jobs) - len(left)} of {len(jobs)} recorded in {path}")

        def on_end(job: Job, folder: Path, commit: str) -> str:
            line = record(job, folder, commit)
            append_line(path, line)
            return f"{job.name}: success {100 * line['curve'][-1][1]:.1f} %, {line['wall_seconds']:.0f} s"

        durations = [line["wall_seconds"] for line in lines]
        return run_jobs(left, runs, num_processes=num_processes, on_end=on_end, durations=durations)


def record_controls(protocol: Protocol, results: Path) -> None:
    """Play and record the rows without training that have no line yet."""
    recorded = [(line["algorithm"], line["seed"]) for line in read_results(results, protocol, "control")]
    for control in CONTROLS:
        for seed in control_seeds(protocol, control):
            if (control, seed) not in recorded:
                line = play_control(protocol, control, seed)
                append_line(results_file(results, protocol, "control"), line)
                print(f"{line['title']}, seed {seed}: success {100 * line['success_after']:.1f} %")


def _chosen(protocol: Protocol, algorithms: Sequence[Algorithm], results: Path) -> dict[Algorithm, GridPoint]:
    """The grid point of every algorithm.

    Raises:
        IncompleteGridError: with the command that completes the grid.
    """
    lines = read_results(results, protocol, "grid")
    chosen, problems = {}, []
    for algorithm in algorithms:
        try:
            chosen[algorithm] = choose(protocol, algorithm, lines)
        except IncompleteGridError as error:
            problems.append(str(error))
    if problems:
        command = f"python baselines/run.py {protocol.name} --grid"
        raise IncompleteGridError("\n".join([*problems, f"Run `{command}` first."]))
    return chosen


if __name__ == "__main__":
    main()
