"""What an expert plays through `gymnasium.make`, which every other way to the environments must give again."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

import steppo_gym  # noqa: F401 - registers the environments


@dataclass(frozen=True)
class Played:
    """One episode: what was written, and what was answered."""

    task_id: str
    first: str
    responses: tuple[str, ...]
    observations: tuple[str, ...]
    rewards: tuple[float, ...]
    ending: str
    success: bool

    @property
    def total(self):
        return sum(self.rewards)


def play_with_slips(env, task_ids):
    """Episodes of an expert that slips, and that says the same when it is asked again.

    Returns:
        The last info of each, with "response" and "terminated" besides, and the numbers of slips and of steps.
    """
    infos, slips, steps = [], 0, 0
    for task_id in task_ids:
        env.reset(seed=1, options={"task_id": task_id})
        over = False
        while not over:
            response = env.expert_response()
            assert env.expert_response() == response
            slips += env.expert_slip
            _, _, terminated, truncated, info = env.step(response)
            steps, over = steps + 1, terminated or truncated
        infos.append(info | {"response": response, "terminated": terminated})
    return infos, slips, steps


def play_expert(env_id, task_id, *, seed=0, steps=None, blunder=None, **arguments):
    """An episode of the expert.

    `blunder` is a response that is written first, and `steps` how many of the expert's follow at most.
    """
    env = gymnasium.make(env_id, **arguments).unwrapped
    first, info = env.reset(seed=seed, options=None if task_id is None else {"task_id": task_id})
    task_id = info["task_id"]
    played, terminated, truncated = [], False, False
    while not (terminated or truncated or (steps is not None and len(played) == steps)):
        response = blunder if blunder is not None and not played else env.expert_response()
        observation, reward, terminated, truncated, info = env.step(response)
        played.append((response, observation, reward, info["success"]))
    env.close()
    responses, observations, rewards, success = zip(*played, strict=True)
    ending = "terminated" if terminated else "truncated" if truncated else "none"
    return Played(task_id, first, responses, observations, rewards, ending, success[-1])
