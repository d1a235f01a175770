"""Speed and memory of `steppo/WebShop-v0`, beside a plain shop in the official manner, on the same products.

    python benchmarks/webshop.py --products 1000 100000 --episodes 200 --plain-episodes 5

Each size is measured in fresh processes: one builds the shop from its files, one records what the environment's own
expert does, one starts on the finished shop and does that with 1 and then with 32 environments in turn, one does the
first of these episodes in the plain shop (see `webshop_plain.py`). Times are those of `reset` and `step` alone. Rates
are also given in processor time, which a busy machine changes little. Memory is resident memory of the whole process.
The plain shop needs `pip install beautifulsoup4 jinja2 rank-bm25`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

# Python puts a script's folder first on its path, where this file would stand in for the package of the same name.
sys.path[:] = [folder for folder in sys.path if Path(folder).resolve() != Path(__file__).resolve().parent]

NUM_ENVS = (1, 32)
_MEGABYTE = 2**20
_KINDS = ("reset", "search", "click", "buy")

Episodes = list[tuple[str, list[str]]]
"""Tasks, and what was done."""
P = ParamSpec("P")
R = TypeVar("R")


class Times:
    """Seconds of calls, by what was called, and of the processor in all steps together."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {kind: [] for kind in _KINDS}
        self.processor = 0.0

    def call(self, kind: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function and note how long it takes."""
        started, processor = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        self.seconds[kind].append(time.perf_counter() - started)
        self.processor += time.process_time() - processor if kind != "reset" else 0.0
        return result

    def rate(self) -> str:
        """Steps per second."""
        steps = [seconds for kind in _KINDS[1:] for seconds in self.seconds[kind]]
        number = len(steps)
        return f"{number / self.processor:.0f} steps per processor second, {number / sum(steps):.0f} per second"

    def report(self) -> None:
        """Print the quantiles."""
        for kind, seconds in self.seconds.items():
            if ordered := sorted(seconds):
                late = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
                p50 = 1000 * statistics.median(ordered)
                print(f"    {kind:7} p50 {p50:.3f} ms, p99 {1000 * late:.3f} ms, {len(ordered)} calls", flush=True)


def main() -> None:
    """Measure every size and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=int, nargs="+", default=[1000], help="sizes of the shop")
    parser.add_argument("--episodes", type=int, default=200, help="episodes in all, for each number of environments")
    parser.add_argument("--plain-episodes", type=int, default=20, help="episodes of the plain shop; 0 leaves it out")
    options = parser.parse_args()
    for number in options.products:
        with tempfile.TemporaryDirectory() as folder:
            # The processes started from here build into a cache of their own.
            os.environ["STEPPO_GYM_CACHE"] = str(Path(folder, "cache"))
            print(f"{number} products", flush=True)
            seconds = _in_new_process(write_shop, folder, number)
            print(f"  generate the files {seconds:.2f} s", flush=True)
            print(f"  build the shop once {_in_new_process(start, folder):.2f} s", flush=True)
            episodes = _in_new_process(record, folder, options.episodes)
            _in_new_process(measure_env, folder, episodes)
            if options.plain_episodes:
                _in_new_process(measure_plain, folder, episodes[: options.plain_episodes])


def write_shop(folder: str, number: int) -> float:
    """Write the official files of a generated shop; seconds."""
    from steppo_gym.envs.webshop.generate import generate_files, write_files

    started = time.perf_counter()
    write_files(folder, generate_files(number))
    return time.perf_counter() - started


def start(folder: str) -> float:
    """Make an environment and start an episode; seconds, without the imports."""
    make = _maker(folder)
    started = time.perf_counter()
    make().reset(seed=0)
    return time.perf_counter() - started


def record(folder: str, num_episodes: int) -> Episodes:
    """What the expert does in each of these episodes."""
    env = _maker(folder)()
    episodes: Episodes = []
    for seed in range(num_episodes):
        _, info = env.reset(seed=seed)
        commands: list[str] = []
        over = False
        while not over:
            response = env.expert_response()
            commands.append(response.removeprefix("<action>").removesuffix("</action>"))
            _, _, terminated, truncated, _ = env.step(response)
            over = terminated or truncated
        episodes.append((info["task_id"], commands))
    return episodes


def measure_env(folder: str, episodes: Episodes) -> None:
    """Print the environment's times and memory."""
    make = _maker(folder)
    before = _memory()
    started = time.perf_counter()
    envs = [make()]
    envs[0].reset(seed=0)
    print(f"  start {time.perf_counter() - started:.2f} s on the finished shop", flush=True)
    for number in NUM_ENVS:
        envs += [make() for _ in range(number - len(envs))]
        times = Times()
        for first in range(0, len(episodes), number):
            _play(envs, episodes[first : first + number], times)
        memory = _memory()
        print(f"  {number} env: {memory:.0f} MiB, {memory - before:.0f} more than without; {times.rate()}")
        times.report()


def measure_plain(folder: str, episodes: Episodes) -> None:
    """Print the plain shop's times for the same actions."""
    from steppo_gym.envs.webshop.catalogue import products_of
    from steppo_gym.envs.webshop.generate import FILE_NAMES
    from steppo_gym.envs.webshop.nouns import noun_tagger
    from steppo_gym.envs.webshop.shop import open_shop

    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from webshop_plain import PlainShop

    shop = open_shop(folder)
    goals = [shop.goal("human", number) for number in range(shop.num_goals("human"))]
    before = _memory()
    started = time.perf_counter()
    items, rows = (json.loads(Path(folder, name).read_text(encoding="utf-8")) for name in FILE_NAMES[:2])
    products = list(products_of(items, {asin: row["attributes"] for asin, row in rows.items()}))
    plain = PlainShop(products, goals, noun_tagger("auto"))
    print(f"  plain shop: start {time.perf_counter() - started:.2f} s on the files", flush=True)
    times = Times()
    for task_id, commands in episodes:
        times.call("reset", plain.reset, int(task_id.partition("/")[2]))
        for command in commands:
            times.call(_kind(command), plain.step, command)
    memory = _memory()
    print(f"  plain shop: {memory:.0f} MiB, {memory - before:.0f} more than without; {times.rate()}")
    times.report()


def _maker(folder: str) -> Callable[[], Any]:
    import gymnasium

    import steppo_gym  # noqa: F401 - registers the environments
    from steppo_gym.envs.webshop import env  # noqa: F401 - imports are not part of the start

    return lambda: gymnasium.make("steppo/WebShop-v0", data=folder).unwrapped


def _play(envs: Sequence[Any], episodes: Episodes, times: Times) -> None:
    """One episode in each of the first environments, step by step in turn."""
    for env, (task_id, _) in zip(envs, episodes, strict=False):
        times.call("reset", env.reset, seed=0, options={"task_id": task_id})
    for step in range(max(len(commands) for _, commands in episodes)):
        for env, (_, commands) in zip(envs, episodes, strict=False):
            if step < len(commands):
                times.call(_kind(commands[step]), env.step, f"<action>{commands[step]}</action>")


def _kind(command: str) -> str:
    return "buy" if command == "click[buy now]" else "search" if command.startswith("search[") else "click"


def _memory() -> float:
    """Resident memory in MiB."""
    import psutil

    return psutil.Process().memory_info().rss / _MEGABYTE


def _in_new_process(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *args, **kwargs).result()


if __name__ == "__main__":
    main()
