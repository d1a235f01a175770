"""Texts of answers of the Semantic Scholar Graph API, read and checked; see `records` beside this file.

What is not an answer of the API raises `UnreadableAnswerError`, after which the client asks again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from steppo_gym.envs.paper_search.semantic_scholar.records import Page, Record, read_page
from steppo_gym.storage.retrying_client import UnreadableAnswerError, shorten


def checked(status: int, text: str, read: Callable[[str], object]) -> tuple[int, str]:
    """The answer, if it can be read: no other one is kept."""
    if status == 404:
        _read_not_found(text)
    else:
        read(text)
    return status, text


def _read_not_found(text: str) -> None:
    """A paper that is unknown says so as JSON; any other 404 is of a server that is another one or not ready."""
    if not isinstance(_read_json(text).get("error"), str):
        raise UnreadableAnswerError(f"HTTP 404 without a reason, {shorten(text)}")


def read_object(text: str) -> Record:
    """One object, such as a paper."""
    record = _read_json(text)
    if "error" in record:
        raise UnreadableAnswerError(f"an error with status 200, {shorten(record['error'])}")
    return record


def read_page_text(text: str) -> Page:
    """A page of a list."""
    try:
        return read_page(read_object(text))
    except ValueError as error:
        raise UnreadableAnswerError(f"{shorten(text)} ({error})") from None


def _read_json(text: str) -> dict[str, Any]:
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise UnreadableAnswerError(f"{shorten(text)}, which is not JSON") from None
    if not isinstance(message, dict):
        raise UnreadableAnswerError(f"{shorten(text)} where a JSON object was expected")
    return message
