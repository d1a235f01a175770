"""Playing `steppo/WebShop-v0` in tests."""

from __future__ import annotations

import gymnasium

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.actions import format_tag

ID = "steppo/WebShop-v0"


def make(**kwargs):
    return gymnasium.make(ID, **{"nouns": "words", **kwargs}).unwrapped


def act(env, *commands):
    """The last result of official actions."""
    for command in commands:
        result = env.step(format_tag("action", command))
    return result


def play(env, task_id, choose, seed=0):
    _, info = env.reset(seed=seed, options={"task_id": task_id})
    over, total = False, 0.0
    while not over:
        _, reward, terminated, truncated, info = env.step(choose(env, info))
        over, total = terminated or truncated, total + reward
    return total, info


def expert(env, info):
    return env.expert_response()


def first_hit(env, info):
    """Search for the instruction, open the first product, buy it."""
    clicks = [
        action for action in info["admissible_actions"] if action not in ("click[back to search]", "click[next >]")
    ]
    return format_tag("action", "click[buy now]" if "click[buy now]" in clicks else clicks[0])


def open_product(env):
    """From the first page to a product that has an option; the action that chooses one."""
    for task_id in env.task_ids:
        _, info = env.reset(seed=0, options={"task_id": task_id})
        _, *_, info = act(env, info["admissible_actions"][0])
        *_, info = act(env, info["admissible_actions"][2])
        if len(info["admissible_actions"]) > 6:
            return info["admissible_actions"][6]
    raise AssertionError("no product has options")
