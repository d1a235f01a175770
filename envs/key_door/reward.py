"""Reward, scores and the published rules: nothing is earned until the right door is open."""

from __future__ import annotations

from steppo_gym.envs.key_door.game import State
from steppo_gym.protocol import EnvProtocol

PROTOCOLS = {
    "steppo": EnvProtocol(max_steps=10, success_reward=1.0, invalid_action_reward=0.0, history_length=None),
    "verl-agent": EnvProtocol(max_steps=10, success_reward=10.0, invalid_action_reward=-0.1, history_length=2),
}


def step_reward(state: State, protocol: EnvProtocol) -> float:
    """The reward of a valid action that led to this state."""
    return protocol.success_reward if state.outcome == "opened" else 0.0


def metrics(state: State) -> dict[str, float]:
    """`success`: the right door is open. `broken`: a key broke. `note_read`: the note was read. Each 0 or 1."""
    return {
        "success": float(state.outcome == "opened"),
        "broken": float(state.outcome == "broken"),
        "note_read": float(state.note_read),
    }
