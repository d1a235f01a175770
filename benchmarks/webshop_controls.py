"""How far the experts and policies that do not compare get in the built-in shop of `steppo/WebShop-v0`.

    python benchmarks/webshop_controls.py

Prints success and task score on the first test goals of both kinds, as the README of the environment shows them.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from statistics import mean
from typing import Any

import gymnasium

import steppo_gym  # noqa: F401  (registers the environments)

Choose = Callable[[Any, tuple[str, ...]], str]
"""From the environment and what can be done to a response."""


def main() -> None:
    """Play and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goals", type=int, default=200, help="most goals of each kind")
    options = parser.parse_args()
    print("| test goals | human: success | score | synthetic: success | score |")
    print("|---|---|---|---|---|")
    for name, expert, choose in (
        ("careful expert", "careful", _expert),
        ("hasty expert", "hasty", _expert),
        ("search for the instruction, buy the first product", "careful", _first_product),
        ("the same with the right options", "careful", _first_product_with_options),
        ("random admissible actions", "careful", _random(random.Random(0))),
    ):
        cells = [_play(kind, expert, choose, options.goals) for kind in ("human", "synthetic")]
        print(f"| {name} | {' | '.join(f'{success:.3f} | {score:.3f}' for success, score in cells)} |", flush=True)


def _play(goals: str, expert: str, choose: Choose, number: int) -> tuple[float, float]:
    """Mean success and task score."""
    env: Any = gymnasium.make("steppo/WebShop-v0", split="test", goals=goals, expert=expert, nouns="words").unwrapped
    infos = []
    for task_id in env.task_ids[:number]:
        _, info = env.reset(seed=0, options={"task_id": task_id})
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(choose(env, info["admissible_actions"]))
            over = terminated or truncated
        infos.append(info)
    return mean(info["success"] for info in infos), mean(info["metrics"]["task_score"] for info in infos)


def _expert(env: Any, actions: tuple[str, ...]) -> str:
    return env.expert_response()


def _first_product(env: Any, actions: tuple[str, ...]) -> str:
    buttons = ("click[back to search]", "click[next >]")
    return _write("click[buy now]" if "click[buy now]" in actions else next(a for a in actions if a not in buttons))


def _first_product_with_options(env: Any, actions: tuple[str, ...]) -> str:
    """Chooses what is wanted of the options on offer."""
    if "click[buy now]" not in actions:
        return _first_product(env, actions)
    wanted = env.goal.options
    values = wanted if isinstance(wanted, tuple) else tuple(wanted.values())
    done = {exchange.action for exchange in env.history}
    left = [click for click in (f"click[{value}]" for value in values) if click in actions and click not in done]
    return _write(left[0] if left else "click[buy now]")


def _random(rng: random.Random) -> Choose:
    return lambda env, actions: _write(rng.choice(actions))


def _write(command: str) -> str:
    return f"<action>{command}</action>"


if __name__ == "__main__":
    main()
