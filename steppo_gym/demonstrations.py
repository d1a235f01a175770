"""Episodes written by an environment's expert, as text, for warm starts.

    demonstrations = demonstrate(EnvSpec("steppo/KeyDoor-v0"), task_ids, seed=0)

A demonstration is not a record of a policy: it has no tokens, so that a tokenizer can still be trained on it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from steppo_gym.workers import EnvSpec


@dataclass(frozen=True)
class DemonstratedStep:
    """One observation and what the expert wrote."""

    observation: str
    response: str
    slip: bool = False
    """The expert erred on purpose here: an example of what may happen, not of what to do."""


@dataclass(frozen=True)
class Demonstration:
    """One episode of the expert."""

    task_id: str
    system_prompt: str
    steps: tuple[DemonstratedStep, ...]
    success: bool
    context: str


def demonstrate(spec: EnvSpec, task_ids: Sequence[str], *, seed: int, num_workers: int = 0) -> Iterator[Demonstration]:
    """Play one episode per task with the expert, in order.

    Args:
        spec: the environment.
        task_ids: one episode each; the i-th is reset with a seed derived from `seed` and i.
        seed: equal seeds give equal demonstrations, whatever `num_workers`.
        num_workers: processes; 0 plays in this one.
    """
    jobs = [(task_id, seed * 1_000_003 + number) for number, task_id in enumerate(task_ids)]
    if num_workers == 0:
        player = _Player(spec)
        yield from map(player.play, jobs)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(num_workers, initializer=_start_player, initargs=(spec,)) as pool:
        yield from pool.imap(_play, jobs, chunksize=8)


class _Player:
    def __init__(self, spec: EnvSpec) -> None:
        self.env = spec.make()

    def play(self, job: tuple[str, int]) -> Demonstration:
        task_id, seed = job
        observation, info = self.env.reset(seed=seed, options={"task_id": task_id})
        steps, over = [], False
        while not over:
            response = self.env.expert_response()
            steps.append(DemonstratedStep(observation, response, self.env.expert_slip))
            observation, _, terminated, truncated, info = self.env.step(response)
            over = terminated or truncated
        return Demonstration(task_id, self.env.system_prompt, tuple(steps), info["success"], self.env.context)


# A pool worker keeps its environment in its own module.
_play_in_worker: list[partial[Demonstration]] = []


def _start_player(spec: EnvSpec) -> None:
    _play_in_worker.append(partial(_Player.play, _Player(spec)))


def _play(job: tuple[str, int]) -> Demonstration:
    return _play_in_worker[-1](job)
