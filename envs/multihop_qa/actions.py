"""From a response to a search or an answer.

>>> parse_action("<think>Who directed it?</think><search> Golden Tower </search>", "tag", max_searches=4)
Search(queries=('Golden Tower',))
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from steppo_gym.actions import (
    MAX_RESPONSE_CHARS,
    ActionFormat,
    Call,
    Invalid,
    after_thought,
    format_tag,
    format_tool_call,
    parse_tag,
    parse_tool_calls,
    text_argument,
    text_tool,
)
from steppo_gym.quoting import one_line, valid_text

SEARCH, ANSWER = "search", "answer"
"""Names of the tags; in the tool-call format searching is a tool and answering stays a tag, as in the StepPO recipe."""
ARGUMENT = "query"

_RECIPE_NAMES = ("search", "wiki_search")
"""Names under which the StepPO recipe has the tool."""
_CALL_TAG = re.compile(r"<(/?)tool_call>")
_ANSWER_TAG = re.compile(rf"<(/?){ANSWER}>", re.IGNORECASE)

MAX_QUERY_CHARS = 1000
MAX_ANSWER_CHARS = 1000


@dataclass(frozen=True)
class Search:
    """Look for passages; each query is one printable line."""

    queries: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Answer the question, which ends the episode."""

    text: str


def tool_schemas() -> list[dict[str, Any]]:
    """What the tool-call format offers."""
    said = "What to look for: a name or a few words."
    return [text_tool(SEARCH, "Find passages of the encyclopaedia.", **{ARGUMENT: said})]


def parse_action(
    response: str, action_format: ActionFormat, *, max_searches: int, skips_broken: bool = False
) -> Search | Answer | Invalid:
    """Read the searches or the answer of a response. Never raises.

    Args:
        response: the agent's full text.
        action_format: "tag" for one `<search>` or `<answer>`, "tool_call" for calls of `search` or one `<answer>`.
        max_searches: most calls in one response of the tool-call format.
        skips_broken: whether in the tool-call format broken calls and those beyond the limit are passed over, calls
            count before an answer, and of several answers the last one counts, as in the StepPO recipe. Otherwise such
            a response is invalid.
    """
    if action_format == "tag":
        call = parse_tag(response, (SEARCH, ANSWER))
        if isinstance(call, Invalid):
            return call
        text = call.arguments["text"]
        return _answer(text) if call.name == ANSWER else _search([text])
    said = after_thought(response)
    if skips_broken and len(response) <= MAX_RESPONSE_CHARS:
        calls = _parsed_calls(said)
        if calls:
            return _good_searches(calls[:max_searches])
        if answers := _between(said, _ANSWER_TAG):
            return _answer(answers[-1].strip())
    if "<tool_call>" not in said:
        call = parse_tag(response, (ANSWER,))
        if isinstance(call, Invalid):
            return Invalid(f'{call.reason[:-1]} and no <tool_call> of "{SEARCH}" either.')
        return _answer(call.arguments["text"])
    if f"<{ANSWER}>" in said:
        return Invalid("Expected either searches or the answer, found both.")
    calls = parse_tool_calls(response, max_calls=max_searches)
    return calls if isinstance(calls, Invalid) else _search_calls(calls)


def format_action(action: Search | Answer, action_format: ActionFormat) -> str:
    """The response that `parse_action` reads back; the tag format takes one query."""
    # Blanks inside the tags make the words the same tokens as in running text.
    match action:
        case Answer(text):
            return format_tag(ANSWER, f" {text} ")
        case Search(queries) if action_format == "tag":
            (query,) = queries
            return format_tag(SEARCH, f" {query} ")
        case Search(queries):
            return "".join(format_tool_call(SEARCH, {ARGUMENT: query}) for query in queries)


def _answer(text: str) -> Answer | Invalid:
    if len(text) > MAX_ANSWER_CHARS:
        return Invalid(f"Expected an answer of at most {MAX_ANSWER_CHARS} characters, found {len(text)}.")
    return Answer(valid_text(text))


def _parsed_calls(text: str) -> list[Call]:
    """The calls of a text that can be read as such, of whatever tool."""
    calls = []
    for body in _between(text, _CALL_TAG):
        try:
            call = json.loads(body)
            name, arguments = call["name"], call["arguments"]
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        except (ValueError, RecursionError, TypeError, KeyError):
            continue
        calls.append(Call(str(name), arguments if isinstance(arguments, dict) else {}))
    return calls


def _between(text: str, tags: re.Pattern[str]) -> list[str]:
    """What stands between tags, each as short as can be; in linear time."""
    found, start = [], None
    for tag in tags.finditer(text):
        if not tag[1]:
            start = tag.end() if start is None else start
        elif start is not None:
            found.append(text[start : tag.start()])
            start = None
    return found


def _good_searches(calls: list[Call]) -> Search | Invalid:
    """The searches among calls; invalid if there is none."""
    said = [call.arguments.get(ARGUMENT) for call in calls if call.name in _RECIPE_NAMES]
    found = [_search([str(query)]) for query in said if query]
    queries = tuple(query for one in found if isinstance(one, Search) for query in one.queries)
    if queries:
        return Search(queries)
    return Invalid(
        f'Expected calls of "{SEARCH}" with the argument "{ARGUMENT}", a text, found none among {len(calls)}.'
    )


def _search_calls(calls: tuple[Call, ...]) -> Search | Invalid:
    queries = []
    for call in calls:
        if call.name != SEARCH:
            return Invalid(f'Expected calls of "{SEARCH}", found {one_line(call.name, 100)!r}.')
        query = text_argument(call, ARGUMENT)
        if isinstance(query, Invalid):
            return query
        queries.append(query)
    return _search(queries)


def _search(texts: list[str]) -> Search | Invalid:
    queries = []
    for text in texts:
        if len(text) > MAX_QUERY_CHARS:
            return Invalid(f"Expected a query of at most {MAX_QUERY_CHARS} characters, found {len(text)}.")
        query = one_line(text, MAX_QUERY_CHARS)
        if not query:
            return Invalid("Expected words in the query, found nothing.")
        queries.append(query)
    return Search(tuple(queries))
