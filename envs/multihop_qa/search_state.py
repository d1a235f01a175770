"""What an agent has searched for, found and answered."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TypedDict

from steppo_gym.envs.multihop_qa.questions import Paragraph
from steppo_gym.retrieval import Passage
from steppo_gym.snapshot import bad_snapshot


class SavedSearches(TypedDict):
    """What `SearchState.get_state` returns, JSON-serialisable."""

    passages: list[tuple[str, str, str]]
    """Id, title and text."""
    queries: list[str]
    problems: list[str]
    answer: str | None
    repeats: int


class SearchState:
    """All that searches and the answer change.

    Args:
        same_texts: whether the corpus has the data's own paragraphs, which are told apart by title and text; in another
            corpus the texts differ, and a supporting passage is known by its title alone.
    """

    def __init__(self, *, same_texts: bool) -> None:
        self.same_texts = same_texts
        self.passages: list[Passage] = []
        """Found so far, each title and text once, oldest first."""
        self.queries: list[str] = []
        """The agent's searches, oldest first."""
        self.problems: list[str] = []
        """Why responses were invalid, oldest first."""
        self.answer: str | None = None
        self.num_repeats = 0
        """Searches for the same words as an earlier one."""
        self.identities: set[tuple[str, str]] = set()
        """Title and text of the passages found."""

    def add(self, queries: Sequence[str], found: Sequence[Sequence[Passage]]) -> list[list[Passage]]:
        """Note searches and what each of them found; return what is new of it."""
        for query in queries:
            words = _words(query)
            self.num_repeats += any(words == _words(earlier) for earlier in self.queries)
            self.queries.append(query)
        return [self.find(passages) for passages in found]

    def find(self, passages: Sequence[Passage]) -> list[Passage]:
        """Note passages that were found; return those that are new."""
        new = []
        for passage in passages:
            identity = (passage.title, passage.text)
            if identity not in self.identities:
                self.identities.add(identity)
                new.append(passage)
        self.passages += new
        return new

    def has(self, paragraph: Paragraph) -> bool:
        """Whether a paragraph of the data is among the passages found."""
        if self.same_texts and paragraph.text:
            return (paragraph.title, paragraph.text) in self.identities
        return _words(paragraph.title) in {_words(passage.title) for passage in self.passages}

    def others(self, paragraphs: Sequence[Paragraph]) -> list[Passage]:
        """The passages found that are none of these paragraphs."""
        titles = {_words(paragraph.title) for paragraph in paragraphs}
        return [passage for passage in self.passages if _words(passage.title) not in titles]

    def get_state(self) -> SavedSearches:
        """`from_state` reads it back."""
        return {
            "passages": [(passage.id, passage.title, passage.text) for passage in self.passages],
            "queries": self.queries.copy(),
            "problems": self.problems.copy(),
            "answer": self.answer,
            "repeats": self.num_repeats,
        }

    @classmethod
    def from_state(cls, state: SavedSearches, *, same_texts: bool) -> SearchState:
        """The state that `get_state` wrote.

        Raises:
            DataError: more searches are said to be repeats than there are.
        """
        if state["repeats"] > len(state["queries"]):
            raise bad_snapshot(f"expected no more repeats than queries, found {state['repeats']}")
        restored = cls(same_texts=same_texts)
        restored.find([Passage(*fields) for fields in state["passages"]])
        restored.queries = list(state["queries"])
        restored.problems = list(state["problems"])
        restored.answer = state["answer"]
        restored.num_repeats = state["repeats"]
        return restored


def _words(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())
