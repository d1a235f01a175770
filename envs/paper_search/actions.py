"""From a response to searches and expansions, or to the end of the work.

>>> parse_action("<think>so</think><search> graph pruning </search><expand> 2401.01234v2 </expand>", "tag", max_calls=5)
Calls(calls=(Search(query='graph pruning'), Expand(paper_id='2401.01234')))

A response works or stops, never both. It works with one to `max_calls` calls, which are carried out in their order.
It stops with `<answer>..</answer>`, in both formats; what stands in it does not matter, the list of papers is the
answer. Everything else is invalid, costs a step and is told what was expected: a call that is broken, and by default
also a text without any call. With `any_text_stops` such a text stops, as in the StepPO recipe, unless a piece of a tag
shows that a call was tried.
"""

from __future__ import annotations

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
    parse_tool_calls,
    text_tool,
)
from steppo_gym.envs.paper_search.papers import arxiv_id_without_version
from steppo_gym.quoting import one_line

SEARCH, EXPAND, ANSWER = "search", "expand", "answer"
"""Names of the tags; in the tool-call format searching and expanding are tools, and answering stays a tag."""
ARGUMENTS = {SEARCH: "query", EXPAND: "paper_id"}
"""The one argument of each tool."""

MAX_QUERY_CHARS = 1000
MAX_ID_CHARS = 500


@dataclass(frozen=True)
class Search:
    """Look for papers; the query is one printable line."""

    query: str


@dataclass(frozen=True)
class Expand:
    """Follow the citations and references of a paper; its id is one printable line without arXiv version."""

    paper_id: str


@dataclass(frozen=True)
class Calls:
    """What a working step does, in this order."""

    calls: tuple[Search | Expand, ...]


@dataclass(frozen=True)
class Stop:
    """Be content with the papers found, which ends the episode."""


_OPENING = re.compile(f"<({SEARCH}|{EXPAND}|{ANSWER})>")
_ATTEMPT = re.compile(rf"</?\s*(?:{SEARCH}|{EXPAND}|{ANSWER}|tool_call)\b", re.IGNORECASE)


def tool_schemas() -> list[dict[str, Any]]:
    """What the tool-call format offers."""
    find = "Find papers by the words of their titles and abstracts."
    follow = "Get the papers that a listed paper cites and those that cite it."
    return [
        text_tool(SEARCH, find, **{ARGUMENTS[SEARCH]: "What to look for, a few words."}),
        text_tool(EXPAND, follow, **{ARGUMENTS[EXPAND]: "The id of a paper in the list."}),
    ]


def parse_action(
    response: str, action_format: ActionFormat, *, max_calls: int, any_text_stops: bool = False
) -> Calls | Stop | Invalid:
    """Read the calls or the end in a response. Never raises.

    Args:
        response: the agent's full text; what stands before the last `</think>` is not read.
        action_format: "tag" for `<search>` and `<expand>`, "tool_call" for calls of the tools of these names.
        max_calls: most calls in one response.
        any_text_stops: whether a text without any call is a `Stop`.
    """
    if len(response) > MAX_RESPONSE_CHARS:
        return Invalid(f"Expected a response of at most {MAX_RESPONSE_CHARS} characters, found {len(response)}.")
    said = after_thought(response)
    if any_text_stops and not _ATTEMPT.search(said):
        return Stop()
    if action_format == "tool_call" and "<tool_call>" in said:
        if f"<{ANSWER}>" in said:
            return Invalid(f"Expected either calls or <{ANSWER}>, found both.")
        calls = parse_tool_calls(response, max_calls=max_calls)
        return calls if isinstance(calls, Invalid) else _read_calls([_tool_argument(call) for call in calls])
    tags = _tags(said)
    if isinstance(tags, Invalid):
        return tags
    names = [name for name, _ in tags]
    if names == [ANSWER]:
        return Stop()
    if action_format == "tool_call":
        return Invalid(f'Expected 1 to {max_calls} <tool_call>{{"name": .., "arguments": ..}}</tool_call>, found 0.')
    if ANSWER in names:
        return Invalid(f"Expected either calls or one <{ANSWER}>, found {len(tags)} tags.")
    if not 1 <= len(tags) <= max_calls:
        expected = f"Expected 1 to {max_calls} calls <{SEARCH}>...</{SEARCH}> or <{EXPAND}>...</{EXPAND}>"
        return Invalid(f"{expected}, found {len(tags)}.")
    return _read_calls(tags)


def format_action(action: Calls | Stop, action_format: ActionFormat) -> str:
    """The response that `parse_action` reads back."""
    # Blanks inside the tags make words the same tokens as in running text; ids stand in brackets there.
    match action:
        case Stop():
            return format_tag(ANSWER, " done ")
        case Calls(calls):
            named = [_named(call) for call in calls]
            if action_format == "tag":
                return "".join(format_tag(name, f" {text} " if name == SEARCH else text) for name, text in named)
            return "".join(format_tool_call(name, {ARGUMENTS[name]: text}) for name, text in named)


def _named(call: Search | Expand) -> tuple[str, str]:
    match call:
        case Search(query):
            return SEARCH, query
        case Expand(paper_id):
            return EXPAND, paper_id


def _tags(text: str) -> list[tuple[str, str]] | Invalid:
    """Name and content of every tag in its order."""
    tags, position = [], 0
    while opening := _OPENING.search(text, position):
        name, closing = opening[1], f"</{opening[1]}>"
        end = text.find(closing, opening.end())
        if end < 0:
            return Invalid(f"Expected {closing} after <{name}>, found none.")
        content = text[opening.end() : end]
        if inner := _OPENING.search(content):
            return Invalid(f"Expected {closing} before the next tag, found <{inner[1]}> inside <{name}>.")
        tags.append((name, content))
        position = end + len(closing)
    return tags


def _tool_argument(call: Call) -> tuple[str, str] | Invalid:
    argument = ARGUMENTS.get(call.name)
    if argument is None:
        return Invalid(f'Expected calls of "{SEARCH}" or "{EXPAND}", found {one_line(call.name, 100)!r}.')
    text = call.arguments.get(argument)
    if set(call.arguments) != {argument} or not isinstance(text, str):
        found = one_line(str(sorted(call.arguments)), 100)
        return Invalid(f'Expected the single argument "{argument}" of "{call.name}" with a text, found {found}.')
    return call.name, text


def _read_calls(named: list[tuple[str, str] | Invalid] | list[tuple[str, str]]) -> Calls | Invalid:
    calls: list[Search | Expand] = []
    for entry in named:
        if isinstance(entry, Invalid):
            return entry
        name, text = entry
        longest = MAX_QUERY_CHARS if name == SEARCH else MAX_ID_CHARS
        if len(text) > longest:
            return Invalid(f"Expected at most {longest} characters to {name}, found {len(text)}.")
        line = one_line(text, longest)
        if not line:
            return Invalid(f"Expected text to {name}, found nothing.")
        calls.append(Search(line) if name == SEARCH else Expand(arxiv_id_without_version(line)))
    return Calls(tuple(calls))
