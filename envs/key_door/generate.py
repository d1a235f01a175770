"""Tasks from seeds: which door, which key opens it, and where that key is.

What makes a task is its triple (door, key, container). The triples of the three splits are disjoint, while every pair
out of a triple occurs in training: what has to be learnt is to read the note, and no list of remembered answers helps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steppo_gym.envs.key_door.actions import COLOURS, CONTAINERS

SPLIT_SIZES = {"train": 1000, "validation": 200, "test": 200}
_FIRST_SEEDS = {"train": 0, "validation": 100_000, "test": 200_000}
_NUM_CONTAINERS = 4
_NUM_DOORS = 3


@dataclass(frozen=True)
class Task:
    """One game as it is before the first action."""

    door: str
    """Colour of the door to open."""
    key: str
    """Colour of the key that opens it."""
    container: str
    """Where that key is."""
    lock_key: str | None
    """Colour of the key that opens `container`, None if it is not locked."""
    lock_container: str | None
    """Where that other key is."""
    doors: tuple[str, ...]
    """All doors, in the order they are shown."""
    containers: tuple[str, ...]
    """All containers, in the order they are shown."""
    contents: tuple[str | None, ...]
    """The key in each of `containers`, None in an empty one."""


def task_ids(split: str) -> tuple[str, ...]:
    """The ids of a split's tasks, in order."""
    return tuple(f"{split}-{number}" for number in range(SPLIT_SIZES[split]))


def generate_task(task_id: str) -> Task:
    """The task with this id; every second one has a locked container.

    Args:
        task_id: one of `task_ids`.
    """
    split, _, number = task_id.rpartition("-")
    rng = np.random.default_rng(_FIRST_SEEDS[split] + int(number))
    door, key, container = _draw_triple(rng, split)
    locked = int(number) % 2 == 1
    other_doors = _draw(rng, COLOURS, _NUM_DOORS - 1, without=(door,))
    (other_key,) = _draw(rng, COLOURS, 1, without=(door, key))
    lure_container, other_container, empty_container = _draw(rng, CONTAINERS, _NUM_CONTAINERS - 1, without=(container,))
    # The key in the colour of the door is a lure: it never fits.
    inside = {container: key, lure_container: door, other_container: other_key, empty_container: None}
    containers = tuple(_draw(rng, tuple(inside), len(inside)))
    return Task(
        door=door,
        key=key,
        container=container,
        lock_key=other_key if locked else None,
        lock_container=other_container if locked else None,
        doors=tuple(_draw(rng, (door, *other_doors), _NUM_DOORS)),
        containers=containers,
        contents=tuple(inside[name] for name in containers),
    )


def split_of(door: str, key: str, container: str) -> str:
    """The split whose tasks may have this triple.

    When one of the three runs through its 8 values, the sum of their positions modulo 8 takes every value once. So each
    pair has 6 of its 8 completions in the training split and one in each of the others.
    """
    residue = (COLOURS.index(door) + COLOURS.index(key) + CONTAINERS.index(container)) % len(CONTAINERS)
    return {0: "validation", 1: "test"}.get(residue, "train")


def _draw_triple(rng: np.random.Generator, split: str) -> tuple[str, str, str]:
    door, key = _draw(rng, COLOURS, 2)
    containers = tuple(name for name in CONTAINERS if split_of(door, key, name) == split)
    (container,) = _draw(rng, containers, 1)
    return door, key, container


def _draw(rng: np.random.Generator, items: tuple[str, ...], count: int, without: tuple[str, ...] = ()) -> list[str]:
    left = [item for item in items if item not in without]
    return [left[i] for i in rng.permutation(len(left))[:count]]
