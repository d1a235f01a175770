"""What can be had on the built-in questions without searching step by step: policies that they must defeat.

    python benchmarks/multihop_qa_controls.py --top-k 5 --questions 400

A score is the chance of an exact match, computed rather than sampled.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from steppo_gym.envs.multihop_qa.built_in.encyclopaedia import Encyclopaedia, encyclopaedia
from steppo_gym.envs.multihop_qa.built_in.generate import world_number
from steppo_gym.envs.multihop_qa.data import ProceduralQuestions
from steppo_gym.envs.multihop_qa.questions import Question
from steppo_gym.envs.multihop_qa.scoring import DATASETS, Dataset
from steppo_gym.retrieval import Retriever

CONTROLS = (
    "name in the question",
    "random of the right sort",
    "one search, random of the right sort",
    "one search, oracle",
    "best one search, oracle",
)
"""Answers drawn from: the names in the question; all names (or years) of the answer's sort in the encyclopaedia; those
on the pages that a search for the question finds. The oracle answers right if any page of that search has the answer;
the best search is for the question or for one of its names, whichever has it."""

_YEAR = re.compile(r"\b(?:18|19)\d\d\b")


def control_scores(dataset: Dataset, split: str, *, num_questions: int, top_k: int) -> dict[str, dict[str, float]]:
    """Exact match of every control by kind of question, from 0 to 1."""
    questions = ProceduralQuestions(dataset, split)
    scored: dict[str, list[dict[str, float]]] = defaultdict(list)
    for index, task_id in enumerate(questions.task_ids[:num_questions]):
        question = questions.load(task_id)
        world = encyclopaedia(split, world_number(dataset, split, index))
        scored[question.kind].append(_chances(question, world, questions.retriever(task_id), top_k))
    return {
        kind: {control: sum(chances[control] for chances in rows) / len(rows) for control in CONTROLS}
        for kind, rows in scored.items()
    }


def _chances(question: Question, world: Encyclopaedia, retriever: Retriever, top_k: int) -> dict[str, float]:
    answer = question.answers[0]
    kinds = {thing.name: thing.kind for thing in world.things.values()}
    named = _names_in(question.text, kinds)
    sort = _sort(answer, kinds)
    queries = [question.text, *named]
    found = [" ".join(hit.passage.text for hit in hits) for hits in retriever.search(queries, top_k)]
    shown = [name for name in _values_in(found[0], kinds) if _sort(name, kinds) == sort and name not in named]
    everything = set(kinds) | {str(t.year) for t in world.things.values()}
    return {
        "name in the question": _chance(answer, named),
        "random of the right sort": _chance(answer, [name for name in everything if _sort(name, kinds) == sort]),
        "one search, random of the right sort": _chance(answer, shown),
        "one search, oracle": float(answer in found[0]),
        "best one search, oracle": float(any(answer in text for text in found)),
    }


def _chance(answer: str, choices: Collection[str]) -> float:
    return (answer in choices) / len(choices) if choices else 0.0


def _sort(value: str, kinds: Mapping[str, str]) -> str:
    return kinds.get(value, "year")


def _names_in(text: str, kinds: Collection[str]) -> list[str]:
    words = re.findall(r"\w+", text)
    pairs = (f"{one} {other}" for one, other in itertools.pairwise(words))
    return list(dict.fromkeys(pair for pair in pairs if pair in kinds))


def _values_in(text: str, kinds: Collection[str]) -> Sequence[str]:
    return [*_names_in(text, kinds), *dict.fromkeys(_YEAR.findall(text))]


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--questions", type=int, default=400, help="the first ones of the split")
    parser.add_argument("--top-k", type=int, default=5, help="passages per search")
    options = parser.parse_args()
    print(f"| exact match, {options.split}, top {options.top_k} | {' | '.join(CONTROLS)} |")
    print("|---" * (len(CONTROLS) + 1) + "|")
    for dataset in DATASETS:
        scores = control_scores(dataset, options.split, num_questions=options.questions, top_k=options.top_k)
        for kind, row in scores.items():
            print(f"| {dataset}: {kind} | {' | '.join(f'{row[control]:.3f}' for control in CONTROLS)} |")


if __name__ == "__main__":
    main()
