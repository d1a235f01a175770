"""What is compared with what: tasks, budgets, grids and algorithms, written down once.

A protocol's hash covers everything that an algorithm's results depend on and all algorithms share. Lines with different
hashes never meet in a table. The seeds and the algorithms themselves are not part of it, so that rows can be added
later; what is an algorithm's own stands in each of its lines.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Algorithm:
    """A row of the table: a training script and the flags that are its own."""

    key: str
    """On the command line, in folders and in the recorded lines."""
    title: str
    """In tables and figures."""
    script: str
    """Name of the file in `trainers/`, without its ending."""
    arguments: tuple[str, ...] = ()
    """The flags of its own; budgets and what the grid chooses are not among them."""
    options: tuple[tuple[str, ...], ...] = ((),)
    """Choices of flags that mean something to this algorithm alone; each is tried at every point of the shared grid."""


@dataclass(frozen=True)
class GridPoint:
    """One choice of what is tuned."""

    learning_rate: float
    epsilon: float
    """Clip range of the ratio."""
    option: tuple[str, ...] = ()
    """One of the algorithm's own choices."""

    def __str__(self) -> str:
        """As tables show it."""
        return ", ".join(
            [str(self.learning_rate), str(self.epsilon), *([" ".join(self.option)] if self.option else [])]
        )


@dataclass(frozen=True)
class Protocol:
    """One comparison.

    Raises:
        ValueError: the protocol contradicts itself.
    """

    name: str
    title: str
    env: str
    """As the training scripts call the task."""
    arguments: tuple[str, ...]
    """Flags that every run gets: budgets, evaluation tasks, and settings that are not tuned."""
    grid: tuple[GridPoint, ...]
    """With more than one point, each algorithm's is chosen on validation tasks."""
    grid_seeds: tuple[int, ...]
    """Of the runs that choose a grid point; disjoint from `seeds`."""
    seeds: tuple[int, ...]
    """Of the runs in the table."""
    algorithms: tuple[Algorithm, ...]
    grid_arguments: tuple[str, ...] = ()
    """Flags of the runs that choose a grid point, instead of those in `arguments`: a smaller budget, for example."""
    machine_arguments: tuple[str, ...] = ()
    """Flags that change speed and what is kept on disk, not results."""
    defaults: tuple[str, ...] = ()
    """Flags whose defaults have changed since its first line, with the values that they had and its runs still have."""
    lists_actions: bool = True
    """Whether the task lists its admissible actions, so that random ones can be played."""
    metrics: tuple[str, ...] = ()
    """Scores of the environment that are shown beside success; in each line under `before` and `after`."""
    tuning: str = "nothing is tuned"
    """For the table of a protocol whose grid has one point: how that point came about."""
    instructions: str = ""
    """A vector instruction set that every run is held to, so that it repeats on any machine that has it: "avx2"."""
    one_code: bool = False
    """Whether all lines must come from the same code, see `records.code_of`."""
    score: float | None = None
    """Greedy success that is asked for where the table says what it took to get there."""
    watched: str = "test"
    """The tasks of the learning curve: "validation" leaves the test tasks alone until training has ended."""
    start: str = "warm"
    """What runs begin as: each seed's own warm start, or "shipped" for what comes with the package."""
    starts: tuple[str, ...] = ()
    """Instead: folders of policies below the repository, of which seed s begins with number s modulo their number."""
    comparison: str = ""
    """Protocols with the same one are the tasks of one comparison, with a table over all of them."""
    superseded: str = ""
    """Why another protocol took its place. Its runs stay in RESULTS.md, whose summary leaves it out."""

    @property
    def task(self) -> str:
        """The beginning of the title, for a table in which the rest would stand at each task."""
        return self.title.partition(",")[0]

    def __post_init__(self) -> None:
        """Check what a slip would spoil without being seen."""
        shared = set(self.seeds) & set(self.grid_seeds)
        if shared:
            raise ValueError(
                f"Protocol {self.name}: seeds {sorted(shared)} are both tuned on and reported. Use other grid_seeds."
            )
        keys = [algorithm.key for algorithm in self.algorithms]
        if len(set(keys)) < len(keys):
            raise ValueError(f"Protocol {self.name}: two algorithms have the same key, got {', '.join(keys)}.")
        counts = {len(algorithm.options) for algorithm in self.algorithms}
        if len(counts) > 1:
            raise ValueError(
                f"Protocol {self.name}: algorithms have different numbers of options, got {sorted(counts)}."
            )
        if not self.grid or ((len(self.grid) > 1 or counts != {1}) and not self.grid_seeds):
            raise ValueError(f"Protocol {self.name} needs a grid of one point, or of more points and grid_seeds.")

    @property
    def hash(self) -> str:
        """12 hexadecimal digits that change with everything shared that results depend on."""
        shared = {
            "env": self.env,
            "arguments": self.arguments,
            "grid_arguments": self.grid_arguments,
            "grid": [[point.learning_rate, point.epsilon] for point in self.grid],
            "grid_seeds": self.grid_seeds,
        }
        # Left out otherwise: protocols are older than these.
        if self.start != "warm":
            shared["start"] = self.start
        if self.starts:
            shared["starts"] = self.starts
        if self.watched != "test":
            shared["watched"] = self.watched
        if self.instructions:
            shared["instructions"] = self.instructions
        return hashlib.sha256(json.dumps(shared, sort_keys=True).encode()).hexdigest()[:12]

    def start_of(self, seed: int) -> str:
        """What a run of a seed begins with: "warm", "shipped" or a folder below the repository."""
        return self.starts[seed % len(self.starts)] if self.starts else self.start

    def points(self, algorithm: Algorithm) -> list[GridPoint]:
        """The grid of an algorithm: every shared point with every option of its own."""
        return [replace(point, option=option) for point in self.grid for option in algorithm.options]

    def algorithm(self, key: str) -> Algorithm:
        """The algorithm of a key.

        Raises:
            KeyError: there is none.
        """
        for algorithm in self.algorithms:
            if algorithm.key == key:
                return algorithm
        raise KeyError(f"Protocol {self.name} has no algorithm {key!r}.")


def grid(learning_rates: tuple[float, ...], epsilons: tuple[float, ...]) -> tuple[GridPoint, ...]:
    """Every learning rate with every clip range."""
    return tuple(GridPoint(rate, epsilon) for rate in learning_rates for epsilon in epsilons)
