"""Episodes to be told anew, and what has to stay as it was."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from steppo_gym.env import TextEnv


def episode(env: TextEnv, task_id: str, seed: int = 0) -> tuple[list[str], bool]:
    """Observations and the expert's responses in turn, the last observation left out; and whether it was solved."""
    observation, info = env.reset(seed=seed, options={"task_id": task_id})
    texts, over = [observation], False
    while not over:
        response = env.expert_response()
        observation, _, terminated, truncated, info = env.step(response)
        over = terminated or truncated
        texts += [response, observation]
    return texts[:-1], info["success"]


def exchanged(texts: Sequence[str], told: Sequence[str], piece: re.Pattern[str]) -> list[tuple[str, str]]:
    """Which piece became which, wherever it stands; what stands between the pieces has to be the same."""
    assert len(texts) == len(told)
    pairs = []
    for before, after in zip(texts, told, strict=True):
        assert piece.sub("_", before) == piece.sub("_", after)
        pairs += zip(piece.findall(before), piece.findall(after), strict=True)
    return pairs


def assert_one_to_one(pairs: Sequence[tuple[str, str]]) -> None:
    """Each became one other, and no two the same."""
    different = set(pairs)
    assert len({old for old, _ in different}) == len(different) == len({new for _, new in different})


def assert_told_alike(texts: Sequence[str], tell: Callable[[random.Random], list[str]]) -> None:
    """The names come from the generator alone, and another one draws others."""
    assert tell(random.Random(1)) == tell(random.Random(1))
    assert len({tuple(tell(random.Random(seed))) for seed in range(5)} | {tuple(texts)}) == 6
