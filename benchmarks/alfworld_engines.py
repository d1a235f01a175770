"""Speed of the ALFWorld engines: ours against textworld's own, on the same games and commands in one run.

    python benchmarks/alfworld_engines.py --games 24 --stock-games 4

Measured with one process and one core's worth of work. Plays every game once with random admissible commands and
notes them. The first `--stock-games` of the games are then played by the stock engine with the same commands; every
text, every list of admissible commands and every win must be equal, or the script ends with an error. Last, one
engine plays `--episodes` episodes and its memory is watched.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from process_memory import resident
from tqdm import tqdm

from steppo_gym.envs.alfworld.built_in.generate import generate_game
from steppo_gym.envs.alfworld.engine.game import EngineState, FastEngine
from steppo_gym.envs.alfworld.engine.stock import Engine, StockEngine
from steppo_gym.envs.alfworld.engine.world import worlds
from steppo_gym.envs.alfworld.splits import task_spec

MAX_GROWTH = 16.0
"""MiB that memory may grow by over the second half of the episodes and still be called flat."""


@dataclass
class Times:
    """Seconds of each call, by what was called."""

    load_and_reset: list[float] = field(default_factory=list)
    reset: list[float] = field(default_factory=list)
    step: list[float] = field(default_factory=list)

    @property
    def steps_per_second(self) -> float:
        """Steps by the time all of them took."""
        return len(self.step) / sum(self.step)


@dataclass(frozen=True)
class Episode:
    """What was typed and what was shown, the reset first."""

    commands: tuple[str, ...]
    states: tuple[EngineState, ...]


def main() -> int:
    """Run the benchmark; the exit status is 1 if the engines differ or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = "(default: %(default)s)"
    parser.add_argument("--games", type=int, default=30, help=f"games played by our engine {shown}")
    parser.add_argument("--steps", type=int, default=30, help=f"steps per game {shown}")
    parser.add_argument("--stock-games", type=int, default=6, help=f"of them also by the stock engine {shown}")
    parser.add_argument("--episodes", type=int, default=2000, help=f"episodes of the memory check {shown}")
    parser.add_argument("--difficulty", default="full", help=f"of the games: easy, medium or full {shown}")
    arguments = parser.parse_args()
    if not 1 <= arguments.stock_games <= arguments.games:
        parser.error("--stock-games must be at least 1 and at most --games")

    games = [_game(arguments.difficulty, index) for index in range(arguments.games)]
    with tempfile.TemporaryDirectory() as folder:
        return _run(games, Path(folder), arguments)


def _run(games: list[dict[str, Any]], folder: Path, arguments: argparse.Namespace) -> int:
    engine = FastEngine(folder)
    _warm_up(engine, arguments.difficulty)
    cold, disk, memory = Times(), Times(), Times()
    episodes = [
        _play(engine, game, _random_commands(index, arguments.steps), cold)
        for index, game in enumerate(tqdm(games, desc="ours, cold", leave=False))
    ]
    worlds(folder).forget()
    for game, episode in zip(tqdm(games, desc="ours, from disk", leave=False), episodes, strict=True):
        _play(engine, game, _recorded(episode), disk)
    for game, episode in zip(tqdm(games, desc="ours, from memory", leave=False), episodes, strict=True):
        _play(engine, game, _recorded(episode), memory)

    stock_engine, stock, ours = StockEngine(), Times(), Times()
    differences = 0
    pairs = list(zip(games, episodes, strict=True))[: arguments.stock_games]
    for game, episode in tqdm(pairs, desc="stock", leave=False):
        shown = _play(stock_engine, game, _recorded(episode), stock).states
        again = _play(engine, game, _recorded(episode), ours).states
        differences += sum(first != second for first, second in zip(shown, again, strict=True))
        differences += sum(first != second for first, second in zip(shown, episode.states, strict=True))

    _print_table(cold, disk, memory, stock, ours)
    compared = arguments.stock_games * (arguments.steps + 1)
    print(f"\nTexts, admissible commands and wins: {compared} states compared, {differences} differences.")
    grown = _memory_growth(engine, games, arguments.episodes)
    return int(differences > 0 or grown > MAX_GROWTH)


