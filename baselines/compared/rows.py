"""Rows of tables: each rule with the flags of its own, and flags that many comparisons share."""

from __future__ import annotations

from dataclasses import replace

from steppo_gym.baselines.compared.protocol import Algorithm
from steppo_gym.trainers.rules import ALGORITHMS

ONE = ("--num_generations", "1")
EIGHT = ("--num_generations", "8")

RULES = {
    script: Algorithm(script, rule.title(), script, EIGHT if rule.needs_groups else ONE)
    for script, rule in ALGORITHMS.items()
}
BOOTSTRAP = ("--bootstrap_truncated", "True")
"""The default of critics until `HEAD_TO_HEAD_KEY_DOOR` had shown what it does to them."""
KEEP_LITTLE = ("--save_episodes", "False", "--save_total_limit", "1", "--report_to", "none")


def with_options(key: str, *options: str) -> Algorithm:
    """A rule with choices of its own for the grid, each as on a command line."""
    return replace(RULES[key], options=tuple(tuple(option.split()) for option in options))
