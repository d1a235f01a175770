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
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expert_episodes import Episodes, measure_replays, record_expert
from process_memory import resident
from step_times import StepTimes, in_new_process

_KINDS = ("search", "click", "buy")


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
            seconds = in_new_process(write_shop, folder, number)
            print(f"  generate the files {seconds:.2f} s", flush=True)
            print(f"  build the shop once {in_new_process(start, folder):.2f} s", flush=True)
            episodes = in_new_process(record, folder, options.episodes)
            in_new_process(measure_env, folder, episodes)
            if options.plain_episodes:
                in_new_process(measure_plain, folder, episodes[: options.plain_episodes])


def write_shop(folder: str, number: int) -> float:
    """Write the official files of a generated shop; seconds."""
    from steppo_gym.envs.webshop.built_in.generate import generate_files, write_files

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
    return record_expert(_maker(folder)(), num_episodes)


def measure_env(folder: str, episodes: Episodes) -> None:
    """Print the environment's times and memory."""
    measure_replays(_maker(folder), episodes, _kind, _KINDS)


def measure_plain(folder: str, episodes: Episodes) -> None:
    """Print the plain shop's times for the same actions."""
    from webshop_plain import PlainShop

    from steppo_gym.envs.webshop.built_in.generate import FILE_NAMES
    from steppo_gym.envs.webshop.nouns import noun_tagger
    from steppo_gym.envs.webshop.store.catalogue import products_of
    from steppo_gym.envs.webshop.store.shop import open_shop

    shop = open_shop(folder)
    goals = [shop.goal("human", number) for number in range(shop.num_goals("human"))]
    before = resident()
    started = time.perf_counter()
    items, rows = (json.loads(Path(folder, name).read_text(encoding="utf-8")) for name in FILE_NAMES[:2])
    products = list(products_of(items, {asin: row["attributes"] for asin, row in rows.items()}.get))
    plain = PlainShop(products, goals, noun_tagger("auto"))
    print(f"  plain shop: start {time.perf_counter() - started:.2f} s on the files", flush=True)
    times = StepTimes("reset", *_KINDS)
    for task_id, responses in episodes:
        times.call("reset", plain.reset, int(task_id.partition("/")[2]))
        for response in responses:
            command = response.removeprefix("<action>").removesuffix("</action>")
            times.call(_kind(response), plain.step, command)
    memory = resident()
    print(f"  plain shop: {memory:.0f} MiB, {memory - before:.0f} more than without")
    times.report()


def _maker(folder: str) -> Callable[[], Any]:
    import gymnasium

    import steppo_gym  # noqa: F401 - registers the environments
    from steppo_gym.envs.webshop import env  # noqa: F401 - imports are not part of the start

    return lambda: gymnasium.make("steppo/WebShop-v0", data=folder).unwrapped


def _kind(response: str) -> str:
    return "search" if "search[" in response else "buy" if "click[buy now]" in response else "click"


if __name__ == "__main__":
    main()
