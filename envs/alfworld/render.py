"""From the state of a game to the text of an observation.

With `context="rebuilt"` an observation is a complete prompt: task, the last (observation, action) pairs, what the game
said last, what can be done, and how to answer; the sections are those of the official StepPO recipe. With
`context="append"` the first observation is the game's introduction and later ones are only what the game answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from steppo_gym.actions import ActionFormat
from steppo_gym.envs.alfworld.actions import TAG, TOOL, format_action
from steppo_gym.transition import Exchange, last_steps

_BANNER = "-= Welcome to TextWorld, ALFRED! =-"
_TASK = re.compile(r"\s*Your task is to: (.*)")

_COMMANDS = """\
go to (receptacle), open (receptacle), close (receptacle), take (object) from (receptacle), \
{move}, use (object), heat (object) with (receptacle), clean (object) with (receptacle), \
cool (object) with (receptacle), slice (object) with (object), examine (something), inventory, look"""

_EXAMPLE = "go to fridge 1"
_FORMATS = {
    "tag": f"write exactly one command between <{TAG}> and </{TAG}>, for example {format_action(_EXAMPLE, 'tag')}",
    "tool_call": f"call the tool {TOOL} exactly once, for example {format_action(_EXAMPLE, 'tool_call')}",
}

_SYSTEM = """\
You solve a household task by text commands, one at a time. Commands: {commands}.
First reason between <think> and </think>, then {format}."""

_PROMPT = """\
Task: {task}

{history}Current observation:
{observation}

Admissible commands:
{commands}

Choose one admissible command. First reason between <think> and </think>, then {format}."""


def system_prompt(action_format: ActionFormat, *, puts: bool = False) -> str:
    """What the agent is told before the first observation.

    Args:
        action_format: how to answer.
        puts: whether the games say `put x in/on y`, as before alfworld 0.4, and not `move x to y`.
    """
    move = "put (object) in/on (receptacle)" if puts else "move (object) to (receptacle)"
    return _SYSTEM.format(commands=_COMMANDS.format(move=move), format=_FORMATS[action_format])


def introduction(feedback: str) -> str:
    """The game's first text without its welcome banner."""
    return feedback.replace(_BANNER, "", 1).strip()


def task_sentence(introduction: str) -> str:
    """What the introduction asks for, such as "put a hot potato in sinkbasin."; empty if it does not say."""
    match = _TASK.search(introduction)
    return match[1].strip() if match else ""


def invalid_feedback(reason: str, action_format: ActionFormat) -> str:
    """What the agent reads after a response that is no action."""
    return f"Your response was not understood. {reason} Please {_FORMATS[action_format]}."


def rebuilt_prompt(
    *,
    introduction: str,
    history: Sequence[Exchange],
    feedback: str,
    commands: Sequence[str],
    action_format: ActionFormat,
) -> str:
    """A complete prompt for the current state.

    Args:
        introduction: the game's first text, which states the task.
        history: the exchanges to show, oldest first.
        feedback: what the game said last.
        commands: the commands that do something now.
        action_format: how to answer.
    """
    return _PROMPT.format(
        task=task_sentence(introduction),
        history=last_steps(history, _untasked),
        observation=_untasked(feedback),
        commands="\n".join(f"- {command}" for command in commands),
        format=_FORMATS[action_format],
    )


def _untasked(feedback: str) -> str:
    """Feedback without the task, which has its own place in the prompt."""
    return _TASK.sub("", feedback).strip()
