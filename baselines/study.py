"""When does step credit pay? StepPO and PPO in eight cells of KeyDoor; `preregistered/when_step_credit_pays.md`.

The report has the two under step limits of ALFWorld as well, which `run.py` runs.

python baselines/study.py run --jobs 4      # what is missing of the 80 runs
python baselines/study.py report            # the tables
python baselines/study.py report --write    # STUDY.md
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.protocols import ALFWORLD_STEP_LIMITS, KEY_DOOR, PPO, STEPPO, untuned
from steppo_gym.baselines.records import RESULTS
from steppo_gym.baselines.run import ending_in_one_line, run, say_failures
from steppo_gym.baselines.tables.effects import limits_section, study_report

FACTORS = ("horizon", "share", "thought", "critic")
PAGE = Path(__file__).with_name("STUDY.md")


@dataclass(frozen=True)
class Cell:
    """One combination of the factors, each low or high."""

    horizon: bool
    share: bool
    thought: bool

    @property
    def critic(self) -> bool:
        """High where an odd number of the others is: their product, with low as -1 and high as 1."""
        return (self.horizon + self.share + self.thought) % 2 == 1

    @property
    def name(self) -> str:
        """Of its protocol and its file of results."""
        passages, deciding = self.passages
        return f"study_{passages}_passages_{deciding}_deciding_{self.words}_words"

    @property
    def passages(self) -> tuple[int, int]:
        """All, and those that decide."""
        number = 8 if self.horizon else 2
        return number, number if self.share else number // 2

    @property
    def words(self) -> int:
        """Of a thought."""
        return 16 if self.thought else 0

    @property
    def critic_learning_rate(self) -> str:
        """As the flag has it."""
        return "2e-3" if self.critic else "1e-4"

    @property
    def levels(self) -> tuple[bool, ...]:
        """Of the factors, in their order."""
        return tuple(getattr(self, factor) for factor in FACTORS)

    def protocol(self) -> Protocol:
        """What its ten runs have in common."""
        passages, deciding = self.passages
        knobs = (
            f"decisive_steps={deciding}",
            f"routine_steps={passages - deciding}",
            f"thought_words={self.words}",
        )
        return untuned(
            KEY_DOOR,
            name=self.name,
            title=f"KeyDoor, {passages} passages, {deciding} deciding, {self.words} words, "
            f"critic {self.critic_learning_rate}",
            arguments=(
                *("--env_args", *knobs),
                *("--iterations", "6", "--episodes_per_iteration", "64", "--updates_per_iteration", "4"),
                *("--evaluate_every", "2", "--test_tasks", "100", "--validation_tasks", "0"),
                *("--critic_learning_rate", self.critic_learning_rate),
                *("--max_completion_length", "40" if self.thought else "12", "--temperature", "1.0"),
            ),
            seeds=(0, 1, 2, 3, 4),
            defaults=(),
            algorithms=(STEPPO, PPO),
        )


CELLS = tuple(
    Cell(horizon, share, thought) for thought in (False, True) for share in (False, True) for horizon in (False, True)
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is missing, or report; exits with 1 if a run failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="run what is missing")
    running.add_argument("--cells", nargs="+", choices=[cell.name for cell in CELLS], metavar="CELL", default=None)
    running.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="runs at a time")
    running.add_argument("--runs", type=Path, default=Path("runs", "baselines"), help="folder of the runs")
    reporting = commands.add_parser("report", help="print the tables")
    reporting.add_argument("--write", action="store_true", help="write STUDY.md instead")
    for command in (running, reporting):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the recorded lines")
    options = parser.parse_args(argv)
    if options.command == "run":
        _run(options)
        return
    text = "\n".join(
        (
            study_report([(cell.protocol(), cell.levels) for cell in CELLS], FACTORS, options.results),
            limits_section(ALFWORLD_STEP_LIMITS, ("steppo", "token_both"), options.results),
        )
    )
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    else:
        print(text, end="")


def _run(options: argparse.Namespace) -> None:
    failures = []
    chosen = [cell.protocol() for cell in CELLS if options.cells is None or cell.name in options.cells]
    with ending_in_one_line():
        for protocol in chosen:
            failures += run(
                protocol,
                "matrix",
                protocol.algorithms,
                protocol.seeds,
                runs=options.runs,
                results=options.results,
                num_processes=options.jobs,
            )
    say_failures(failures)


if __name__ == "__main__":
    main()
