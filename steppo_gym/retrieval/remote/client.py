"""A retriever behind a server with Search-R1's `/retrieve`, such as `steppo-gym serve-search`.

    with SearchClient("http://127.0.0.1:8000") as retriever:
        (hits,) = retriever.search(["Who directed Doctor Strange?"], k=5)

See `steppo_gym.retrieval.remote.search_protocol` for the messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from steppo_gym.retrieval.remote.search_protocol import MAX_HITS, read_result, request_message
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS, Hit, check_search
from steppo_gym.storage.retrying_client import STEP_WAIT_SECONDS, RetryingClient

_BATCH = 64
"""Queries in one request, fewer where they ask for many hits."""


class SearchClient:
    """Asks a search server. Safe to use from several threads, and after a fork.

    With the default arguments a server that does not answer is given up after 44 seconds, before a worker process
    counts as hanging (see `steppo_gym.rollouts.pool.EnvPool`).

    Args:
        base_url: where the server is, with or without the final "/retrieve".
        timeout: seconds to wait for one answer.
        max_retries: how often a request is sent again after a timeout, a broken connection, status 408, 429 or 5xx, or
            an answer that makes no sense.
        max_concurrency: requests under way at the same time when several threads search.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self, base_url: str, *, timeout: float = 10.0, max_retries: int = 3, max_concurrency: int = 16
    ) -> None:
        self.url = base_url.rstrip("/").removesuffix("/retrieve") + "/retrieve"
        self._client = RetryingClient(
            self.url,
            "search",
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            max_wait=STEP_WAIT_SECONDS,
        )

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. Order and scores are the server's.

        Raises:
            InfrastructureError: the server refused the request, or gave no good answer; boundary "search".
        """
        check_search(queries, k)
        found: list[list[Hit]] = []
        size = max(1, min(_BATCH, MAX_HITS // k))
        for start in range(0, len(queries), size):
            batch = [query[:MAX_QUERY_CHARACTERS] for query in queries[start : start + size]]
            read = partial(read_result, num_queries=len(batch), k=k)
            found += self._client.post(request_message(batch, k), read)
        return found

    def close(self) -> None:
        """Close the connections; a second call changes nothing."""
        self._client.close()

    def __enter__(self) -> SearchClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
