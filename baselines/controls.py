"""Rows without training: random actions and the environment's expert, on the same test tasks as the algorithms."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.records import checked_out_commit
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import ExpertPolicy, Policy, RandomPolicy
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect

CONTROLS = {"random": "random actions", "expert": "expert"}
"""Key and title of each."""

NUM_SLOTS = 8


def control_seeds(protocol: Protocol, control: str) -> tuple[int, ...]:
    """The seeds a control is played with: one for the expert, who draws nothing; none for what cannot be played."""
    if control == "random":
        return protocol.seeds if protocol.lists_actions else ()
    return protocol.seeds[:1]


def play_control(protocol: Protocol, control: str, seed: int) -> dict[str, Any]:
    """Play the protocol's test tasks and return the line to be recorded."""
    # Imported here, because they bring torch with them, which the matrix itself does not need.
    from steppo_gym.trainers.evaluation import EvaluationSet, evaluation_metrics, first_tasks
    from steppo_gym.trainers.rules import StepPO
    from steppo_gym.trainers.run.arguments import parse_arguments

    started = time.perf_counter()
    settings = parse_arguments(StepPO, ["--env", protocol.env, *protocol.arguments])
    run, preset = settings.run, settings.preset
    tests = [
        first_tasks(split, preset.spec(split, settings.env_kwargs), run.test_tasks) for split in preset.test_splits
    ]

    def scores(test: EvaluationSet) -> Mapping[str, float]:
        assignments = [Assignment(task, seed=position) for position, task in enumerate(test.task_ids)]
        with EnvPool(test.spec, num_slots=NUM_SLOTS, num_workers=0) as pool:
            policy = _policy(control, seed, pool.tools)
            return evaluation_metrics(collect(policy, pool, ByteCodec(), assignments).episodes)

    after = {test.name: scores(test) for test in tests}
    number = sum(len(test.task_ids) for test in tests)
    return {
        "protocol": protocol.name,
        "protocol_hash": protocol.hash,
        "stage": "control",
        "algorithm": control,
        "title": CONTROLS[control],
        "seed": seed,
        "commit": checked_out_commit(),
        "success_after": sum(after[test.name]["success"] * len(test.task_ids) for test in tests) / number,
        "after": after,
        "evaluation_tasks": number,
        "wall_seconds": round(time.perf_counter() - started, 1),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("steppo-gym", "numpy")},
        "hardware": {"machine": platform.machine(), "cpu_count": os.cpu_count()},
    }


def _policy(control: str, seed: int, tools: Sequence[Mapping[str, Any]]) -> Policy:
    if control == "expert":
        return ExpertPolicy(ByteCodec())
    return RandomPolicy(ByteCodec(), seed=seed, tools=tools)
