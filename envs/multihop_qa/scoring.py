"""Answer scores, number for number those of the official evaluation scripts.

HotpotQA: `hotpot_evaluate_v1.py` of hotpotqa/hotpot. 2WikiMultihopQA: `2wikimultihop_evaluate_v1.1.py` of
Alab-NII/2wikimultihop, whose answer scores are HotpotQA's. MuSiQue: `metrics/answer.py` of StonyBrookNLP/musique, which
follows SQuAD. All three normalise alike and differ in F1 alone; with several gold answers the best score counts.

>>> scores("the Beatles.", ["Beatles", "The Fab Four"], "musique")
AnswerScores(em=1.0, f1=1.0)
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Dataset = Literal["hotpotqa", "2wikimultihopqa", "musique"]
DATASETS: tuple[Dataset, ...] = get_args(Dataset)

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CLOSED_ANSWERS = ("yes", "no", "noanswer")


@dataclass(frozen=True)
class AnswerScores:
    """Exact match and token F1, each from 0 to 1."""

    em: float
    f1: float


def scores(prediction: str, gold_answers: Sequence[str], dataset: Dataset) -> AnswerScores:
    """The best scores over the gold answers.

    Args:
        prediction: the answer given.
        gold_answers: the answer and its aliases, at least one.
        dataset: whose official script to follow.
    """
    f1 = _squad_f1 if dataset == "musique" else _hotpot_f1
    return AnswerScores(
        em=max(exact_match(prediction, gold) for gold in gold_answers),
        f1=max(f1(normalize(prediction), normalize(gold)) for gold in gold_answers),
    )


def normalize(answer: str) -> str:
    """Lower case, without ASCII punctuation, without English articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(prediction: str, gold: str) -> float:
    """1 if both are equal once normalised, else 0."""
    return float(normalize(prediction) == normalize(gold))


def _hotpot_f1(prediction: str, gold: str) -> float:
    """HotpotQA's: "yes", "no" and "noanswer" match whole or not at all, and two empty answers score 0."""
    if prediction != gold and (prediction in _CLOSED_ANSWERS or gold in _CLOSED_ANSWERS):
        return 0.0
    return _token_f1(prediction.split(), gold.split())


def _squad_f1(prediction: str, gold: str) -> float:
    """SQuAD's: where one side is empty, 1 if both are."""
    if not prediction or not gold:
        return float(prediction == gold)
    return _token_f1(prediction.split(), gold.split())


def _token_f1(prediction: list[str], gold: list[str]) -> float:
    shared = sum((Counter(prediction) & Counter(gold)).values())
    if shared == 0:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
