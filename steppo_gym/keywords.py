"""The keywords that an environment is made with: those that all take, and what is said about a wrong one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, TypedDict, get_args

from steppo_gym.actions import ActionFormat
from steppo_gym.command_line import did_you_mean
from steppo_gym.errors import UnknownTaskError

Context = Literal["rebuilt", "append"]
CONTEXTS: tuple[Context, ...] = get_args(Context)
PLACES = ("data", "papers", "retriever")
"""Keywords that say where something lies on one machine."""


class CommonArguments(TypedDict, total=False):
    """The keywords that every environment takes and hands on to `TextEnv`, which says what they mean."""

    max_steps: int | None
    invalid_action_reward: float | None
    expert: str | None
    action_format: ActionFormat
    context: Context
    render_mode: str | None


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError that lists the choices unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_split(split: object, splits: Iterable[str]) -> None:
    """Raise an UnknownTaskError, which is a ValueError, that lists the splits unless `split` is one of them."""
    try:
        check_choice("split", split, tuple(splits))
    except ValueError as error:
        raise UnknownTaskError(str(error)) from None


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raise a ValueError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise ValueError(f"{name} must be a whole number, got {value!r}.")
    if int(value) < least:
        raise ValueError(f"{name} must be {f'at least {least}' if least else '0 or more'}, got {value}.")


def check_number(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is a number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{name} must be a number, got {value!r}.")


def check_flag(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is true or false; a text such as "False" would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, got {value!r}.")


def check_place(name: str, value: object) -> None:
    """Raise a ValueError unless `value` is None, a path or a text that is not empty."""
    if value == "" or not isinstance(value, str | os.PathLike | None):
        raise ValueError(f"{name} must be a path or an address, as a text, got {value!r:.80}.")


def path_of(place: str | os.PathLike[str]) -> Path:
    """The path that a keyword or an argument names; `~` and variables are expanded.

    It stays the same when the process goes to another folder.
    """
    return Path(os.path.expanduser(os.path.expandvars(place))).absolute()


def unknown_keyword_message(made: type, keyword: str) -> str:
    """Say which keywords there are.

    Args:
        made: the class; its constructors hand on what they do not know, so that it takes what one of them takes.
        keyword: what none of them takes.
    """
    own = [inspect.signature(base.__init__).parameters.values() for base in made.__mro__ if "__init__" in vars(base)]
    known = {
        parameter.name for parameters in own for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY
    }
    names = sorted(known - {"experts"})
    meant = did_you_mean(keyword, names) or "."
    return f"{made.__name__} got an unexpected keyword argument {keyword!r}. It takes {', '.join(names)}{meant}"


def unknown_task_message(task_id: object, task_ids: Sequence[str]) -> str:
    """Say which task was asked for and what the known ones look like."""
    examples = ", ".join(repr(task_ids[i]) for i in range(min(3, len(task_ids))))
    asked = f"Unknown task_id {task_id!r:.200}{'' if isinstance(task_id, str) else ', which is no text'}"
    return f"{asked}. This split has {len(task_ids)} tasks, for example {examples}; see env.unwrapped.task_ids."
