"""From the state of a session to the text of an observation.

With `context="rebuilt"` an observation is a complete prompt in the sections of the official StepPO recipe: instruction,
last steps, current page, available actions, how to answer. With `context="append"` the first observation is the
official page, and later ones are what is new: pages without the instruction, or which option was clicked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from steppo_gym.actions import ActionFormat
from steppo_gym.envs.webshop.actions import TAG, TOOL, format_command
from steppo_gym.envs.webshop.pages import Node, as_rich_text, as_text
from steppo_gym.transition import Exchange, last_steps

ObservationMode = Literal["text", "text_rich"]
OBSERVATION_MODES: tuple[ObservationMode, ...] = get_args(ObservationMode)

SEARCH_FORM = "search[words]"
"""How the prompt shows that there is a search bar."""

EXAMPLE = "search[slim fit hoodie]"
"""Of an action, in what the agent is told."""
_FORMATS = {
    "tag": f"write exactly one action between <{TAG}> and </{TAG}>, for example {format_command(EXAMPLE, 'tag')}",
    "tool_call": f"call the tool {TOOL} exactly once, for example {format_command(EXAMPLE, 'tool_call')}",
}

_SYSTEM = """\
You buy in a web shop what an instruction asks for. There are two actions: search[words] looks for products, on every \
page; click[label] clicks a button, product or option of the page by its label. Choose the right options before you \
click[buy now], which ends the task. First reason between <think> and </think>, then {format}."""

_PROMPT = """\
Instruction: {instruction}

{history}Current page:
{page}

{notes}Available actions:
{actions}

Choose one action. First reason between <think> and </think>, then {format}."""


def system_prompt(action_format: ActionFormat) -> str:
    """What the agent is told before the first observation."""
    return _SYSTEM.format(format=_FORMATS[action_format])


def page_text(nodes: Sequence[Node], mode: ObservationMode) -> str:
    """A page in an official observation mode."""
    return as_text(nodes) if mode == "text" else as_rich_text(nodes)


def clicked_feedback(value: str) -> str:
    """What is new after an option was clicked, in the official words."""
    return f"You have clicked {value}."


def invalid_feedback(reason: str, action_format: ActionFormat) -> str:
    """What the agent reads after a response that did nothing."""
    return f"Nothing happened. {reason} Please {_FORMATS[action_format]}."


def rebuilt_prompt(
    *,
    instruction: str,
    history: Sequence[Exchange],
    history_chars: int | None,
    page: str,
    chosen: Mapping[str, str],
    actions: Sequence[str],
    problem: str,
    action_format: ActionFormat,
) -> str:
    """A complete prompt for the current state.

    Args:
        instruction: of the goal.
        history: the exchanges to show, oldest first.
        history_chars: longest observation among them; None for all of each.
        page: the current page without the instruction.
        chosen: options clicked so far, which the pages do not always show.
        actions: what can be done now.
        problem: why the last response did nothing, or "".
        action_format: how to answer.
    """
    options = ", ".join(f"{name}: {value}" for name, value in chosen.items())
    notes = (f"Chosen options: {options}\n\n" if options else "") + (f"{problem}\n\n" if problem else "")
    return _PROMPT.format(
        instruction=instruction,
        history=last_steps(history, lambda text: _cut(text, history_chars)),
        page=page,
        notes=notes,
        actions="\n".join(f"- {action}" for action in actions),
        format=_FORMATS[action_format],
    )


def _cut(text: str, length: int | None) -> str:
    return text if length is None or len(text) <= length else f"{text[: length - 3]}..."
