"""From the text of a response to the calls in it.

Two formats are read. Tags: `<think>..</think>` and then exactly one `<name>argument</name>`. Tool calls: any number of
`<tool_call>{"name": .., "arguments": {..}}</tool_call>`. Both give `Call`s; an environment's own `actions.py` turns
those into its typed actions. A response is untrusted text: parsing is linear in its length, never raises and never
evaluates anything.

    >>> parse_tag("<think>the fridge</think><action>go to fridge 1</action>", ("action",))
    Call(name='action', arguments={'text': 'go to fridge 1'})
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from steppo_gym.quoting import one_line

ActionFormat = Literal["tag", "tool_call"]
ACTION_FORMATS: tuple[ActionFormat, ...] = get_args(ActionFormat)

ACTION = "action"
"""Name of the tag, of the tool and of the tool's only argument where an environment has no names of its own."""

MAX_RESPONSE_CHARS = 200_000
"""Longer responses are invalid unread, so that hostile text cannot cost time."""


@dataclass(frozen=True)
class Call:
    """One call found in a response: the tag's or the tool's name and its arguments.

    A tag has the single argument `text`: what stands between the tags, stripped.
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Invalid:
    """A response that is no action. `reason` says what was expected and what was found, for the agent to read."""

    reason: str


def parse_tag(response: str, names: Sequence[str]) -> Call | Invalid:
    """Read the single tag of a response whose name is one of `names`. Never raises.

    Everything up to the last `</think>` is the agent's own thought and is not read.
    """
    if len(response) > MAX_RESPONSE_CHARS:
        return _too_long(response)
    text = after_thought(response)
    found = [(name, body) for name in names for body in _bodies(text, f"<{name}>", f"</{name}>")]
    expected = " or ".join(f"<{name}>...</{name}>" for name in names)
    if len(found) != 1:
        return Invalid(f"Expected exactly one {expected}, found {len(found)}.")
    name, body = found[0]
    if not body.strip():
        return Invalid(f"Expected text between <{name}> and </{name}>, found nothing.")
    return Call(name, {"text": body.strip()})


def parse_tool_calls(response: str, *, max_calls: int = 1) -> tuple[Call, ...] | Invalid:
    """Read all tool calls of a response, at least one and at most `max_calls`. Never raises."""
    if len(response) > MAX_RESPONSE_CHARS:
        return _too_long(response)
    bodies = _bodies(after_thought(response), "<tool_call>", "</tool_call>")
    if not 1 <= len(bodies) <= max_calls:
        number = "exactly one" if max_calls == 1 else f"1 to {max_calls}"
        return Invalid(
            f'Expected {number} <tool_call>{{"name": .., "arguments": ..}}</tool_call>, found {len(bodies)}.'
        )
    calls = []
    for body in bodies:
        call = _tool_call(body)
        if isinstance(call, Invalid):
            return call
        calls.append(call)
    return tuple(calls)


def text_argument(call: Call, argument: str) -> str | Invalid:
    """The text of a call's only argument. Never raises."""
    text = call.arguments.get(argument)
    if set(call.arguments) != {argument} or not isinstance(text, str):
        found = one_line(str(sorted(call.arguments)))
        return Invalid(f'Expected the single argument "{argument}" with a text, found {found}.')
    return text


def parse_text(
    response: str, action_format: ActionFormat, *, tag: str = ACTION, tool: str = ACTION, argument: str = ACTION
) -> str | Invalid:
    """The text of a response's single `tag`, or of the only `argument` of its single call of `tool`. Never raises."""
    if action_format == "tag":
        tagged = parse_tag(response, (tag,))
        return tagged if isinstance(tagged, Invalid) else tagged.arguments["text"]
    calls = parse_tool_calls(response)
    if isinstance(calls, Invalid):
        return calls
    if calls[0].name != tool:
        return Invalid(f"Expected a call of {tool}, found {one_line(calls[0].name)!r}.")
    text = text_argument(calls[0], argument)
    return text if isinstance(text, Invalid) else text.strip()


