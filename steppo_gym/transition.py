"""What one response did, and the history that such steps make."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

NO_ACTION = "(no action)"
"""How the history shows a response that was no action."""


@dataclass(frozen=True)
class Transition:
    """What one response did to the task."""

    feedback: str
    """What the environment answers."""
    action: str
    """The action as the history shows it."""
    reward: float = 0.0
    terminated: bool = False
    invalid_action: str | None = None
    """Why the response was no valid action, None if it was one."""
    success: bool | None = None
    """Whether the task is solved now; None if that is as it was, which at the start is not solved."""


@dataclass(frozen=True)
class Exchange:
    """One step of the history: what was said before the action, and the action."""

    feedback: str
    action: str


def last_steps(history: Sequence[Exchange], shown: Callable[[str], str]) -> str:
    """The section of a prompt with exchanges, oldest first, observations as `shown` writes them; "" for none."""
    steps = [f"Observation: {shown(exchange.feedback)}\nAction: {exchange.action}\n" for exchange in history]
    return "".join(["Last steps:\n", *steps, "\n"]) if steps else ""


def transcript(history: Sequence[Exchange], feedback: str) -> str:
    """An episode as a person would read it: its steps, oldest first, and what the environment said last."""
    lines = [line for exchange in history for line in (exchange.feedback, f"> {exchange.action}")]
    return "\n".join([*lines, feedback])
