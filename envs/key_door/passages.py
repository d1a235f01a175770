"""The way to the hall: steps before the game, some of which decide and some of which do not.

At a fork a sign names a colour, and two ways lead on. Whoever takes the other one is astray: the game goes on as
before, but no key will fit, so that the mistake is paid for at the end alone. At a bend there is no sign and both ways
are the same. Forks and bends are drawn in a mixed order from the task's id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from steppo_gym.envs.key_door.actions import COLOURS
from steppo_gym.snapshot import bad_snapshot

MAX_PASSAGES = 1000


@dataclass(frozen=True)
class Passage:
    """One step of the way."""

    ways: tuple[str, str]
    """The colours of its two ways, as they are listed."""
    right: str | None
    """The one that the sign names; None at a bend."""


@dataclass(frozen=True)
class Progress:
    """How far the way has been gone."""

    passed: int = 0
    astray: bool = False
    """Whether a wrong way was taken at a fork."""


def generate_passages(task_id: str, *, forks: int, bends: int) -> tuple[Passage, ...]:
    """The way of a task, always the same for the same numbers.

    Args:
        task_id: of the task.
        forks: passages with a sign.
        bends: passages without.
    """
    rng = np.random.default_rng([forks, bends, *task_id.encode()])
    decides = rng.permutation([True] * forks + [False] * bends).tolist()
    passages = []
    for decisive in decides:
        first, second = (COLOURS[i] for i in rng.permutation(len(COLOURS))[:2])
        sign = (first, second)[int(rng.integers(2))]
        passages.append(Passage((first, second), sign if decisive else None))
    return tuple(passages)


def take_way(passage: Passage, progress: Progress, way: str) -> Progress:
    """Go on by one of the passage's two ways."""
    wrong = passage.right is not None and way != passage.right
    return replace(progress, passed=progress.passed + 1, astray=progress.astray or wrong)


def expert_way(passage: Passage) -> str:
    """The way that the sign names, the first one at a bend."""
    return passage.right or passage.ways[0]


def read_way(passage: Passage, text: str) -> str | None:
    """The way that "go COLOUR" takes here, None if it is no such text. Case, blanks and "the" do not matter."""
    match [word for word in text.lower().split() if word != "the"]:
        case ["go", colour] if colour in passage.ways:
            return colour
        case _:
            return None


def way_texts(passage: Passage) -> tuple[str, ...]:
    """The actions of a passage."""
    return tuple(f"go {way}" for way in passage.ways)


def describe(passage: Passage) -> str:
    """What is seen there."""
    sign = "There is no sign." if passage.right is None else f"The sign says {passage.right}."
    return f"{sign} Ways: {', '.join(passage.ways)}."


def require_progress(passages: tuple[Passage, ...], progress: Progress) -> None:
    """Raise a DataError if nobody can have come so far in this way."""
    if progress.passed > len(passages):
        raise bad_snapshot(f"expected at most {len(passages)} passages, found {progress.passed}")
    if progress.astray and not any(passage.right for passage in passages[: progress.passed]):
        raise bad_snapshot("expected no wrong way where no fork was passed, found one")
