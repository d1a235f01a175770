"""An environment that does nothing for a given number of steps, each of a given time."""

from __future__ import annotations

import time
from collections.abc import Sequence

import gymnasium

from steppo_gym.env import TextEnv
from steppo_gym.keywords import Context
from steppo_gym.protocol import EnvProtocol
from steppo_gym.transition import Transition

ENV_ID = "timed_env:steppo-benchmark/Timed-v0"


class TimedEnv(TextEnv):
    """The task "12" ends after 12 steps."""

    task_ids: Sequence[str] = tuple(map(str, range(1, 51)))

    def __init__(self, *, step_seconds: float = 0.0, context: Context = "rebuilt") -> None:
        super().__init__(EnvProtocol(max_steps=50), context=context)
        self.step_seconds = step_seconds

    @property
    def system_prompt(self) -> str:
        """The same short text for all tasks."""
        return "Go on."

    def _start(self, task_id: str) -> str:
        return f"Task {task_id} begins."

    def _apply(self, response: str) -> Transition:
        time.sleep(self.step_seconds)
        number = self.num_steps + 1
        return Transition(
            f"{response} was step {number}.", response, terminated=number >= int(self.task_id), success=True
        )

    def _observation(self, feedback: str) -> str:
        return feedback

    def _get_task_state(self) -> None:
        return None

    def _set_task_state(self, state: object) -> None:
        del state


if "steppo-benchmark/Timed-v0" not in gymnasium.registry:
    gymnasium.register("steppo-benchmark/Timed-v0", entry_point="timed_env:TimedEnv")
