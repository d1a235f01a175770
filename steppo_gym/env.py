"""The base of all environments: one action is one full text response.

`TextEnv` keeps the books (step counter, end of the episode, history, info) and leaves to a task what is the task's own:
how an episode starts, what a response does, and how the state is written as text. It never sees tokens or chat
templates.

    import gymnasium, steppo_gym
    env = gymnasium.make("steppo/KeyDoor-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("<action>look</action>")
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, get_args

import gymnasium
import numpy as np

from steppo_gym.actions import ACTION_FORMATS, ActionFormat
from steppo_gym.errors import EpisodeOverError, UnknownTaskError
from steppo_gym.spaces import FreeText

Context = Literal["rebuilt", "append"]
CONTEXTS: tuple[Context, ...] = get_args(Context)


@dataclass(frozen=True)
class EnvProtocol:
    """The rules of one published way to run a task."""

    max_steps: int
    """Steps before the episode is truncated."""
    success_reward: float
    """Reward of the step that reaches the goal."""
    invalid_action_reward: float
    """Added to the reward of a step whose response was invalid: 0 or negative."""
    history_length: int | None
    """(Observation, action) pairs shown in a rebuilt prompt; None shows all."""


P = TypeVar("P", bound=EnvProtocol)


def overridden(protocol: P, **changes: float | None) -> P:
    """The protocol with the values that were given; None keeps the protocol's.

    Raises:
        ValueError: `invalid_action_reward` is positive or no number.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    reward = given.get("invalid_action_reward", 0.0)
    if not -1e6 <= reward <= 0:
        raise ValueError(f"invalid_action_reward must be 0 or negative, got {reward}.")
    return dataclasses.replace(protocol, **given)  # type: ignore[arg-type]


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


@dataclass(frozen=True)
class Exchange:
    """One step of the history: what was said before the action, and the action."""

    feedback: str
    action: str


