"""The environments behind an OpenEnv server, and a client that gives back what `gymnasium.make` would.

A server is three lines, as in `examples/adapters/openenv_key_door/server/app.py`:

    from steppo_gym.adapters.openenv import text_app

    app = text_app("steppo/KeyDoor-v0", split="validation")

and a client is a Gymnasium episode over a socket, one session of its own:

    with TextEnvClient(base_url="http://localhost:8000").sync() as client:
        result = client.reset(seed=0, task_id="validation-3")
        result = client.step(TextAction(response="<action>read note</action>"))
        print(result.observation.text, result.reward, result.observation.truncated)

OpenEnv knows `done` alone; which of the two ends it was is a field of our observation, as are the state keys. Whether
the task is solved and its scores come with the last observation alone.
"""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

import gymnasium
from fastapi import FastAPI  # pyright: ignore[reportMissingImports]
from openenv.core import EnvClient  # pyright: ignore[reportMissingImports]
from openenv.core.client_types import StepResult  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.http_server import create_app  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.interfaces import Environment  # pyright: ignore[reportMissingImports]
from openenv.core.env_server.types import Action, EnvironmentMetadata, Observation, State  # pyright: ignore[reportMissingImports]
from pydantic import Field  # pyright: ignore[reportMissingImports]

from steppo_gym.env import TextEnv


class TextAction(Action):
    """One step."""

    response: str = Field(..., description="One full response of the model, thought and action as it wrote them.")


class TextObservation(Observation):
    """What a step gave. `done` and `reward` are OpenEnv's own fields."""

    text: str = Field(default="", description="What the environment says.")
    truncated: bool = Field(default=False, description="Ended by a limit, not by the task's own rules.")
    task_id: str = Field(default="", description="The task being played.")
    state_key: str = Field(default="", description="Equal exactly where the hidden state is equal.")
    admissible_actions: list[str] | None = Field(
        default=None, description="What can be done now, where it can be listed."
    )
    invalid_action: str | None = Field(default=None, description="Why the response was no action; null if it was one.")
    success: bool | None = Field(default=None, description="Whether the task is solved; null before the end.")
    metrics: dict[str, float] = Field(default_factory=dict, description="The task's own scores; empty before the end.")
    system_prompt: str = Field(default="", description="What the agent is told once; after a reset alone.")


class TextServerEnvironment(Environment):
    """One session: one environment of ours. An error in it ends the session, as OpenEnv's protocol has it.

    Args:
        env_id: for example "steppo/KeyDoor-v0".
        arguments: of `gymnasium.make`.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env_id: str, arguments: dict[str, Any]) -> None:
        super().__init__()
        self._env = cast(TextEnv, gymnasium.make(env_id, **arguments).unwrapped)
        self._env_id = env_id
        # Environments that take no `split` have one set of tasks.
        self._split = str(arguments.get("split", "train"))
        self._state = State(episode_id=str(uuid4()), step_count=0)

    def reset(
        self, seed: int | None = None, episode_id: str | None = None, task_id: str | None = None, **other: Any
    ) -> TextObservation:
        """Start an episode.

        Args:
            seed: of the environment.
            episode_id: a name for the episode; one is made if None.
            task_id: of the task; drawn if None.
            other: nothing is known beside these.

        Raises:
            ValueError: an option that does not exist.
        """
        if other:
            raise ValueError(f"Unknown reset options {sorted(other)}. There are seed, episode_id and task_id.")
        options = None if task_id is None else {"task_id": task_id}
        text, info = self._env.reset(seed=seed, options=options)
        self._state = State(episode_id=episode_id or str(uuid4()), step_count=0)
        return _observation(text, info, system_prompt=self._env.system_prompt)

    def step(self, action: TextAction, timeout_s: float | None = None, **other: Any) -> TextObservation:
        """Carry out one full response; a time limit is the caller's."""
        del timeout_s, other
        text, reward, terminated, truncated, info = self._env.step(action.response)
        self._state.step_count = self._env.num_steps
        return _observation(text, info, reward=reward, done=terminated or truncated, truncated=truncated)

    @property
    def state(self) -> State:
        """The episode's name and its number of steps."""
        return self._state

    def list_splits(self) -> list[str]:
        """The split the server was started with."""
        return [self._split]

    def num_tasks(self, split: str) -> int:
        """How many tasks it has."""
        self._require(split)
        return len(self._env.task_ids)

    def get_task(self, split: str, index: int) -> dict[str, Any]:
        """What to give to `reset` for a task.

        Raises:
            IndexError: there is no such task.
        """
        self._require(split)
        if not 0 <= index < len(self._env.task_ids):
            raise IndexError(f"index must be 0 to {len(self._env.task_ids) - 1}, got {index}.")
        return {"id": self._env.task_ids[index], "index": index}

    def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """All tasks, in their fixed order."""
        return [self.get_task(split, index) for index in range(self.num_tasks(split))]

    def get_metadata(self) -> EnvironmentMetadata:
        """Name and description."""
        return EnvironmentMetadata(name=self._env_id, description=self._env.system_prompt, version="0")

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _require(self, split: str) -> None:
        if split != self._split:
            raise ValueError(f"This server has the split {self._split!r} alone, got {split!r}.")


class TextEnvClient(EnvClient[TextAction, TextObservation, State]):
    """One session on a server of `text_app`."""

    def _step_payload(self, action: TextAction) -> dict[str, Any]:
        return {"response": action.response}

    def _parse_result(self, payload: dict[str, Any]) -> StepResult[TextObservation]:
        done, reward = bool(payload.get("done", False)), payload.get("reward")
        observation = TextObservation.model_validate(payload.get("observation", {}) | {"done": done, "reward": reward})
        return StepResult(observation=observation, reward=reward, done=done)

    def _parse_state(self, payload: dict[str, Any]) -> State:
        return State.model_validate(payload)


def text_app(env_id: str, *, max_concurrent_envs: int = 64, **arguments: Any) -> FastAPI:
    """The web application of an environment; every session has an environment of its own.

    Args:
        env_id: for example "steppo/KeyDoor-v0".
        max_concurrent_envs: more sessions than these are refused.
        arguments: of `gymnasium.make`. The conversation is the client's: the context is "append" by default.
    """
    arguments = {"context": "append"} | arguments

    def make() -> TextServerEnvironment:
        return TextServerEnvironment(env_id, arguments)

    return create_app(
        make, TextAction, TextObservation, env_name=env_id.replace("/", "-"), max_concurrent_envs=max_concurrent_envs
    )


def _observation(text: str, info: dict[str, Any], *, done: bool = False, **given: Any) -> TextObservation:
    """What the client gets. An agent may read all of it, so scores come with the last one alone."""
    actions = info["admissible_actions"]
    known = {name: info[name] for name in ("task_id", "state_key", "invalid_action")}
    scores = {"success": info["success"], "metrics": info["metrics"]} if done else {}
    shown = None if actions is None else list(actions)
    return TextObservation(text=text, admissible_actions=shown, done=done, **known, **scores, **given)
