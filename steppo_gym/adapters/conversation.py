"""What an environment is made with where its prompts are a conversation that only grows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import gymnasium

from steppo_gym.env import TextEnv


def conversation_arguments(arguments: Mapping[str, Any], **fixed: Any) -> dict[str, Any]:
    """Keywords of `gymnasium.make` with `context="append"`.

    Args:
        arguments: given by whoever uses the adapter.
        fixed: others that the framework leaves no choice in.

    Raises:
        ValueError: what was given says otherwise.
    """
    fixed = {"context": "append", **fixed}
    for name, value in fixed.items():
        if arguments.get(name, value) != value:
            raise ValueError(
                f"The conversation only grows here, so {name} is always {value!r}, got {arguments[name]!r}."
            )
    return {**arguments, **fixed}


def make_conversation(env_id: str, arguments: Mapping[str, Any], **fixed: Any) -> TextEnv:
    """The environment that `conversation_arguments` are for."""
    return cast(TextEnv, gymnasium.make(env_id, **conversation_arguments(arguments, **fixed)).unwrapped)


def checked_tasks(env: TextEnv, task_ids: Sequence[str] | None) -> list[str]:
    """The tasks that were asked for, all of the split if None.

    Raises:
        UnknownTaskError: a task that the split does not have.
    """
    ids = list(env.task_ids if task_ids is None else task_ids)
    for task_id in ids:
        env.require_task(task_id)
    return ids
