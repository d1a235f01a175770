"""What a retriever is: texts of passages in, the best passages for each query out.

    (hits,) = retriever.search(["Who directed Doctor Strange?"], k=5)
    print(hits[0].passage.title, hits[0].score)

`steppo_gym.retrieval.open_retriever` makes one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from steppo_gym.keywords import check_count

MAX_QUERY_CHARACTERS = 10_000
"""What a query has beyond these is not searched for: it bounds the work that a text of unknown origin can cause."""


@dataclass(frozen=True)
class Passage:
    """A piece of text that can be found."""

    id: str
    """Unique within its corpus."""
    title: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found, and how well it fits the query; higher is better."""

    passage: Passage
    score: float


class Retriever(Protocol):
    """Finds passages for queries, several at once. Safe to use from several threads."""

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """The best passages for each query.

        Args:
            queries: any texts, of which the first `MAX_QUERY_CHARACTERS` count; one that shares no word with the corpus
                has no hits.
            k: at most this many hits per query.

        Returns:
            One list per query, in the order of the queries. Hits are in the order of their scores, best first; equal
            scores in the order of the corpus.

        Raises:
            ValueError: `k` is below 1 or no whole number.
            TypeError: something else than a list of texts.
            InfrastructureError: a search server gave no answer, boundary "search".
        """
        ...

    def close(self) -> None:
        """Release what this retriever alone holds; a second call changes nothing."""
        ...


def check_search(queries: Sequence[str], k: int) -> None:
    """Raise unless these are queries and a number of hits one can ask for."""
    check_k(k)
    # A text is a sequence of its letters, and would be searched for letter by letter.
    if isinstance(queries, str):
        raise TypeError(f"Expected a list of queries, got the text {queries!r:.80}. Pass it in a list.")
    if not hasattr(queries, "__len__") or not all(isinstance(query, str) for query in queries):
        raise TypeError(f"Expected a list of queries, each a text, got {queries!r:.80}.")


def check_k(k: int) -> None:
    """Raise ValueError unless `k` is a number of hits one can ask for."""
    check_count("k", k)
