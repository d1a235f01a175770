"""The runs of a protocol: which there are, which are missing, and the command of each."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from steppo_gym.baselines.compared.protocol import Algorithm, GridPoint, Protocol
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.rules import ALGORITHMS

REPOSITORY = Path(__file__).resolve().parents[1]

Stage = Literal["grid", "matrix"]

INSTRUCTIONS = {
    "": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_CBWR": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    },
}
"""What torch's kernels, oneDNN, MKL and numpy's BLAS read at their start, by `Protocol.instructions`."""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""With another number of threads sums are added up in another order, so a run would not repeat beside fewer others."""


def held(instructions: str) -> dict[str, str]:
    """Variables of a process whose numbers are to repeat."""
    return ONE_THREAD | INSTRUCTIONS[instructions]


@dataclass(frozen=True)
class Job:
    """One run: an algorithm at a grid point with a seed."""

    protocol: Protocol
    stage: Stage
    algorithm: Algorithm
    point: GridPoint
    seed: int

    @property
    def identity(self) -> dict[str, Any]:
        """What its recorded line begins with; two runs with the same one are the same run."""
        return {
            "protocol": self.protocol.name,
            "protocol_hash": self.protocol.hash,
            "stage": self.stage,
            "algorithm": self.algorithm.key,
            "script": self.algorithm.script,
            "arguments": list(self.algorithm.arguments),
            "learning_rate": self.point.learning_rate,
            "epsilon": self.point.epsilon,
            "option": list(self.point.option),
            "seed": self.seed,
        }

    @property
    def name(self) -> str:
        """For people: what the run is."""
        return (
            f"{self.algorithm.key}, learning rate {self.point.learning_rate}, clip {self.point.epsilon}, "
            f"{''.join(f'{part} ' for part in self.point.option)}seed {self.seed}"
        )

    @property
    def folder(self) -> Path:
        """Below the folder of all runs; no two jobs share one."""
        option = "".join(f"-{part.lstrip('-')}" for part in self.point.option)
        run = f"{self.algorithm.key}-lr{self.point.learning_rate}-clip{self.point.epsilon}{option}-seed{self.seed}"
        return stage_folder(self.protocol, self.stage) / run

    @property
    def arguments(self) -> list[str]:
        """The training script's arguments, but for the folder."""
        return [
            *("--env", self.protocol.env, "--start", self._start),
            *_read_by(self.algorithm, self.protocol.defaults),
            *_read_by(self.algorithm, self.protocol.arguments),
            *self.protocol.machine_arguments,
            *(self.protocol.grid_arguments if self.stage == "grid" else ()),
            *self.algorithm.arguments,
            *self.point.option,
            *("--learning_rate", str(self.point.learning_rate), "--epsilon", str(self.point.epsilon)),
            *("--seed", str(self.seed), *self._watching),
        ]

    @property
    def _start(self) -> str:
        start = self.protocol.start_of(self.seed)
        return str(REPOSITORY / start) if self.protocol.starts else start

    @property
    def _watching(self) -> tuple[str, ...]:
        """Nothing of a grid run touches the test tasks."""
        if self.stage == "grid":
            return ("--watch", "validation", "--test_tasks", "0")
        return ("--watch", self.protocol.watched)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of the run's process that its numbers depend on."""
        return held(self.protocol.instructions)

    def command(self, folder: Path) -> list[str]:
        """The whole command of a run in `folder`."""
        script = REPOSITORY / "trainers" / f"{self.algorithm.script}.py"
        return [sys.executable, str(script), *self.arguments, "--output_dir", str(folder)]


def _read_by(algorithm: Algorithm, arguments: Sequence[str]) -> Iterator[str]:
    """Flags with their values, without those of a critic that the algorithm does not have."""
    has_critic = ALGORITHMS[algorithm.script].critic is not None
    of_critic = {f"--{f.name}" for f in fields(CriticConfig)}
    left_out = False
    for argument in arguments:
        if argument.startswith("--"):
            left_out = not has_critic and argument in of_critic
        if not left_out:
            yield argument


def stage_folder(protocol: Protocol, stage: Stage) -> Path:
    """Of all runs of a stage, below the folder of all runs."""
    return Path(f"{protocol.name}-{protocol.hash}", stage)


def grid_jobs(protocol: Protocol, algorithms: Iterable[Algorithm], seeds: Iterable[int]) -> list[Job]:
    """Every algorithm at every grid point, seed by seed."""
    algorithms = list(algorithms)
    return [
        Job(protocol, "grid", algorithm, point, seed)
        for seed in seeds
        for points in zip(*map(protocol.points, algorithms), strict=True)
        for algorithm, point in zip(algorithms, points, strict=True)
    ]


def matrix_jobs(protocol: Protocol, chosen: Mapping[Algorithm, GridPoint], seeds: Iterable[int]) -> list[Job]:
    """Every algorithm at its chosen grid point, seed by seed."""
    return [Job(protocol, "matrix", algorithm, point, seed) for seed in seeds for algorithm, point in chosen.items()]


def missing(jobs: Iterable[Job], lines: Sequence[Mapping[str, Any]]) -> Iterator[Job]:
    """The jobs that have no line."""
    for job in jobs:
        if not any(is_of(line, job) for line in lines):
            yield job


def is_of(line: Mapping[str, Any], job: Job) -> bool:
    """Whether a recorded line is the job's."""
    # Lines are older than options.
    known = {"option": [], **line}
    return all(known[name] == value for name, value in job.identity.items())
