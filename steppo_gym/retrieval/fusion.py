"""Several retrievers as one, by the ranks of what they find.

    retriever = FusedRetriever([open_retriever("corpus.jsonl"), dense])

Only ranks count, so scores of different kinds need no common scale.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from math import fsum

from steppo_gym.retrieval.retriever import Hit, Passage, Retriever, check_search

RANK_CONSTANT = 60


def reciprocal_rank_fusion(rankings: Sequence[Sequence[str]], *, constant: int = RANK_CONSTANT) -> dict[str, float]:
    """Score of every id in the rankings: the sum of 1 / (constant + rank), ranks from 1.

    Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
    SIGIR 2009.

    Args:
        rankings: ids, best first, each at most once in a ranking.
        constant: how little the first ranks stand out.

    Returns:
        Ids and scores, best first; equal scores in the order in which the rankings, first to last, name them.
    """
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for ranking in rankings:
        for rank, identity in enumerate(ranking, start=1):
            shares[identity].append(1.0 / (constant + rank))
    # fsum, so that equal ranks in another order are an exact tie.
    scores = {identity: fsum(parts) for identity, parts in shares.items()}
    return dict(sorted(scores.items(), key=lambda item: -item[1]))


class FusedRetriever:
    """Searches with several retrievers over one corpus and fuses their rankings.

    Args:
        retrievers: their passages are the same if their ids are. Closed with this one.
        depth: hits taken from each of them, or `k` if that is more.

    Raises:
        ValueError: no retriever, or a depth below 1.
    """

    def __init__(self, retrievers: Sequence[Retriever], *, depth: int = 100) -> None:
        if not retrievers or depth < 1:
            raise ValueError(f"Expected a retriever and a depth of at least 1, got {len(retrievers)} and {depth}.")
        self._retrievers = tuple(retrievers)
        self._depth = depth

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. The scores are those of `reciprocal_rank_fusion`."""
        check_search(queries, k)
        found = [retriever.search(queries, max(k, self._depth)) for retriever in self._retrievers]
        return [_fuse(lists)[:k] for lists in zip(*found, strict=True)]

    def close(self) -> None:
        """Close the retrievers."""
        for retriever in self._retrievers:
            retriever.close()


def _fuse(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    passages: dict[str, Passage] = {hit.passage.id: hit.passage for hits in lists for hit in hits}
    scores = reciprocal_rank_fusion([[hit.passage.id for hit in hits] for hits in lists])
    return [Hit(passages[identity], score) for identity, score in scores.items()]
