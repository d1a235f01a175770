"""Held-out tasks: fixed, ordered sets; and the scores of a policy on them, which evaluations without training share."""

from __future__ import annotations

from dataclasses import dataclass

from steppo_gym.evaluation.scores import evaluation_metrics
from steppo_gym.rollouts.pool import EnvFactory

__all__ = ["EvaluationSet", "evaluation_metrics", "first_tasks"]


@dataclass(frozen=True)
class EvaluationSet:
    """Tasks of one split, always played in the same order with the same seeds."""

    name: str
    spec: EnvFactory
    task_ids: tuple[str, ...]
    num_in_split: int | None = None
    """Tasks of the whole split, None if that is not known."""


def first_tasks(name: str, spec: EnvFactory, number: int) -> EvaluationSet:
    """The first `number` tasks of an environment's split (all, if it has fewer).

    Raises:
        ValueError: it has none.
    """
    env = spec.make()
    try:
        if not len(env.task_ids):
            raise ValueError(f"There is no task in the split {name!r}.")
        total = len(env.task_ids)
        task_ids = tuple(env.task_ids[i] for i in range(min(number, total)))
    finally:
        env.close()
    return EvaluationSet(name, spec, task_ids, total)
