"""What an environment's expert does, recorded once and then done again by one and by many environments in turn."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from process_memory import resident
from step_times import StepTimes

NUM_ENVS = (1, 32)

Episodes = list[tuple[str, list[str]]]
"""Tasks, and the responses."""
KindOf = Callable[[str], str]
"""What a response does, by which times are told apart."""


def record_expert(env: Any, num_episodes: int) -> Episodes:
    """One episode for each of the first tasks, which are taken again when all have been."""
    episodes: Episodes = []
    for task_id in itertools.islice(itertools.cycle(env.task_ids), num_episodes):
        env.reset(seed=0, options={"task_id": task_id})
        responses: list[str] = []
        over = False
        while not over:
            responses.append(env.expert_response())
            _, _, terminated, truncated, _ = env.step(responses[-1])
            over = terminated or truncated
        episodes.append((task_id, responses))
    return episodes


def measure_replays(make: Callable[[], Any], episodes: Episodes, kind_of: KindOf, kinds: Sequence[str]) -> None:
    """Print how long environments take to start and to do the same, and their memory, for each of `NUM_ENVS`."""
    before = resident()
    started = time.perf_counter()
    envs = [make()]
    envs[0].reset(seed=0)
    print(f"  start {time.perf_counter() - started:.2f} s on finished files", flush=True)
    for number in NUM_ENVS:
        envs += [make() for _ in range(number - len(envs))]
        times = StepTimes("reset", *kinds)
        for first in range(0, len(episodes), number):
            replay(envs, episodes[first : first + number], kind_of, times)
        memory = resident()
        print(f"  {number} env: {memory:.0f} MiB, {memory - before:.0f} more than without")
        times.report()


def replay(envs: Sequence[Any], episodes: Episodes, kind_of: KindOf, times: StepTimes) -> None:
    """One episode in each of the first environments, step by step in turn. One that ends early has no more steps."""
    for env, (task_id, _) in zip(envs, episodes, strict=False):
        times.call("reset", env.reset, seed=0, options={"task_id": task_id})
    over = [False] * len(episodes)
    for step in range(max(len(responses) for _, responses in episodes)):
        for number, (env, (_, responses)) in enumerate(zip(envs, episodes, strict=False)):
            if step < len(responses) and not over[number]:
                _, _, terminated, truncated, _ = times.call(kind_of(responses[step]), env.step, responses[step])
                over[number] = terminated or truncated
