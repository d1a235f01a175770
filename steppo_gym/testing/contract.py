"""An environment whose every answer is checked for its form, and the error that says which rule was broken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import gymnasium
import numpy as np

from steppo_gym.env import TextEnv
from steppo_gym.errors import SteppoGymError

INFO_TYPES: dict[str, type | tuple[type, ...]] = {
    "task_id": str,
    "state_key": str,
    "admissible_actions": (tuple, type(None)),
    "invalid_action": (str, type(None)),
    "success": bool,
    "metrics": dict,
}
"""The keys of `info` at every reset and step, and the types of their values."""
MAX_FOUND_CHARS = 500


class ContractError(SteppoGymError, AssertionError):
    """An environment breaks a rule; the message says which, and what was found."""


@dataclass(frozen=True)
class Result:
    """What `reset` or `step` returned, comparable by value; a reset has no reward and no end."""

    observation: str
    info: dict[str, Any]
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False

    @property
    def over(self) -> bool:
        """Whether the episode ended here."""
        return self.terminated or self.truncated


class CheckedEnv:
    """Passes calls on and checks what comes back.

    Args:
        env: wrapped or not.

    Raises:
        ContractError: `env` is no `TextEnv`; from the methods, an answer of the wrong form.
    """

    def __init__(self, env: gymnasium.Env[str, str]) -> None:
        require(isinstance(env.unwrapped, TextEnv), "the environment is a TextEnv", type(env.unwrapped).__name__)
        self.env = env
        self.text_env = cast(TextEnv, env.unwrapped)

    def reset(self, **kwargs: Any) -> Result:
        """As the environment's."""
        observation, info = self.env.reset(**kwargs)
        return self._checked(Result(observation, info))

    def step(self, response: str) -> Result:
        """As the environment's."""
        observation, reward, terminated, truncated, info = self.env.step(response)
        ends = (terminated, truncated)
        require(all(type(end) is bool for end in ends), "terminated and truncated are bool", ends)
        require(not all(ends), "an episode is either terminated or truncated, never both", ends)
        require(type(reward) is float and bool(np.isfinite(reward)), "the reward is a finite float", reward)
        return self._checked(Result(observation, info, cast(float, reward), terminated, truncated))

    def _checked(self, result: Result) -> Result:
        info = result.info
        observed = result.observation in self.env.observation_space
        require(observed, "an observation is in the observation space", result.observation)
        require(set(info) == set(INFO_TYPES), f"info has exactly the keys {sorted(INFO_TYPES)}", sorted(info))
        for key, expected in INFO_TYPES.items():
            names = " or ".join(kind.__name__ for kind in (expected if isinstance(expected, tuple) else (expected,)))
            require(isinstance(info[key], expected), f"info[{key!r}] is of type {names}", repr(info[key]))
        actions = info["admissible_actions"] or ()
        require(all(isinstance(action, str) for action in actions), "admissible actions are strings", actions)
        scores = info["metrics"].values()
        require(all(isinstance(score, float) for score in scores), "metrics are floats", info["metrics"])
        return result


def differences(one: Result, other: Result) -> dict[str, tuple[Any, Any]]:
    """What two results differ in, by its name."""
    parts, others = ({**vars(result), **result.info} for result in (one, other))
    names = sorted((parts.keys() | others.keys()) - {"info"})
    return {name: (parts.get(name), others.get(name)) for name in names if parts.get(name) != others.get(name)}


def require(kept: bool, rule: str, found: object) -> None:
    """Raise a ContractError that says `rule` and what was found unless `kept`."""
    if not kept:
        raise ContractError(f"Rule: {rule}. Found: {str(found)[:MAX_FOUND_CHARS]!r}.")


def require_raises(expected: type[Exception], rule: str, call: Callable[[], object]) -> None:
    """Require that a call raises this error and no other."""
    try:
        found = f"no error but {call()!r}"
    except expected:
        return
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
    require(False, f"{rule} raises {expected.__name__}", found)
