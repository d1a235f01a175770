"""Environments driven by commands instead of calls, so that they can live in another process.

An `EnvHost` owns one environment per slot, answers every command with a `StepResult` or a `Failure`, and lets no
exception of an environment out. What environments answer is checked here and nowhere else. It is used as it is when the
environments run in this process, and by `steppo_gym.rollouts.worker_process` when they do not.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from steppo_gym.env import TextEnv
from steppo_gym.errors import InfrastructureError
from steppo_gym.keywords import Context
from steppo_gym.rollouts.episode import Failure
from steppo_gym.rollouts.step_result import Result, StepResult, read_answer, read_parts, read_text, read_tools

_CHECKS = (gymnasium.wrappers.PassiveEnvChecker, gymnasium.wrappers.OrderEnforcing)
"""Wrappers that change nothing of what an environment says."""


@dataclass(frozen=True)
class EnvFactory:
    """How to make an environment; picklable, so that every worker can make its own.

    `env_id` is what `gymnasium.make` takes: a registered id, or "module:id" to import first the module that registers
    it. `kwargs` are the keywords of the environment, one mapping.
    """

    env_id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> TextEnv:
        """A new environment, without what Gymnasium puts around it to check calls.

        Raises:
            gymnasium.error.UnregisteredEnv: nothing of that id is registered in this process.
            TypeError: the id names no `TextEnv`, or one in a wrapper, which rollouts would leave out.
        """
        try:
            env: Any = gymnasium.make(self.env_id, **self.kwargs)
        except gymnasium.error.UnregisteredEnv as error:
            if ":" in self.env_id or self.env_id.startswith("steppo/"):
                raise
            hint = f'If a module of yours registers it, write "module:{self.env_id}": each process imports it then.'
            raise type(error)(f"{error} {hint}") from error
        except TypeError as error:
            # Gymnasium repeats all keywords behind what the environment says.
            raise TypeError(str(error).partition(" was raised from the environment creator")[0]) from error
        inner = env.unwrapped
        if not isinstance(inner, TextEnv):
            found = type(inner).__name__
            raise TypeError(f"{self.env_id} must be a steppo_gym.TextEnv to be rolled out, found {found}.")
        while env is not inner:
            if not isinstance(env, _CHECKS):
                raise TypeError(
                    f"{self.env_id} is wrapped in {type(env).__name__}, which rollouts would leave out. What it does "
                    "has to be done by the environment itself; a limit of steps is max_steps."
                )
            env = env.env
        return inner


@dataclass(frozen=True)
class EnvDescription:
    """What is the same in all episodes of an environment and needed for its prompts."""

    context: Context
    system_prompt: str
    tools: tuple[dict[str, Any], ...]
    max_steps: int
    """Steps before the environment truncates an episode."""
    invalid_action_reward: float
    """What its protocol pays for an invalid response."""


@dataclass(frozen=True)
class ResetCommand:
    """Reset the environment of a slot to the start of a task."""

    slot: int
    task_id: str
    seed: int
    needs_expert: bool = False


@dataclass(frozen=True)
class StepCommand:
    """Give a response to the environment of a slot."""

    slot: int
    response: str
    needs_expert: bool = False


@dataclass(frozen=True)
class RestoreCommand:
    """Put the environment of a slot into a state of `TextEnv.get_state`."""

    slot: int
    state: str
    """As JSON, so that no environment can change it for another one."""
    result: StepResult
    """What was answered in that state, and is answered again."""
    needs_expert: bool = False


Command = ResetCommand | StepCommand | RestoreCommand


class EnvHost:
    """One environment per slot, made when its slot is first used and made anew after it raised.

    Args:
        spec: how to make them.
    """

    def __init__(self, spec: EnvFactory) -> None:
        self._spec = spec
        self._envs: dict[int, TextEnv] = {}
        self._spare: TextEnv | None = None

    def describe(self) -> EnvDescription:
        """Make one environment, kept for the first slot that needs one, and say what all of them have in common."""
        env = self._spare = self._spec.make()
        return EnvDescription(
            context=env.context,
            system_prompt=read_text("The system prompt", env.system_prompt),
            tools=read_tools(env.tools),
            max_steps=env.max_steps,
            invalid_action_reward=env.protocol.invalid_action_reward,
        )

    def run(self, command: Command) -> Result:
        """Carry out one command. An exception of the environment becomes a `Failure`, and so does a bad answer."""
        try:
            return self._run(command)
        except InfrastructureError as error:
            return Failure(error.boundary, error.message)
        except (Exception, SystemExit) as error:
            self._drop(command.slot)
            return Failure("environment", describe_error(error))

    def close(self) -> None:
        """Close all environments, whatever state they are in."""
        for env in (*self._envs.values(), self._spare):
            if env is not None:
                with contextlib.suppress(Exception):
                    env.close()
        self._envs, self._spare = {}, None

    def _run(self, command: Command) -> StepResult:
        env = self._env(command.slot)
        started = time.perf_counter()
        match command:
            case ResetCommand():
                answer = env.reset(seed=command.seed, options={"task_id": command.task_id})
                observation, info = read_parts("reset", answer, "observation", "info")
                result = read_answer(observation, 0.0, False, False, info)
            case StepCommand():
                parts = ("observation", "reward", "terminated", "truncated", "info")
                result = read_answer(*read_parts("step", env.step(command.response), *parts))
            case RestoreCommand():
                env.set_state(json.loads(command.state))
                result = command.result
        expert, slip = None, False
        if command.needs_expert and not (result.terminated or result.truncated):
            expert = read_text("The expert's response", env.expert_response())
            slip = bool(env.expert_slip)
        seconds = time.perf_counter() - started
        return dataclasses.replace(result, expert_response=expert, expert_slip=slip, seconds=seconds)

    def _env(self, slot: int) -> TextEnv:
        if slot not in self._envs:
            self._envs[slot] = self._spare or self._spec.make()
            self._spare = None
        return self._envs[slot]

    def _drop(self, slot: int) -> None:
        env = self._envs.pop(slot, None)
        if env is not None:
            with contextlib.suppress(Exception):
                env.close()


def describe_error(error: BaseException) -> str:
    """The error's type, text and place, whatever its own methods do."""
    try:
        text = str(error)
    except Exception:
        text = "an error whose text cannot be shown"
    frames = traceback.extract_tb(error.__traceback__)
    where = f" (in {frames[-1].name}, {frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
