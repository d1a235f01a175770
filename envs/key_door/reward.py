"""Reward and scores: nothing until the right door is open."""

from __future__ import annotations

from steppo_gym.env import EnvProtocol
from steppo_gym.envs.key_door.game import State


def step_reward(state: State, *, invalid: bool, protocol: EnvProtocol) -> float:
    """The reward of a step.

    Args:
        state: the state after the step.
        invalid: whether the response was no valid action.
        protocol: success reward and penalty.
    """
    if invalid:
        return protocol.invalid_action_reward
    return protocol.success_reward if state.outcome == "opened" else 0.0


def metrics(state: State) -> dict[str, float]:
    """`success`: the right door is open. `broken`: a key broke. `note_read`: the note was read. Each 0 or 1."""
    return {
        "success": float(state.outcome == "opened"),
        "broken": float(state.outcome == "broken"),
        "note_read": float(state.note_read),
    }
