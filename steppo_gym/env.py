"""The base of all environments: one action is one full text response.

`TextEnv` keeps the books (step counter, end of the episode, history, info) and leaves to a task what is the task's own:
how an episode starts, what a response does, and how the state is written as text. It never sees tokens or chat
templates.

    import gymnasium, steppo_gym
    env = gymnasium.make("steppo/KeyDoor-v0")
    observation, info = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step("<action>read note</action>")
"""

from __future__ import annotations

import abc
import dataclasses
import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

from steppo_gym.actions import ACTION, ACTION_FORMATS, ActionFormat, text_tool
from steppo_gym.errors import EpisodeOverError, UnknownTaskError
from steppo_gym.keywords import CONTEXTS, Context, check_choice, unknown_keyword_message, unknown_task_message
from steppo_gym.protocol import EnvProtocol, overridden
from steppo_gym.snapshot import (
    EnvSnapshot,
    bad_snapshot,
    canonical_json,
    restored,
    restored_generator,
    state_digest,
)
from steppo_gym.spaces import FreeText
from steppo_gym.transition import Exchange, Transition, transcript


class TextEnv(gymnasium.Env[str, str], abc.ABC):
    """Base of the text environments. An action is any string; an invalid one costs a step and changes nothing.

    Subclasses set `task_ids` and implement the five abstract members: `system_prompt`, `_start`, `_apply`,
    `_get_task_state` and `_set_task_state`. The other hooks do something sensible until they are overridden.

    Args:
        protocol: the rules of the task.
        experts: who can write `expert_response`, where there is a choice.
        expert: one of `experts`; the first by default.
        max_steps: overrides the protocol's.
        invalid_action_reward: overrides the protocol's; 0 or negative.
        action_format: "tag" (`<action>..</action>`) or "tool_call" (`<tool_call>{..}</tool_call>`).
        context: "rebuilt": every observation is a complete prompt for the current state. "append": an observation holds
            only what is new and the prompt is the conversation so far.
        render_mode: None or "ansi" (the transcript of the episode).
        unknown: keywords that no class of the environment takes.

    Raises:
        TypeError: a keyword that does not exist, or an abstract member that is missing.
        ValueError: an argument outside its range.
    """

    metadata = {"render_modes": ["ansi"], "render_fps": 1}  # noqa: RUF012 - gymnasium declares it as an instance attribute

    task_ids: Sequence[str]
    """All tasks of the split, in a fixed order."""

    expert_slip = False
    """Whether the last `expert_response` was a deliberate mistake, which a warm start should not imitate."""

    text_version = ""
    """What the texts depend on beside arguments and Python sources, such as the hash of a data file; another value
    makes another warm start."""

    _spec: EnvSpec | None = None

    def __init__(
        self,
        protocol: EnvProtocol,
        *,
        experts: Sequence[str] = (),
        expert: str | None = None,
        max_steps: int | None = None,
        invalid_action_reward: float | None = None,
        action_format: ActionFormat = "tag",
        context: Context = "rebuilt",
        render_mode: str | None = None,
        **unknown: object,
    ) -> None:
        if unknown:
            raise TypeError(unknown_keyword_message(type(self), next(iter(unknown))))
        if expert is not None:
            check_choice("expert", expert, experts or (None,))
        check_choice("action_format", action_format, ACTION_FORMATS)
        check_choice("context", context, CONTEXTS)
        check_choice("render_mode", render_mode, (None, *self.metadata["render_modes"]))
        self.protocol = overridden(protocol, max_steps=max_steps, invalid_action_reward=invalid_action_reward)
        self.max_steps = self.protocol.max_steps
        self.expert = expert or next(iter(experts), "")
        self.action_format: ActionFormat = action_format
        self.context: Context = context
        self.render_mode = render_mode
        self.observation_space = FreeText()
        self.action_space = FreeText()
        self.task_id = ""
        self.num_steps = 0
        self.history: list[Exchange] = []
        self._feedback = ""
        self._solved = False
        self._started = False
        self._over = True

    # What a task must define.

    @property
    @abc.abstractmethod
    def system_prompt(self) -> str:
        """What the agent is told once, before the first observation."""

    @abc.abstractmethod
    def _start(self, task_id: str) -> str:
        """Set up the task and return the first feedback."""

    @abc.abstractmethod
    def _apply(self, response: str) -> Transition:
        """Carry out one response."""

    @abc.abstractmethod
    def _get_task_state(self) -> Any:
        """The task's own part of the snapshot, JSON-serializable."""

    @abc.abstractmethod
    def _set_task_state(self, state: Any) -> None:
        """Restore what `_get_task_state` returned, or raise a DataError; all else is restored already."""

    # What a task may define.

    @property
    def tools(self) -> list[dict[str, Any]]:
        """JSON schemas of the tools, empty unless `action_format` is "tool_call"; by default that of `parse_text`."""
        tool = text_tool(ACTION, "Carry out one action.", **{ACTION: "The action."})
        return [tool] if self.action_format == "tool_call" else []

    def expert_response(self) -> str:
        """What a scripted expert writes in the current state, in the active `action_format`, after `reset`."""
        raise NotImplementedError(f"{type(self).__name__} has no expert: it does not define expert_response.")

    def retold(self, texts: Sequence[str], rng: random.Random) -> list[str]:
        """The texts of an episode as those of another task: its names exchanged for others, alike in all texts.

        A policy that imitates episodes retold anew each time has to read the names, as it cannot know them by heart.

        Args:
            texts: observations and responses of a whole episode, in order.
            rng: draws the names; the state of the environment plays no part.
        """
        raise NotImplementedError(f"{type(self).__name__} cannot tell episodes anew: it does not define retold.")

    def _observation(self, feedback: str) -> str:
        """Write the current state as an observation, in the active `context`; rebuilt it is by default the history."""
        return feedback if self.context == "append" else transcript(self._shown_history(), feedback)

    def task_content(self, task_id: str) -> bytes:
        """What a task is, for the hash in a panel: the same bytes wherever the task is the same, and no others.

        Tasks of files give what decides how they are played and scored, free of this package's own wording. By default
        it is what the environment says first, for which an episode begins.
        """
        self.reset(seed=0, options={"task_id": task_id})
        return canonical_json({"first_feedback": self._feedback})

    def _state_key(self) -> str:
        """A string that is equal exactly when the hidden state is equal."""
        return state_digest(self.task_id, self._get_task_state())

    def _admissible_actions(self) -> tuple[str, ...] | None:
        """The actions that do something now, None if they cannot be listed."""
        return None

    def _success(self) -> bool:
        """Whether the task has been solved."""
        return self._solved

    def _metrics(self) -> dict[str, float]:
        """The task's own scores, complete at the end of the episode."""
        return {}

    # What is the same for all tasks.

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: seeds `np_random`, from which the task is drawn and all else that is random.
            options: {"task_id": ..} picks the task.

        Raises:
            UnknownTaskError: no such task in this split.
            ValueError: an option other than `task_id`, or there are no tasks.
            TypeError: the options are no mapping, or `task_ids` no texts.
        """
        super().reset(seed=seed)
        if not isinstance(options, Mapping | None):
            raise TypeError(f"The options of reset are an object such as {{'task_id': ..}}, got {options!r:.200}.")
        options = dict(options or {})
        task_id = options.pop("task_id", None)
        if options:
            raise ValueError(f"Unknown reset options {sorted(map(str, options))}. The only option is 'task_id'.")
        if len(self.task_ids) and not isinstance(self.task_ids[0], str):
            raise TypeError(f"{type(self).__name__} must have texts as task_ids, found {self.task_ids[0]!r:.200}.")
        if task_id is None:
            if not len(self.task_ids):
                raise ValueError(f"{type(self).__name__} has no task to draw: its task_ids are empty.")
            task_id = self.task_ids[int(self.np_random.integers(len(self.task_ids)))]
        else:
            self.require_task(task_id)
        self.task_id = task_id
        self.num_steps = 0
        self.history = []
        self._solved = False
        self.expert_slip = False
        # Should the start fail, no step may follow on what is left of another episode.
        self._started = False
        self._feedback = self._start(task_id)
        self._started, self._over = True, False
        return self._observation(self._feedback), self._info(None)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Carry out one full response.

        Returns:
            observation, reward, terminated (over by the task's own rules), truncated (stopped by `max_steps`; never
            both), info.

        Raises:
            EpisodeOverError: the episode is over or was never started.
            TypeError: the action is not a string, or `_apply` gave no `Transition`.
        """
        if self._over or not self._started:
            raise EpisodeOverError("The episode is over or was never started. Call reset() first.")
        if not isinstance(action, str):
            raise TypeError(f"An action is one full response as a string, got {type(action).__name__}.")
        transition = self._apply(action)
        if not isinstance(transition, Transition):
            found = type(transition).__name__
            raise TypeError(f"{type(self).__name__}._apply must return a steppo_gym.Transition, got {found}.")
        self.history.append(Exchange(self._feedback, transition.action))
        self._feedback = transition.feedback
        self._solved = self._solved if transition.success is None else transition.success
        self.num_steps += 1
        truncated = not transition.terminated and self.num_steps >= self.max_steps
        self._over = transition.terminated or truncated
        observation = self._observation(self._feedback)
        info = self._info(transition.invalid_action)
        return observation, float(transition.reward), transition.terminated, truncated, info

    def render(self) -> str | None:  # type: ignore[override]
        """The transcript of the episode so far when `render_mode` is "ansi"."""
        return None if self.render_mode is None else transcript(self.history, self._feedback)

    @property
    def spec(self) -> EnvSpec | None:
        """What `gymnasium.make` made this of, with this environment's own limit as `max_episode_steps`.

        A copy is made of it with `gymnasium.make(env.spec, max_episode_steps=-1)`, lest Gymnasium add a second limit.
        """
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self._spec = spec and dataclasses.replace(spec, max_episode_steps=self.max_steps)

    def has_task(self, task_id: str) -> bool:
        """Whether `task_id` is one of `task_ids`."""
        return task_id in self.task_ids

    def require_task(self, task_id: object) -> None:
        """Raise an UnknownTaskError, which shows what ids look like, unless there is such a task."""
        if not isinstance(task_id, str) or not self.has_task(task_id):
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))

    def get_state(self) -> dict[str, Any]:
        """A JSON-serializable snapshot from which `set_state` continues with the same bytes.

        Raises:
            EpisodeOverError: no episode was started.
        """
        self._require_episode("take a snapshot of")
        return {
            "task_id": self.task_id,
            "num_steps": self.num_steps,
            "history": [[exchange.feedback, exchange.action] for exchange in self.history],
            "feedback": self._feedback,
            # Those of NumPy, which steps may have, cannot be written.
            "success": bool(self._solved),
            "over": bool(self._over),
            "random": self.np_random.bit_generator.state,
            "task": self._get_task_state(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a snapshot of `get_state`, in this or another process.

        After an error there is no episode to go on with.

        Raises:
            UnknownTaskError: the snapshot's task is not in this split.
            DataError: it is no snapshot of this environment, or its parts contradict each other.
        """
        self._started = False
        self.expert_slip = False
        known = restored(state, EnvSnapshot)
        num_steps, history = known["num_steps"], known["history"]
        self.require_task(known["task_id"])
        if num_steps != len(history):
            raise bad_snapshot(f"expected as many steps as exchanges, found {num_steps} and {len(history)}")
        if num_steps >= self.max_steps and not known["over"]:
            raise bad_snapshot(f"expected an end after {self.max_steps} steps, found an episode that goes on")
        self.task_id = known["task_id"]
        self.num_steps = num_steps
        self.history = [Exchange(feedback, action) for feedback, action in history]
        self._feedback = known["feedback"]
        self._solved = known["success"]
        self.np_random = restored_generator(known["random"])
        self._over = known["over"]
        self._set_task_state(known["task"])
        self._started = True

    def _require_episode(self, use: str) -> None:
        """Raise an EpisodeOverError that says what an episode is needed for, unless one has been started."""
        if not self._started:
            raise EpisodeOverError(f"There is no episode to {use}. Call reset() first.")

    def _check_end(self, over: bool) -> None:
        """Raise a DataError if a snapshot goes on although the task is over by its own rules."""
        if over and not self._over:
            raise bad_snapshot("expected an end, as the task is over, found an episode that goes on")

    def _shown_history(self) -> list[Exchange]:
        """The end of the history, as much as the protocol shows in a rebuilt prompt."""
        length = self.protocol.history_length
        return self.history if length is None else self.history[max(0, len(self.history) - length) :]

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
