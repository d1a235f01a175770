"""From states to the texts an agent reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from steppo_gym.actions import ACTION, ActionFormat, format_thought, text_tool
from steppo_gym.envs.key_door.actions import COLOURS, CONTAINERS, GRAMMAR
from steppo_gym.envs.key_door.game import State, note_text
from steppo_gym.envs.key_door.generate import Task
from steppo_gym.envs.key_door.passages import Passage, Progress, describe

SYSTEM_PROMPT = f"""You play a text game. Open the door of the goal. A wrong key breaks and you lose. You hold one key.
Actions: {GRAMMAR}.
{{form}}"""
TAG_FORM = "Answer with one <action>...</action>. You can think first inside <think>...</think>."
WAY_ACTION = ", go COLOUR"
WAY_RULE = "On the way to the hall, go COLOUR takes a way. Go where a sign says, or no key fits."
THOUGHT = ("first", "look", "then", "act")
TOOL_FORM = "Answer with one call of the tool."


def system_prompt(action_format: ActionFormat, *, with_way: bool = False) -> str:
    """What the agent is told once."""
    form = TAG_FORM if action_format == "tag" else TOOL_FORM
    return SYSTEM_PROMPT.format(form=f"{WAY_RULE}\n{form}" if with_way else form)


def thought(words: int) -> str:
    """A thought of so many words, which says nothing; no text for none."""
    return format_thought(" ".join(THOUGHT[place % len(THOUGHT)] for place in range(words)))


def arrival(task: Task, passage: Passage | None) -> str:
    """What is seen where the way leads: the next passage, or the hall."""
    if passage is None:
        return first_feedback(task)
    return f"Goal: open the {task.door} door. You are on the way. {describe(passage)}"


def way_line(passage: Passage | None, progress: Progress) -> str:
    """The way in a rebuilt prompt, with what was decided on it."""
    place = "in the hall." if passage is None else describe(passage)
    return f"Way: {progress.passed} passed{', astray' if progress.astray else ''}; {place}"


def first_feedback(task: Task) -> str:
    """What the environment says before the first action."""
    doors = ", ".join(f"{door} door" for door in task.doors)
    return f"Goal: open the {task.door} door. You see: note, {', '.join(task.containers)}, {doors}."


def rebuilt_prompt(
    task: Task,
    state: State,
    *,
    done: Sequence[str],
    feedback: str,
    admissible: Sequence[str],
    way: str | None = None,
) -> str:
    """The current state as one complete prompt.

    Args:
        task: the game.
        state: where it stands.
        done: actions carried out so far, oldest first.
        feedback: what the environment said last, empty before the first action.
        admissible: actions that can be done now.
        way: the line about the way to the hall, None where there is none.
    """
    places = zip(task.containers, state.opened, state.contents, strict=True)
    lines = [
        f"Goal: open the {task.door} door.",
        *([] if way is None else [way]),
        f"Note: {note_text(task) if state.note_read else 'not read.'}",
        f"Containers: {', '.join(_container(name, is_open, key) for name, is_open, key in places)}.",
        f"Doors: {', '.join(task.doors)}.",
        f"You hold: {'nothing' if state.held is None else f'{state.held} key'}.",
        f"Done: {', '.join(done) or 'nothing'}.",
        f"Result: {feedback or 'nothing.'}",
        f"You can: {', '.join(admissible) or 'nothing'}.",
    ]
    return "\n".join(lines)


def invalid_feedback(reason: str) -> str:
    """What an invalid response is answered with."""
    return f"Invalid. {reason}"


def tools(action_format: ActionFormat, *, with_way: bool = False) -> list[dict[str, Any]]:
    """The JSON schema of the one tool, nothing in the tag format."""
    said = f"One action. CONTAINER: {', '.join(CONTAINERS)}. COLOUR: {', '.join(COLOURS)}."
    tool = text_tool(ACTION, f"Act in the game. Actions: {GRAMMAR}{WAY_ACTION if with_way else ''}.", **{ACTION: said})
    return [tool] if action_format == "tool_call" else []


def _container(name: str, is_open: bool, key: str | None) -> str:
    if not is_open:
        return f"{name} closed"
    return f"{name} empty" if key is None else f"{name} with {key} key"
