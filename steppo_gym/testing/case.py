"""The environment that the rules of the contract are checked on, and what is done with it again and again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from steppo_gym.actions import format_listed
from steppo_gym.env import TextEnv
from steppo_gym.testing.contract import CheckedEnv, Result

INVALID_RESPONSE = "I do not know what to do."

MakeEnv = Callable[..., gymnasium.Env[str, str]]


@dataclass(frozen=True)
class Case:
    """The environment under test; see `steppo_gym.testing.check_text_env`."""

    make_env: MakeEnv
    episodes: int
    seed: int
    tag: str

    @contextmanager
    def open(self, **kwargs: Any) -> Iterator[CheckedEnv]:
        """A new environment, closed at the end."""
        env = self.make_env(**kwargs)
        try:
            yield CheckedEnv(env)
        finally:
            env.close()

    def tasks(self, env: CheckedEnv) -> list[str]:
        """The tasks to check, the same for the same seed."""
        task_ids = env.text_env.task_ids
        return [task_ids[int(i)] for i in np.random.default_rng(self.seed).permutation(len(task_ids))[: self.episodes]]

    def some_tasks(self) -> list[str]:
        """The tasks to check, of an environment that is made for this."""
        with self.open() as env:
            return self.tasks(env)

    def reset(self, env: CheckedEnv, task_id: str) -> Result:
        """Start this task with the case's seed."""
        return env.reset(seed=self.seed, options={"task_id": task_id})

    def write(self, env: TextEnv, action: str) -> str:
        """A response that does the action."""
        return format_listed(action, env.tools, tag=self.tag)

    def random_response(self, env: CheckedEnv, info: dict[str, Any], rng: np.random.Generator) -> str:
        """An invalid response, an admissible action or the expert's: play that errs and still gets somewhere."""
        kind = rng.random()
        if kind < 0.2:
            return INVALID_RESPONSE
        if kind < 0.6 and info["admissible_actions"]:
            return self.write(env.text_env, str(rng.choice(info["admissible_actions"])))
        return env.text_env.expert_response()

    def random_episode(self, env: CheckedEnv, task_id: str) -> tuple[list[str], list[Result]]:
        """The responses of a whole episode, and the results: one more, the first is the reset's."""
        rng = np.random.default_rng(self.seed)
        responses, results = [], [self.reset(env, task_id)]
        while not results[-1].over:
            responses.append(self.random_response(env, results[-1].info, rng))
            results.append(env.step(responses[-1]))
        return responses, results
