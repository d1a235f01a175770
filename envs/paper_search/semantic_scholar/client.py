"""Papers from the Semantic Scholar Graph API, or from a server with its shape such as `steppo-gym serve-papers`.

    papers = SemanticScholar()                           # $PAPER_SEARCH_BASE_URL, else the official server
    papers = SemanticScholar("http://127.0.0.1:4000")
    papers.search("chain of thought", limit=10, until="2023-05-01")

Every answer of the official server is kept on disk and never asked for again: training is repeatable, and polite to a
server that everybody shares. What another address serves may be another corpus tomorrow, so its answers are kept only
in a file that is named. An API key is taken from $S2_API_KEY and sent as the header `x-api-key`. The answers are
described in `steppo_gym.envs.paper_search.semantic_scholar.records` and at https://api.semanticscholar.org/api-docs/graph.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlencode

from steppo_gym.envs.paper_search.papers import Paper, arxiv_id_without_version, published_by
from steppo_gym.envs.paper_search.semantic_scholar.records import (
    FIELDS,
    LIST_DEPTH,
    LIST_PAGE,
    SEARCH_DEPTH,
    SEARCH_PAGE,
    Record,
    arxiv_month,
    paper_of,
)
from steppo_gym.envs.paper_search.semantic_scholar.response_cache import ResponseCache
from steppo_gym.envs.paper_search.semantic_scholar.texts import checked, read_object, read_page_text
from steppo_gym.errors import InfrastructureError
from steppo_gym.keywords import path_of
from steppo_gym.quoting import valid_text
from steppo_gym.retrieval.retriever import check_k
from steppo_gym.storage.cache import cache_dir
from steppo_gym.storage.retrying_client import STEP_WAIT_SECONDS, MadeAnew, RetryingClient, UnreadableAnswerError

OFFICIAL_URL = "https://api.semanticscholar.org/graph/v1"
URL_VARIABLE = "PAPER_SEARCH_BASE_URL"
KEY_VARIABLE = "S2_API_KEY"

MAX_QUERY_CHARACTERS = 1000
"""What a query has beyond these is not sent: it would not fit into an address."""

_PLAIN_ID = re.compile(r"[!-~]{1,200}")
_RESERVED = frozenset({"search", "batch", "autocomplete"})
"""Words that stand where an id may stand."""
_FIELDS = ",".join(FIELDS)

T = TypeVar("T")


class SemanticScholar(MadeAnew):
    """A `PaperSource` over HTTP. Safe to use from several threads, and after a fork.

    What it finds is in the server's order: best first for a search, newest first for citations. Papers without an id or
    a title are left out, and of records with the same arXiv id all but the first.

    With the default arguments a server that does not answer is given up after about 45 seconds, before a worker process
    counts as hanging (see `steppo_gym.rollouts.pool.EnvPool`).

    Args:
        base_url: what comes before "/paper"; None takes $PAPER_SEARCH_BASE_URL, else the official server.
        api_key: None takes $S2_API_KEY; no key is sent where that is not set.
        cache: file of the answers that are kept; None takes one in the cache folder for the official server, and keeps
            none of others.
        timeout: seconds to wait for one answer.
        max_retries: how often a request is sent again after a timeout, a broken connection, status 408, 429 or 5xx, or
            an answer that makes no sense.
        max_concurrency: requests under way at the same time.
        min_interval: seconds from one request of this process to the next; None takes 1 for the official server, which
            asks for that, and 0 for others.

    Raises:
        ValueError: an argument outside its range.
        InfrastructureError: from the methods, the server refused the request or gave no good answer; boundary "search".
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key: str | None = None,
        cache: str | Path | None = None,
        timeout: float = 10.0,
        max_retries: int = 3,
        max_concurrency: int = 4,
        min_interval: float | None = None,
    ) -> None:
        self.url = (base_url or os.environ.get(URL_VARIABLE) or OFFICIAL_URL).rstrip("/")
        key = api_key or os.environ.get(KEY_VARIABLE)
        if min_interval is None:
            min_interval = 1.0 if self.url == OFFICIAL_URL else 0.0
        self._client = RetryingClient(
            self.url,
            "search",
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            headers={"x-api-key": key} if key else None,
            min_interval=min_interval,
            max_wait=STEP_WAIT_SECONDS,
        )
        if cache is None and self.url == OFFICIAL_URL:
            cache = cache_dir("semantic_scholar", "responses.sqlite")
        self._cache = None if cache is None else ResponseCache(path_of(cache))

    def search(self, query: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        # A server that knows this parameter sends fewer papers that are too late; which ones are is decided here.
        until_day = {"publicationDateOrYear": f":{until}"} if until else {}
        # The official server finds nothing for words with a hyphen.
        text = " ".join(valid_text(query)[:MAX_QUERY_CHARACTERS].replace("-", " ").split())
        if not text:
            return []
        return self._collect(
            "/paper/search",
            {"query": text, **until_day},
            limit,
            until,
            SEARCH_PAGE,
            SEARCH_DEPTH,
            lambda record: record,
        )

    def paper(self, paper_id: str) -> Paper | None:
        """See `PaperSource`."""
        if (place := _place(paper_id)) is None:
            return None
        return paper_of(self._get(f"{place}?{_query({'fields': _FIELDS})}", read_object))

    def citations(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        return self._neighbours(paper_id, "citations", "citingPaper", limit, until)

    def references(self, paper_id: str, *, limit: int, until: str = "") -> list[Paper]:
        """See `PaperSource`."""
        return self._neighbours(paper_id, "references", "citedPaper", limit, until)

    def close(self) -> None:
        """Close the connections and the cache; a second call changes nothing."""
        self._client.close()
        if self._cache is not None:
            self._cache.close()

    def _neighbours(self, paper_id: str, which: str, key: str, limit: int, until: str) -> list[Paper]:
        if (place := _place(paper_id)) is None:
            return []
        return self._collect(
            f"{place}/{which}", {}, limit, until, LIST_PAGE, LIST_DEPTH, lambda record: record.get(key)
        )

    def _collect(
        self,
        path: str,
        parameters: dict[str, str],
        limit: int,
        until: str,
        max_page: int,
        depth: int,
        paper_in: Callable[[Record], object],
    ) -> list[Paper]:
        """Read pages until there are `limit` papers, each page twice as long as the one before."""
        check_k(limit)
        found: dict[str, Paper] = {}
        size, offset = min(limit, max_page), 0
        while size > 0:
            page = self._get(f"{path}?{_query(parameters | _position(offset, size))}", read_page_text)
            if page is None:
                break
            for paper in _in_time(map(paper_of, map(paper_in, page.records)), until):
                found.setdefault(paper.paper_id, paper)
            # A server whose next page is no later one would be asked for ever.
            if len(found) >= limit or page.next is None or page.next <= offset:
                break
            offset = page.next
            size = min(2 * size, max_page, depth - offset)
        return list(found.values())[:limit]

    def _get(self, path: str, read: Callable[[str], T]) -> T | None:
        """What `read` makes of an answer, None where a paper is unknown; from the cache if it is there."""
        key = f"GET {self.url}{path}"
        answer = None if self._cache is None else self._cache.get(key)
        if answer is None:
            read_checked = partial(checked, read=read)
            # Only a paper can be unknown. What does not know its own addresses is another kind of server.
            expected = (200,) if path.startswith("/paper/search?") else (200, 404)
            answer = self._client.request("GET", path, read_checked, expected=expected)
            answer = answer if self._cache is None else self._cache.keep(key, *answer)
        status, text = answer
        if status == 404:
            return None
        try:
            return read(text)
        except UnreadableAnswerError as error:
            raise InfrastructureError("search", f"The answer to {key} cannot be read: {error}.") from error


def _in_time(papers: Iterable[Paper | None], until: str) -> list[Paper]:
    return [paper for paper in papers if paper and published_by(paper.date, until)]


def _place(paper_id: str) -> str | None:
    """Where a paper is on the server; None for a text that is the id of none, of which the server is not asked.

    A text of unknown origin must stay one part of the path: it must not lead elsewhere.
    """
    if not _PLAIN_ID.fullmatch(paper_id) or paper_id in _RESERVED or not paper_id.strip("."):
        return None
    server_id = _server_id(paper_id)
    # The server knows old arXiv ids with their slash as it is, as it does DOIs.
    return f"/paper/{quote(server_id, safe=':/' if arxiv_month(arxiv_id_without_version(paper_id)) else ':')}"


def _server_id(paper_id: str) -> str:
    """What the server calls a paper: arXiv ids get a prefix, other ids are as they are."""
    paper_id = arxiv_id_without_version(paper_id)
    return f"ARXIV:{paper_id}" if arxiv_month(paper_id) else paper_id


def _position(offset: int, limit: int) -> dict[str, str]:
    return {"fields": _FIELDS, "offset": str(offset), "limit": str(limit)}


def _query(parameters: dict[str, str]) -> str:
    return urlencode(parameters, safe=":,")
