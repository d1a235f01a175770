"""Questions about the built-in encyclopaedias, as rows of HotpotQA's file format.

    row = generate_row("hotpotqa", "train", 17)
    row["question"]          # "Who is the father of the mayor of Salt Harbour?"
    row["supporting_facts"]  # [["Salt Harbour", 1], ["Clara Barlow", 1]]

The names in a question lead to the first pages alone. Every further page is named on an earlier one, and the answer
stands on the last: it takes a search per hop, and no search with the question's own words finds the last page.
Comparisons ask for a third thing, because one of two can be guessed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from steppo_gym.envs.multihop_qa.built_in.encyclopaedia import NUM_ENCYCLOPAEDIAS, Encyclopaedia, encyclopaedia
from steppo_gym.envs.multihop_qa.built_in.question_kinds import Hops, bridge_comparison, chain, comparison, inference
from steppo_gym.envs.multihop_qa.scoring import DATASETS, Dataset
from steppo_gym.keywords import check_split

SPLIT_SIZES = {"train": 8000, "validation": 400, "test": 400}

MIXES: dict[Dataset, tuple[str, ...]] = {
    "hotpotqa": ("bridge",) * 4 + ("comparison",),
    "2wikimultihopqa": ("compositional", "inference", "comparison", "compositional", "bridge_comparison"),
    "musique": ("2hop", "3hop", "2hop", "4hop", "2hop"),
}
"""Kinds of questions of each data set, under its own names; a split runs through them in turn."""

_NUM_DISTRACTORS = 8
_KINDS = {
    "bridge": lambda rng, world: chain(rng, world, 2),
    "compositional": lambda rng, world: chain(rng, world, 2),
    "2hop": lambda rng, world: chain(rng, world, 2),
    "3hop": lambda rng, world: chain(rng, world, 3),
    "4hop": lambda rng, world: chain(rng, world, 4),
    "inference": inference,
    "comparison": comparison,
    "bridge_comparison": bridge_comparison,
}


def task_ids(dataset: Dataset, split: str) -> tuple[str, ...]:
    """Ids of a split's questions, `<data set>/<split>/<number>`; the first ones are a fair sample."""
    check_split(split, SPLIT_SIZES)
    return tuple(f"{dataset}/{split}/{index:05d}" for index in range(SPLIT_SIZES[split]))


def world_number(dataset: Dataset, split: str, index: int) -> int:
    """The encyclopaedia that a question is about."""
    return index // len(MIXES[dataset]) % NUM_ENCYCLOPAEDIAS[split]


def generate_row(dataset: Dataset, split: str, index: int) -> dict[str, Any]:
    """One question.

    Args:
        dataset: whose mix of kinds.
        split: a key of `SPLIT_SIZES`.
        index: below `SPLIT_SIZES[split]`.

    Returns:
        A row as in `hotpot_train_v1.1.json`.
    """
    world = encyclopaedia(split, world_number(dataset, split, index))
    rng = np.random.default_rng([DATASETS.index(dataset), tuple(SPLIT_SIZES).index(split), index])
    kind = MIXES[dataset][index % len(MIXES[dataset])]
    hops: Hops | None = None
    while hops is None:
        hops = _KINDS[kind](rng, world)
    return {
        "_id": f"{dataset}/{split}/{index:05d}",
        "question": hops.question,
        "answer": hops.answer,
        "type": kind,
        "level": "hard",
        "supporting_facts": [[title, sentence] for title, sentence in hops.facts],
        "context": [[title, list(world.sentences(title))] for title in _context_titles(rng, world, hops)],
    }


def _context_titles(rng: np.random.Generator, world: Encyclopaedia, hops: Hops) -> list[str]:
    """The pages the question needs among pages it does not need, in a drawn order."""
    needed = list(dict.fromkeys(title for title, _ in hops.facts))
    others = [title for title in world.things if title not in needed]
    titles = needed + [others[i] for i in rng.choice(len(others), _NUM_DISTRACTORS, replace=False)]
    return [titles[i] for i in rng.permutation(len(titles))]
