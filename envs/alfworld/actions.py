"""From a response to a game command.

>>> parse_action("<think>It may be cold.</think><action>open fridge 1</action>", "tag", ("open fridge 1",))
Command(text='open fridge 1')
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from steppo_gym.actions import ActionFormat, Call, Invalid, format_tag, format_tool_call, parse_tag, parse_tool_calls
from steppo_gym.quoting import one_line

TAG = "action"
TOOL = "env_step"
ARGUMENT = "command"
"""Tool and argument have the names of the official StepPO recipe."""

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": TOOL,
            "description": "Carry out one text command in the household.",
            "parameters": {
                "type": "object",
                "properties": {ARGUMENT: {"type": "string", "description": "One admissible command."}},
                "required": [ARGUMENT],
            },
        },
    }
]


@dataclass(frozen=True)
class Command:
    """A command that does something in the current state."""

    text: str


@dataclass(frozen=True)
class Inadmissible:
    """A well-formed response whose command does nothing in the current state."""

    text: str
    reason: str


def parse_action(
    response: str, action_format: ActionFormat, admissible: Collection[str]
) -> Command | Inadmissible | Invalid:
    """Read the command of a response. Never raises.

    The command is taken as it is but for outer blanks: like the game, this is case sensitive.

    Args:
        response: the agent's full text.
        action_format: "tag" for `<action>..</action>`, "tool_call" for one call of `env_step`.
        admissible: the commands that do something now.
    """
    text = _tag_text(response) if action_format == "tag" else _tool_text(response)
    if isinstance(text, Invalid):
        return text
    if text in admissible:
        return Command(text)
    return Inadmissible(text, f"Expected one of the {len(admissible)} admissible commands, found {one_line(text)!r}.")


def format_action(command: str, action_format: ActionFormat) -> str:
    """The response that `parse_action` reads back."""
    return format_tag(TAG, command) if action_format == "tag" else format_tool_call(TOOL, {ARGUMENT: command})


def _tag_text(response: str) -> str | Invalid:
    call = parse_tag(response, (TAG,))
    return call if isinstance(call, Invalid) else call.arguments["text"]


def _tool_text(response: str) -> str | Invalid:
    calls = parse_tool_calls(response)
    if isinstance(calls, Invalid):
        return calls
    return _command_argument(calls[0])


def _command_argument(call: Call) -> str | Invalid:
    if call.name != TOOL:
        return Invalid(f"Expected a call of {TOOL}, found {one_line(call.name)!r}.")
    if set(call.arguments) != {ARGUMENT} or not isinstance(call.arguments[ARGUMENT], str):
        return Invalid(
            f'Expected the single argument "{ARGUMENT}" with a text, found {one_line(str(sorted(call.arguments)))}.'
        )
    text = call.arguments[ARGUMENT].strip()
    return text or Invalid(f'Expected a command in "{ARGUMENT}", found nothing.')