def _game(difficulty: str, index: int) -> dict[str, Any]:
    spec = task_spec("train", difficulty, index)
    return generate_game(spec.seed, room=spec.room, task_type=spec.task_type).game


def _warm_up(engine: Engine, difficulty: str) -> None:
    """Pay once for imports, the grammar and the library, on a game that is not measured."""
    start = time.perf_counter()
    spec = task_spec("valid_seen", difficulty, 0)
    engine.load(generate_game(spec.seed, room=spec.room, task_type=spec.task_type).game)
    engine.reset()
    print(f"First game of the process, with imports: {time.perf_counter() - start:.2f} s")


Choose = Callable[[EngineState, int], str | None]


def _random_commands(seed: int, steps: int) -> Choose:
    rng = random.Random(seed)

    def choose(state: EngineState, place: int) -> str | None:
        deeds = [command for command in state.admissible_commands if not command.startswith("go to")]
        return rng.choice(deeds if rng.random() < 0.5 else state.admissible_commands) if place < steps else None

    return choose


def _recorded(episode: Episode) -> Choose:
    return lambda _, place: episode.commands[place] if place < len(episode.commands) else None


def _play(engine: Engine, game: dict[str, Any], choose: Choose, times: Times) -> Episode:
    """Load and reset, play, and reset once more."""
    start = time.perf_counter()
    engine.load(game)
    states = [engine.reset()]
    times.load_and_reset.append(time.perf_counter() - start)
    commands: list[str] = []
    while (command := choose(states[-1], len(commands))) is not None:
        start = time.perf_counter()
        states.append(engine.step(command))
        times.step.append(time.perf_counter() - start)
        commands.append(command)
    start = time.perf_counter()
    engine.reset()
    times.reset.append(time.perf_counter() - start)
    return Episode(tuple(commands), tuple(states))


def _milliseconds(seconds: Sequence[float]) -> str:
    return f"{1000 * statistics.median(seconds):.2f} ms"


def _print_table(cold: Times, disk: Times, memory: Times, stock: Times, ours: Times) -> None:
    print(f"\nOurs, {len(cold.reset)} games (medians; steps per second overall)")
    rows = [("never seen before", cold), ("compiled, on disk", disk), ("compiled, in memory", memory)]
    for label, times in rows:
        wait, speed = _milliseconds(times.load_and_reset), times.steps_per_second
        print(f"  {label:<20} load + reset {wait:>10}   {speed:8.0f} steps/s")
    print(f"  {'same game again':<20}        reset {_milliseconds(memory.reset):>10}")
    print(f"\nBoth, the same {len(stock.reset)} games and commands")
    print(f"  {'':<22}{'stock':>12}{'ours':>12}{'ratio':>9}")
    seconds = [
        ("load + reset", stock.load_and_reset, ours.load_and_reset),
        ("reset, same game", stock.reset, ours.reset),
        ("step", stock.step, ours.step),
    ]
    for label, theirs, own in seconds:
        ratio = sum(theirs) / sum(own)
        print(f"  {label:<22}{_milliseconds(theirs):>12}{_milliseconds(own):>12}{ratio:8.0f}x")
    ratio = ours.steps_per_second / stock.steps_per_second
    print(f"  {'steps per second':<22}{stock.steps_per_second:12.1f}{ours.steps_per_second:12.1f}{ratio:8.0f}x")


def _memory_growth(engine: Engine, games: list[dict[str, Any]], episodes: int) -> float:
    """MiB by which memory grew over the second half of many short episodes of few games."""
    half = 0.0
    for number in tqdm(range(episodes), desc="memory", leave=False):
        _play(engine, games[number % len(games)], _random_commands(number, 10), Times())
        if number == episodes // 2:
            half = resident()
    end = resident()
    grown = end - half
    verdict = "flat" if grown <= MAX_GROWTH else "GROWING"
    sizes = f"{half:.0f} MiB half way, {end:.0f} MiB at the end"
    print(f"Memory over {episodes} episodes: {sizes}: {verdict}.")
    return grown


if __name__ == "__main__":
    sys.exit(main())
