"""`steppo/KeyDoor-v0`: wires rules, texts and rewards to the common base.

>>> env = gymnasium.make("steppo/KeyDoor-v0", split="validation")
>>> observation, info = env.reset(options={"task_id": "validation-7"})
>>> observation, reward, terminated, truncated, info = env.step("<action>read note</action>")
"""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any

from steppo_gym.actions import ActionFormat, Invalid
from steppo_gym.env import Context, EnvProtocol, TextEnv, Transition, check_choice
from steppo_gym.envs.key_door import render, reward
from steppo_gym.envs.key_door.actions import action_text, parse_action
from steppo_gym.envs.key_door.game import (
    State,
    apply_action,
    expert_action,
    first_state,
    hasty_action,
    possible_actions,
)
from steppo_gym.envs.key_door.generate import SPLIT_SIZES, Task, generate_task, task_ids
from steppo_gym.errors import UnknownTaskError

PROTOCOLS = {
    "steppo": EnvProtocol(max_steps=10, success_reward=1.0, invalid_action_reward=0.0, history_length=None),
    "verl-agent": EnvProtocol(max_steps=10, success_reward=10.0, invalid_action_reward=-0.1, history_length=2),
}
EXPERTS = ("expert", "hasty")
INVALID_ACTION = "invalid"
"""How the history shows a response that was no action."""


class KeyDoorEnv(TextEnv):
    """Find the key that opens the door of the goal.

    Args:
        split: "train", "validation" or "test".
        data: must be None; the tasks are generated.
        protocol: "steppo" (reward 1) or "verl-agent" (reward 10, -0.1 for an invalid response, last two actions shown).
        max_steps: overrides the protocol's limit.
        expert: who writes `expert_response`: "expert" takes the shortest way that reads the note first, "hasty" mostly
            reads the note once more where it should take a key, a fault to be unlearnt.
        action_format: see `TextEnv`.
        context: see `TextEnv`.
        render_mode: see `TextEnv`.

    Raises:
        UnknownTaskError: no such split.
        ValueError: another argument outside its range.
    """

    def __init__(
        self,
        *,
        split: str = "train",
        data: None = None,
        protocol: str = "steppo",
        max_steps: int | None = None,
        expert: str = "expert",
        action_format: ActionFormat = "tag",
        context: Context = "rebuilt",
        render_mode: str | None = None,
    ) -> None:
        if split not in SPLIT_SIZES:
            raise UnknownTaskError(f"split must be one of {', '.join(map(repr, SPLIT_SIZES))}, got {split!r}.")
        if data is not None:
            raise ValueError(f"KeyDoor generates its tasks and reads no files: data must be None, got {data!r}.")
        check_choice("protocol", protocol, tuple(PROTOCOLS))
        check_choice("expert", expert, EXPERTS)
        self.protocol = PROTOCOLS[protocol]
        self.expert = expert
        super().__init__(
            max_steps=self.protocol.max_steps if max_steps is None else max_steps,
            action_format=action_format,
            context=context,
            render_mode=render_mode,
        )
        self.task_ids = task_ids(split)
        self._task: Task
        self._state: State

    @property
    def system_prompt(self) -> str:
        """The rules and how to answer."""
        return render.system_prompt(self.action_format)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """One tool, `action`, in the tool-call format."""
        return render.tools(self.action_format)

    def expert_response(self) -> str:
        """What the expert writes in the current state."""
        action = expert_action(self._task, self._state)
        if self.expert == "hasty":
            # From the state alone, so that a restored environment goes on with the same responses.
            action = hasty_action(self._task, self._state, random.Random(f"{self.task_id} {len(self.history)}"))
        return render.format_response(action, self.action_format)

    def _start(self, task_id: str) -> str:
        self._task = generate_task(task_id)
        self._state = first_state(self._task)
        return render.first_feedback(self._task)

    def _apply(self, response: str) -> Transition:
        action = parse_action(response, self.action_format)
        if isinstance(action, Invalid):
            penalty = reward.step_reward(self._state, invalid=True, protocol=self.protocol)
            feedback = render.invalid_feedback(action.reason)
            return Transition(feedback, INVALID_ACTION, penalty, invalid_action=action.reason)
        effect = apply_action(self._task, self._state, action)
        self._state = effect.state
        return Transition(
            effect.feedback,
            action_text(action),
            reward.step_reward(self._state, invalid=False, protocol=self.protocol),
            terminated=self._state.outcome != "playing",
        )

    def _observation(self, feedback: str) -> str:
        if self.context == "append":
            return feedback
        length = self.protocol.history_length
        shown = self.history if length is None else self.history[-length:]
        return render.rebuilt_prompt(
            self._task,
            self._state,
            done=[exchange.action for exchange in shown],
            feedback=feedback if self.history else "",
            admissible=self._admissible_actions(),
        )

    def _state_key(self) -> str:
        return json.dumps([self.task_id, *self._get_task_state().values()])

    def _admissible_actions(self) -> tuple[str, ...]:
        return tuple(action_text(action) for action in possible_actions(self._task, self._state))

    def _success(self) -> bool:
        return self._state.outcome == "opened"

    def _metrics(self) -> dict[str, float]:
        return reward.metrics(self._state)

    def _get_task_state(self) -> dict[str, Any]:
        return dataclasses.asdict(self._state)

    def _set_task_state(self, state: dict[str, Any]) -> None:
        self._task = generate_task(self.task_id)
        self._state = State(**{**state, "contents": tuple(state["contents"]), "opened": tuple(state["opened"])})
