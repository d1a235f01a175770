"""Rules of the protocols, what a call is worth, and the scores of a list of papers.

The rules are those of the StepPO recipe for paper search (AgentR1/StepPO, recipe/paper_search), the scores those of its
evaluation, except that a query without a result counts as zero there too instead of being left out of the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from steppo_gym.envs.paper_search.paper_ids import canonical_id
from steppo_gym.envs.paper_search.papers import Query
from steppo_gym.protocol import EnvProtocol

CUTS: tuple[int | None, ...] = (None, 100, 50, 25)
"""How many of the best papers count; None counts all."""

SUCCESS_RECALL = 0.8
"""A query counts as solved when this share of its answers is in the pool."""


@dataclass(frozen=True)
class PaperSearchProtocol(EnvProtocol):
    """The rules of one published way to search for papers."""

    max_calls: int
    """Most calls in one response."""
    search_hits: int
    """Papers that a search returns at most."""
    citations: int
    """Citing papers that an expansion returns at most."""
    references: int
    """Cited papers that an expansion returns at most."""
    lowest_score: float
    """A paper is admitted to the pool if its relevance is at least this."""
    rewarded_papers: int
    """How many of the newly admitted papers of a call pay their relevance, the best ones."""
    useless_call_reward: float
    """Of a query asked before, and of expanding a paper that is not in the pool or was expanded before."""
    listed_papers: int
    """How many of the best expanded papers, and how many of the others, an observation shows."""
    abstract_words: int
    """Longest abstract shown."""


PROTOCOLS = {
    "steppo": PaperSearchProtocol(
        max_steps=5,
        success_reward=0.0,
        invalid_action_reward=0.0,
        history_length=None,
        max_calls=5,
        search_hits=10,
        citations=30,
        references=99,
        lowest_score=0.01,
        rewarded_papers=3,
        useless_call_reward=-0.5,
        listed_papers=10,
        abstract_words=400,
    ),
}


def call_reward(scores: Iterable[float], protocol: PaperSearchProtocol) -> float:
    """What a search or an expansion pays for the relevance of the papers it has newly brought into the pool."""
    return float(sum(sorted(scores, reverse=True)[: protocol.rewarded_papers]))


@dataclass(frozen=True)
class ListScores:
    """How well a list of papers answers a query, each from 0 to 1."""

    precision: float
    recall: float
    f1: float


NOTHING_FOUND = ListScores(0.0, 0.0, 0.0)


def list_scores(found: Sequence[str], answers: Sequence[str], cut: int | None = None) -> ListScores:
    """Precision, recall and F1 of the first papers of a list.

    Ids are compared without arXiv versions (see `canonical_id`), and each counts once. An empty list has precision 0,
    and so does every score where there are no answers.

    Args:
        found: ids of papers, best first.
        answers: ids of the papers asked for.
        cut: how many of `found` count, None for all; repeated ids do not use up places.

    Raises:
        ValueError: `cut` is below 1.
    """
    if cut is not None and cut < 1:
        raise ValueError(f"cut must be at least 1 or None, got {cut}.")
    distinct = list(dict.fromkeys(canonical_id(paper_id) for paper_id in found))[:cut]
    wanted = {canonical_id(paper_id) for paper_id in answers}
    hits = len(wanted.intersection(distinct))
    if not hits:
        return NOTHING_FOUND
    precision, recall = hits / len(distinct), hits / len(wanted)
    return ListScores(precision, recall, 2 * precision * recall / (precision + recall))


def cut_metrics(found: Sequence[str], answers: Sequence[str]) -> dict[str, float]:
    """`precision`, `recall` and `f1` of the whole list, and the same with "@100", "@50" and "@25"."""
    metrics = {}
    for cut in CUTS:
        scores = list_scores(found, answers, cut)
        suffix = "" if cut is None else f"@{cut}"
        metrics[f"precision{suffix}"] = scores.precision
        metrics[f"recall{suffix}"] = scores.recall
        metrics[f"f1{suffix}"] = scores.f1
    return metrics


def macro_average(results: Mapping[str, Sequence[str]], queries: Sequence[Query]) -> dict[str, float]:
    """The mean over all queries of each of `cut_metrics`.

    Args:
        results: ids of papers, best first, by `query_id`; where one is missing nothing was found.
        queries: at least one.

    Raises:
        ValueError: there are no queries, or a result is of none of them.
    """
    if not queries:
        raise ValueError("Expected at least one query to average over, got none.")
    unknown = sorted(results.keys() - {query.query_id for query in queries})
    if unknown:
        raise ValueError(
            f"Expected results of the queries given, got {len(unknown)} others, for example {unknown[0]!r}."
        )
    every = [cut_metrics(results.get(query.query_id, ()), query.answers) for query in queries]
    return {name: sum(metrics[name] for metrics in every) / len(every) for name in every[0]}
