"""What retrievers over an index in a folder have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steppo_gym.retrieval.corpus import Passages
from steppo_gym.retrieval.index_folder import reading
from steppo_gym.retrieval.retriever import Hit, check_search


class LocalIndex:
    """A `Retriever` that answers one query after the other; subclasses say how.

    Args:
        folder: holds the passages, and the files of the engine.

    Raises:
        DataError: the files of the passages do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._passages = Passages(folder)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and another process, opens the same folder."""
        return type(self), (self._folder,)

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. The scores are the engine's."""
        check_search(queries, k)
        with reading(self._folder):
            return [self._search(query, k) for query in queries]

    def close(self) -> None:
        """Does nothing: the index is shared, and is released with the last one who uses it."""

    def _search(self, query: str, k: int) -> list[Hit]:
        """The hits of one query."""
        raise NotImplementedError
