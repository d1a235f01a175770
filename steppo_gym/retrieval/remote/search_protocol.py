r"""The messages between search client and server: those of Search-R1's `/retrieve`.

    POST /retrieve  {"queries": ["..."], "topk": 3, "return_scores": true}
    200             {"result": [[{"document": {"id": "17", "contents": "\"Title\"\nText"}, "score": 7.5}]]}

One list per query, in their order. Without `return_scores` the list holds the bare documents; without `topk`, or with 0
or null, the server's default counts. Source: search_r1/search/retrieval_server.py of
https://github.com/PeterGriffinJin/Search-R1 at commit a14dc3a. Documents of this server also have "title" and "text";
the client prefers them, because a title with a line break does not survive in "contents".
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steppo_gym.quoting import valid_text
from steppo_gym.retrieval.corpus import join_contents, split_contents
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS, Hit, Passage
from steppo_gym.storage.retrying_client import UnreadableAnswerError, is_number, shorten

DEFAULT_TOPK = 3
MAX_HITS = 10_000
"""In one answer: about 20 MB of passages of 100 words."""


@dataclass(frozen=True)
class RequestLimits:
    """What one request to the server may ask for."""

    max_body_bytes: int = 8_000_000
    max_queries: int = 256
    max_query_characters: int = MAX_QUERY_CHARACTERS
    max_topk: int = 1000
    max_hits: int = MAX_HITS
    """Of all queries together."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")


@dataclass(frozen=True)
class SearchRequest:
    """A request that is within the limits."""

    queries: tuple[str, ...]
    topk: int
    return_scores: bool


class BadRequestError(Exception):
    """The request is not what the server expects; the message says why."""


def request_message(queries: Sequence[str], k: int) -> dict[str, Any]:
    """What the client sends. Scores are always asked for: without, the original server fails on most requests."""
    return {"queries": list(queries), "topk": int(k), "return_scores": True}


def result_message(found: Sequence[Sequence[Hit]], *, return_scores: bool) -> dict[str, Any]:
    """What the server answers."""
    return {"result": [[_item(hit, return_scores) for hit in hits] for hits in found]}


def read_request(body: bytes, limits: RequestLimits, default_topk: int = DEFAULT_TOPK) -> SearchRequest:
    """The request in a body. Unknown fields are ignored.

    Raises:
        BadRequestError: it is not a request, or is outside the limits.
    """
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("Expected a JSON object.") from None
    if not isinstance(message, dict):
        raise BadRequestError(f"Expected a JSON object, found {shorten(message)}.")
    queries, topk = message.get("queries"), message.get("topk")
    return_scores = message.get("return_scores", False)
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise BadRequestError(f'Expected "queries" to be a list of strings, found {shorten(queries)}.')
    if len(queries) > limits.max_queries:
        raise BadRequestError(f"Expected at most {limits.max_queries} queries, found {len(queries)}.")
    longest = max(map(len, queries), default=0)
    if longest > limits.max_query_characters:
        raise BadRequestError(f"Expected at most {limits.max_query_characters} characters a query, found {longest}.")
    if topk is not None and (type(topk) is not int or not 0 <= topk <= limits.max_topk):
        raise BadRequestError(f'Expected "topk" to be null or from 0 to {limits.max_topk}, found {shorten(topk)}.')
    if type(return_scores) is not bool:
        raise BadRequestError(f'Expected "return_scores" to be true or false, found {shorten(return_scores)}.')
    if len(queries) * (topk := topk or default_topk) > limits.max_hits:
        raise BadRequestError(
            f"Expected queries times topk to be at most {limits.max_hits}, found {len(queries)} times {topk}."
        )
    return SearchRequest(tuple(queries), topk, return_scores)


def read_result(text: str, num_queries: int, k: int) -> list[list[Hit]]:
    """The hits in a server's answer to a request with scores; at most `k` for each query.

    Raises:
        UnreadableAnswerError: it is something else.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableAnswerError(f"the answer {shorten(text)}, which is not JSON") from None
    result = message.get("result") if isinstance(message, dict) else None
    if not isinstance(result, list) or len(result) != num_queries or not all(isinstance(hits, list) for hits in result):
        raise UnreadableAnswerError(f"an answer without {num_queries} lists in its result: {shorten(text)}")
    return [[_read_item(item) for item in hits[:k]] for hits in result]


def _item(hit: Hit, return_scores: bool) -> dict[str, Any]:
    passage = hit.passage
    document = {
        "id": passage.id,
        "contents": join_contents(passage),
        "title": passage.title,
        "text": passage.text,
    }
    return {"document": document, "score": hit.score} if return_scores else document


def _read_item(item: object) -> Hit:
    match item:
        case {"document": {"id": str() | int() as identity, **document}, "score": int() | float() as score}:
            if type(identity) is not bool and is_number(score):
                return Hit(Passage(valid_text(str(identity)), *_title_and_text(document, item)), float(score))
        case _:
            pass
    raise UnreadableAnswerError(f"an answer with {shorten(item)} in place of a document with an id and a score")


def _title_and_text(document: dict[str, Any], item: object) -> tuple[str, str]:
    match document:
        case {"title": str(title), "text": str(text)}:
            return valid_text(title), valid_text(text)
        case {"contents": str(contents)}:
            return split_contents(valid_text(contents))
        case _:
            raise UnreadableAnswerError(f"an answer with {shorten(item)}, a document without contents")