def format_text(
    text: str, action_format: ActionFormat, *, tag: str = ACTION, tool: str = ACTION, argument: str = ACTION
) -> str:
    """The response from which `parse_text` reads this text, without blanks around it.

    In the tag format not if the text holds the closing tag or `</think>`; a tool call can hold any text.
    """
    return format_tag(tag, text) if action_format == "tag" else format_tool_call(tool, {argument: text})


def format_listed(action: str, tools: Sequence[Mapping[str, Any]], *, tag: str = ACTION) -> str:
    """The response that does one of the actions that an environment lists, in its own format.

    Args:
        action: as it is listed.
        tools: the environment's; the first of them takes the action as its first required argument.
        tag: holds the action where there are no tools.
    """
    if not tools:
        return format_tag(tag, action)
    tool, argument = first_argument(tools)
    return format_tool_call(tool, {argument: action})


def first_argument(tools: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """The name of the first tool, and of its first required argument.

    Raises:
        ValueError: it has none.
    """
    try:
        function = tools[0]["function"]
        return function["name"], function["parameters"]["required"][0]
    except (LookupError, TypeError) as error:
        raise ValueError(
            f"The first tool must have a required argument, as text_tool writes it, got {tools[0]}."
        ) from error


def text_tool(name: str, description: str, **arguments: str) -> dict[str, Any]:
    """The JSON schema of a tool whose arguments are texts and all required, as chat templates expect it.

    Args:
        name: of the tool.
        description: what it does.
        arguments: by name, what each of them says.
    """
    properties = {argument: {"type": "string", "description": said} for argument, said in arguments.items()}
    parameters = {"type": "object", "properties": properties, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def after_thought(response: str) -> str:
    """What follows the last `</think>` of a response; what stands before it is the agent's own and is not read."""
    return response.rpartition("</think>")[2]


def format_thought(said: str) -> str:
    """The beginning of a response that thinks: text that no parser reads; none where nothing is said."""
    return f"<think>{said}</think>" if said else ""


def format_tag(name: str, text: str) -> str:
    """The response that `parse_tag` reads back."""
    return f"<{name}>{text}</{name}>"


def format_tool_call(name: str, arguments: Mapping[str, Any]) -> str:
    """The response that `parse_tool_calls` reads back."""
    # A tag inside an argument would end the call or the thought; JSON allows the slash to be escaped.
    call = json.dumps({"name": name, "arguments": dict(arguments)}, ensure_ascii=False).replace("</", "<\\/")
    return f"<tool_call>{call}</tool_call>"


def served_call(name: str, arguments: str) -> str:
    """The text of a call that a server reports; arguments that are no JSON object stay, as the model's mistake."""
    # What can just be read at this depth may be too deep to be written again.
    with contextlib.suppress(ValueError, RecursionError):
        read = json.loads(arguments or "{}")
        if isinstance(read, dict):
            return format_tool_call(name, read)
    return f'<tool_call>{{"name": {json.dumps(name)}, "arguments": {arguments}}}</tool_call>'


def _tool_call(body: str) -> Call | Invalid:
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Invalid("Expected JSON inside <tool_call>, found text that is not JSON.")
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return Invalid('Expected an object with "name" (text) inside <tool_call>.')
    arguments = data.get("arguments", {})
    if not isinstance(arguments, dict):
        return Invalid('Expected "arguments" to be an object inside <tool_call>.')
    return Call(data["name"], arguments)


def _bodies(text: str, opening: str, closing: str) -> list[str]:
    """What stands between each `opening` and the first `closing` after it."""
    bodies = []
    position = text.find(opening)
    while position >= 0:
        start = position + len(opening)
        end = text.find(closing, start)
        if end < 0:
            break
        bodies.append(text[start:end])
        position = text.find(opening, end + len(closing))
    return bodies


def _too_long(response: str) -> Invalid:
    return Invalid(f"Expected a response of at most {MAX_RESPONSE_CHARS} characters, found {len(response)}.")
