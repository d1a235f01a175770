"""Which procedural games there are: splits with rooms of their own, difficulty levels, and the recipe of every game.

As in ALFRED, the unseen splits hold rooms that no other split uses, and the seen splits hold training rooms with other
games in them. Sizes of `train`, `valid_seen` and `valid_unseen` are those of the official ALFWorld games.

    >>> task_spec("train", "easy", 0).task_type
    'pick_and_place_simple'
"""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass
from typing import NamedTuple

from steppo_gym.envs.alfworld.built_in.rooms import load_room, room_numbers
from steppo_gym.envs.alfworld.tasks import CLEAN, LOOK, PICK, TASK_TYPES, possible_goals

SPLIT_SIZES = {"train": 3553, "valid_seen": 140, "valid_unseen": 134, "test_seen": 200, "test_unseen": 200}

UNSEEN_ROOMS = {
    "valid_unseen": (10, 18, 21, 26, 206, 211, 219, 223, 303, 305, 308, 320, 406, 409, 424, 425),
    "test_unseen": (2, 12, 23, 27, 213, 216, 220, 228, 306, 309, 318, 328, 404, 408, 414, 419),
}
"""Four rooms of each kind; 10, 219, 308 and 424 are the rooms of the official `valid_unseen`."""


@dataclass(frozen=True)
class Difficulty:
    """Which task types are drawn, in turn, and how large the rooms are."""

    task_types: tuple[str, ...]
    max_receptacles: int | None


DIFFICULTIES = {
    "easy": Difficulty((PICK,), 12),
    "medium": Difficulty((PICK, LOOK, CLEAN), 20),
    "full": Difficulty(TASK_TYPES, None),
}


class TaskSpec(NamedTuple):
    """The arguments of `generate_game` for one task."""

    seed: int
    room: int
    task_type: str


def task_type_of(difficulty: str, index: int) -> str:
    """The type of the game at a position: the types of the difficulty take turns."""
    types = DIFFICULTIES[difficulty].task_types
    return types[index % len(types)]


def task_spec(split: str, difficulty: str, index: int) -> TaskSpec:
    """The recipe of the game at a position. Task types take turns, and within a type the rooms.

    Args:
        split: a key of `SPLIT_SIZES`.
        difficulty: a key of `DIFFICULTIES`.
        index: 0 to the size of the split - 1.

    Raises:
        IndexError: no such position.
    """
    if not 0 <= index < SPLIT_SIZES[split]:
        raise IndexError(f"index must be in 0..{SPLIT_SIZES[split] - 1} for split {split!r}, got {index}.")
    task_type = task_type_of(difficulty, index)
    rooms = eligible_rooms(split, difficulty, task_type)
    room = rooms[index // len(DIFFICULTIES[difficulty].task_types) % len(rooms)]
    digest = hashlib.sha256(f"procedural ALFWorld 1/{difficulty}/{split}/{index}".encode()).digest()
    return TaskSpec(int.from_bytes(digest[:6]), room, task_type)


def split_rooms(split: str) -> tuple[int, ...]:
    """All rooms of a split, whatever the difficulty, in ascending order."""
    if split in UNSEEN_ROOMS:
        return UNSEEN_ROOMS[split]
    unseen = {number for numbers in UNSEEN_ROOMS.values() for number in numbers}
    return tuple(number for numbers in room_numbers().values() for number in numbers if number not in unseen)


@functools.cache
def eligible_rooms(split: str, difficulty: str, task_type: str) -> tuple[int, ...]:
    """The rooms of a split that are small enough and afford the task type.

    In a drawn order, so that the first games of a split are in rooms of all kinds.
    """
    limit = DIFFICULTIES[difficulty].max_receptacles
    rooms = [
        number
        for number in split_rooms(split)
        if (limit is None or len(load_room(number).receptacles) <= limit)
        and possible_goals(load_room(number), task_type)
    ]
    random.Random(f"procedural ALFWorld 1|{split}|{difficulty}|{task_type}").shuffle(rooms)
    return tuple(rooms)
