"""From a response to a game command.

>>> parse_action("<think>It may be cold.</think><action>open fridge 1</action>", "tag", ("open fridge 1",))
Command(text='open fridge 1')
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from steppo_gym.actions import ActionFormat, Invalid, format_text, parse_text, text_tool
from steppo_gym.quoting import one_line

TAG = "action"
TOOL = "env_step"
ARGUMENT = "command"
"""Tool and argument have the names of the official StepPO recipe."""


@dataclass(frozen=True)
class Command:
    """A command that does something in the current state."""

    text: str


@dataclass(frozen=True)
class Inadmissible:
    """A well-formed response whose command does nothing in the current state."""

    text: str
    reason: str


def tool_schemas() -> list[dict[str, Any]]:
    """What the tool-call format offers."""
    return [text_tool(TOOL, "Carry out one text command in the household.", **{ARGUMENT: "One admissible command."})]


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
    text = parse_text(response, action_format, tag=TAG, tool=TOOL, argument=ARGUMENT)
    if isinstance(text, Invalid):
        return text
    if not text:
        return Invalid(f'Expected a command in "{ARGUMENT}", found nothing.')
    if text in admissible:
        return Command(text)
    return Inadmissible(text, f"Expected one of the {len(admissible)} admissible commands, found {one_line(text)!r}.")


def format_action(command: str, action_format: ActionFormat) -> str:
    """The response that `parse_action` reads back."""
    return format_text(command, action_format, tag=TAG, tool=TOOL, argument=ARGUMENT)