class TextEnv(gymnasium.Env[str, str]):
    """Base of the text environments. An action is any string; an invalid one costs a step and changes nothing.

    Subclasses set `task_ids`, `system_prompt` and `tools` and implement the methods that raise `NotImplementedError`
    here.

    Args:
        max_steps: steps before the episode is truncated.
        action_format: "tag" (`<action>..</action>`) or "tool_call" (`<tool_call>{..}</tool_call>`).
        context: "rebuilt": every observation is a complete prompt for the current state. "append": an observation holds
            only what is new and the prompt is the conversation so far.
        render_mode: None or "ansi" (the transcript of the episode).

    Raises:
        ValueError: an argument outside its range.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - gymnasium declares it as an instance attribute

    task_ids: Sequence[str]
    """All tasks of the split, in a fixed order."""

    expert_slip = False
    """Whether the last `expert_response` was a deliberate mistake, which a warm start should not imitate."""

    def __init__(
        self,
        *,
        max_steps: int,
        action_format: ActionFormat = "tag",
        context: Context = "rebuilt",
        render_mode: str | None = None,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
        check_choice("action_format", action_format, ACTION_FORMATS)
        check_choice("context", context, CONTEXTS)
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.max_steps = max_steps
        self.action_format: ActionFormat = action_format
        self.context: Context = context
        self.render_mode = render_mode
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self.task_id = ""
        self.num_steps = 0
        self.history: list[Exchange] = []
        self._feedback = ""
        self._over = True

    # What a task defines.

    @property
    def system_prompt(self) -> str:
        """What the agent is told once, before the first observation."""
        raise NotImplementedError

    @property
    def tools(self) -> list[dict[str, Any]]:
        """JSON schemas of the tools, empty unless `action_format` is "tool_call"."""
        raise NotImplementedError

    def expert_response(self) -> str:
        """What a scripted expert writes in the current state, in the active `action_format`."""
        raise NotImplementedError

    def _start(self, task_id: str) -> str:
        """Set up the task and return the first feedback."""
        raise NotImplementedError

    def _apply(self, response: str) -> Transition:
        """Carry out one response."""
        raise NotImplementedError

    def _observation(self, feedback: str) -> str:
        """Write the current state as an observation, in the active `context`."""
        raise NotImplementedError

    def _state_key(self) -> str:
        """A string that is equal exactly when the hidden state is equal."""
        raise NotImplementedError

    def _admissible_actions(self) -> tuple[str, ...] | None:
        """The actions that do something now, None if they cannot be listed."""
        raise NotImplementedError

    def _success(self) -> bool:
        """Whether the task has been solved."""
        raise NotImplementedError

    def _metrics(self) -> dict[str, float]:
        """The task's own scores, complete at the end of the episode."""
        raise NotImplementedError

    def _get_task_state(self) -> Any:
        """The task's own part of the snapshot, JSON-serialisable."""
        raise NotImplementedError

    def _set_task_state(self, state: Any) -> None:
        """Restore what `_get_task_state` returned; `task_id` is set already."""
        raise NotImplementedError

    # What is the same for all tasks.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seeds `np_random`, from which the task is drawn and all else that is random.
            options: {"task_id": ..} picks the task.

        Raises:
            UnknownTaskError: no such task in this split.
            ValueError: an option other than `task_id`.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        task_id = options.pop("task_id", None)
        if options:
            raise ValueError(f"Unknown reset options {sorted(options)}. The only option is 'task_id'.")
        if task_id is None:
            task_id = self.task_ids[int(self.np_random.integers(len(self.task_ids)))]
        elif not self.has_task(task_id):
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        self.task_id = task_id
        self.num_steps = 0
        self.history = []
        self._over = True  # should the start fail, no step may follow on what is left of another episode
        self._feedback = self._start(task_id)
        self._over = False
        return self._observation(self._feedback), self._info(None)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one full response.

        Returns:
            observation, reward, terminated (over by the task's own rules), truncated (stopped by `max_steps`; never
            both), info.

        Raises:
            EpisodeOverError: the episode is over or was never started.
            TypeError: the action is not a string.
        """
        if self._over:
            raise EpisodeOverError("The episode is over or was never started. Call reset() first.")
        if not isinstance(action, str):
            raise TypeError(f"An action is one full response as a string, got {type(action).__name__}.")
        transition = self._apply(action)
        self.history.append(Exchange(self._feedback, transition.action))
        self._feedback = transition.feedback
        self.num_steps += 1
        truncated = not transition.terminated and self.num_steps >= self.max_steps
        self._over = transition.terminated or truncated
        observation = self._observation(self._feedback)
        info = self._info(transition.invalid_action)
        return observation, float(transition.reward), transition.terminated, truncated, info

    def render(self) -> str | None:  # type: ignore[override]
        """The transcript of the episode so far when `render_mode` is "ansi"."""
        if self.render_mode is None:
            return None
        lines = [line for exchange in self.history for line in (exchange.feedback, f"> {exchange.action}")]
        return "\n".join([*lines, self._feedback])

    def has_task(self, task_id: str) -> bool:
        """Whether `task_id` is one of `task_ids`."""
        return task_id in self.task_ids

    def get_state(self) -> dict[str, Any]:
        """A JSON-serialisable snapshot from which `set_state` continues with the same bytes.

        Raises:
            EpisodeOverError: no episode was ever started.
        """
        if not self.task_id:
            raise EpisodeOverError("There is no episode to take a snapshot of. Call reset() first.")
        return {
            "task_id": self.task_id,
            "num_steps": self.num_steps,
            "history": [[exchange.feedback, exchange.action] for exchange in self.history],
            "feedback": self._feedback,
            "over": self._over,
            "random": self.np_random.bit_generator.state,
            "task": self._get_task_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of `get_state`, in this or another process.

        Raises:
            UnknownTaskError: the snapshot's task is not in this split.
        """
        if not self.has_task(state["task_id"]):
            raise UnknownTaskError(unknown_task_message(state["task_id"], self.task_ids))
        self.task_id = state["task_id"]
        self.num_steps = int(state["num_steps"])
        self.history = [Exchange(feedback, action) for feedback, action in state["history"]]
        self._feedback = state["feedback"]
        self._over = bool(state["over"])
        generator = np.random.Generator(np.random.PCG64())
        generator.bit_generator.state = state["random"]
        self.np_random = generator
        self._set_task_state(state["task"])

    def _draw_seed(self) -> int:
        """Draw what an episode's expert is seeded with.

        With the task in it, one seed for many tasks does not make an expert err in the same steps of all of them.
        """
        drawn = f"{self.np_random.integers(2**32)} {self.task_id}"
        return int.from_bytes(hashlib.sha256(drawn.encode()).digest()[:6])

    def _info(self, invalid_action: str | None) -> dict[str, Any]:
        return {
            "task_id": self.task_id,
            "state_key": self._state_key(),
            "admissible_actions": self._admissible_actions(),
            "invalid_action": invalid_action,
            "success": self._success(),
            "metrics": self._metrics(),
        }


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    """Raise a ValueError that lists the choices unless `value` is one of them."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def unknown_task_message(task_id: object, task_ids: Sequence[str]) -> str:
    """Say which task was asked for and what the known ones look like."""
    examples = ", ".join(repr(task_ids[i]) for i in range(min(3, len(task_ids))))
    return (
        f"Unknown task_id {task_id!r}. This split has {len(task_ids)} tasks, for example {examples}; "
        "see env.unwrapped.task_ids."
    )
