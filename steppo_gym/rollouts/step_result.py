"""What an environment answers, checked once: whatever does not keep the contract costs its episode, not the run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from steppo_gym.rollouts.episode import Failure

_INFO_KEYS = ("task_id", "state_key", "admissible_actions", "invalid_action", "success", "metrics")
_SHOWN_CHARS = 100


@dataclass(frozen=True)
class StepResult:
    """What an environment answered, with the fields of `info` that a rollout needs."""

    observation: str
    reward: float
    terminated: bool
    truncated: bool
    state_key: str
    admissible_actions: tuple[str, ...] | None
    invalid_action: str | None
    success: bool
    metrics: dict[str, float]
    expert_response: str | None = None
    """Only if it was asked for and the episode goes on."""
    expert_slip: bool = False
    """Whether the expert's response is a deliberate mistake."""
    seconds: float = 0.0
    """Wall time of the environment's own reset or step, and of its expert."""


@dataclass(frozen=True)
class StepTimeout:
    """The environment did not finish a step in time; its state is lost with its process."""

    message: str


Result = StepResult | StepTimeout | Failure


def read_answer(observation: object, reward: object, terminated: object, truncated: object, info: object) -> StepResult:
    """Check what `reset` or `step` returned; numpy's scalars are taken for Python's, as Gymnasium does.

    Raises:
        TypeError: a value of the wrong type.
        ValueError: a value that no rollout can use: a reward or metric that is not finite, both ends at once, a missing
            key of `info`, or text that cannot be written as UTF-8.
    """
    if not isinstance(info, Mapping):
        raise _wrong_type("info", "a dict", info)
    missing = [key for key in _INFO_KEYS if key not in info]
    if missing:
        raise ValueError(f"info must have the keys {', '.join(_INFO_KEYS)}; {', '.join(missing)} not found.")
    ends = (_flag("terminated", terminated), _flag("truncated", truncated))
    if all(ends):
        raise ValueError("An episode is either terminated or truncated, this one is both.")
    read_text("info['task_id']", info["task_id"])
    invalid_action = info["invalid_action"]
    return StepResult(
        observation=read_text("The observation", observation),
        reward=_number("The reward", reward),
        terminated=ends[0],
        truncated=ends[1],
        state_key=read_text("info['state_key']", info["state_key"]),
        admissible_actions=_actions(info["admissible_actions"]),
        invalid_action=None if invalid_action is None else read_text("info['invalid_action']", invalid_action),
        success=_flag("info['success']", info["success"]),
        metrics=_metrics(info["metrics"]),
    )


def read_parts(method: str, answer: object, *parts: str) -> tuple[Any, ...]:
    """The parts of what a method returned, or a TypeError that says which they are."""
    if not isinstance(answer, tuple) or len(answer) != len(parts):
        found = f"{len(answer)} values" if isinstance(answer, tuple) else type(answer).__name__
        raise TypeError(f"{method} must return {', '.join(parts)}; found {found}.")
    return answer


def read_tools(value: object) -> tuple[dict[str, Any], ...]:
    """JSON schemas of tools, or a TypeError."""
    if not isinstance(value, list | tuple) or not all(isinstance(tool, dict) for tool in value):
        raise _wrong_type("tools", "a list of JSON schemas", value)
    return tuple(value)


def read_text(name: str, value: object) -> str:
    """A string that can be written as UTF-8.

    Raises:
        TypeError: no string.
        ValueError: a string with lone surrogates, which no tokenizer takes.
    """
    if not isinstance(value, str):
        raise _wrong_type(name, "a string", value)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = f"{value[error.start]!r} at position {error.start}"
        raise ValueError(f"{name} must be text that can be written as UTF-8, found {found}.") from None
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, Real):
        raise _wrong_type(name, "a number", value)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}.")
    return number


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise _wrong_type(name, "a bool", value)
    return bool(value)


def _actions(value: object) -> tuple[str, ...] | None:
    if value is None:
        return None
    if not isinstance(value, tuple | list):
        raise _wrong_type("info['admissible_actions']", "a tuple or None", value)
    return tuple(read_text("An admissible action", action) for action in value)


def _metrics(value: object) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise _wrong_type("info['metrics']", "a dict", value)
    return {
        read_text("The name of a metric", name): _number(f"The metric {name!r}", score) for name, score in value.items()
    }


def _wrong_type(name: str, expected: str, value: object) -> TypeError:
    shown = _shown(value)
    return TypeError(f"{name} must be {expected}, found {type(value).__name__} {shown[:_SHOWN_CHARS]}.")


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception:
        return "whose repr raises"
