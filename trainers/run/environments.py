"""The environments of a run, opened before anything is made for them: what is wrong with one ends the run in a line."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from steppo_gym.env import TextEnv
from steppo_gym.registration import find_modules_here
from steppo_gym.rollouts.env_host import EnvDescription, EnvHost
from steppo_gym.trainers.evaluation import EvaluationSet, first_tasks
from steppo_gym.trainers.reading import in_one_line
from steppo_gym.trainers.run.arguments import script_name
from steppo_gym.trainers.run.checks import refuse
from steppo_gym.trainers.run.settings import RunSettings
from steppo_gym.trainers.run.starts import spread

READ_TASKS = 16
"""Of training, at even distances, that are looked at to know them again."""


@dataclass(frozen=True)
class Environments:
    """What is known of a run's environments before anything is made for them."""

    description: EnvDescription
    tests: list[EvaluationSet]
    watched: list[EvaluationSet]
    """Held-out tasks that are played during training."""
    mark: str
    """Differs where the tasks of the run do."""
    remarks: list[str]
    """What whoever reads the scores of held-out tasks has to know, a line each."""


def open_environments(settings: RunSettings) -> Environments:
    """Make an environment of each split of the run, and exit with one line if that cannot be done."""
    find_modules_here(settings.preset.env_id)
    host = EnvHost(settings.train_spec())
    try:
        description = host.describe()
        host.close()
        splits = settings.preset.test_splits if settings.run.test_tasks else ()
        tests = _held_out(settings, splits, settings.run.test_tasks)
        splits = settings.preset.validation_splits if settings.run.validation_tasks else ()
        watched = tests if settings.run.watch == "test" else _held_out(settings, splits, settings.run.validation_tasks)
        with contextlib.closing(settings.train_spec().make()) as env:
            played = {"test_tasks": tests, "validation_tasks": [] if watched is tests else watched}
            held_out = [part for sets in played.values() for part in sets]
            if settings.run.data is not None:
                _require_apart(env, held_out)
                remarks = _beginnings(played)
            else:
                # The built-in data has no order, and an environment of one's own may have no splits.
                remarks = _trained_on(env, held_out)
            return Environments(description, tests, watched, _mark(env, [*tests, *watched]), remarks)
    except Exception as error:
        said = f"{settings.preset.env_id}: {in_one_line(error)}"
        refuse(f"{script_name(settings.rule.title())}.py: {said}")


def _mark(env: TextEnv, held_out: Sequence[EvaluationSet]) -> str:
    """Of the ids of all tasks, and of what some are where files say so: these may change under a run."""
    ids = list(env.task_ids)
    read = sha256("\n".join([*ids, *(task for part in held_out for task in part.task_ids)]).encode())
    if type(env).task_content is not TextEnv.task_content:
        for task in spread(ids, READ_TASKS):
            read.update(env.task_content(task))
    return read.hexdigest()[:16]


def _held_out(settings: RunSettings, splits: Sequence[str], number: int) -> list[EvaluationSet]:
    return [first_tasks(split, settings.preset.spec(split, settings.env_kwargs), number) for split in splits]


def _beginnings(played: Mapping[str, Sequence[EvaluationSet]]) -> list[str]:
    """Of sets that are only the beginning of their split, a line each; by the flag that says how many are played."""
    return [
        f"{one.name} is the first {len(one.task_ids)} of {one.num_in_split} tasks, and files may be sorted by kind "
        f"of task: --{flag} {one.num_in_split} plays all."
        for flag, sets in played.items()
        for one in sets
        if one.num_in_split is not None and 0 < len(one.task_ids) < one.num_in_split
    ]


def _trained_on(env: TextEnv, held_out: Sequence[EvaluationSet]) -> list[str]:
    """Of sets with tasks that are trained on, a line each: the same ids, and not only because each split counts so."""
    said = []
    for part in held_out:
        both = _also_in(env, part)
        if not both:
            continue
        with contextlib.closing(part.spec.make()) as other:
            if any(env.task_content(task) == other.task_content(task) for task in spread(both, READ_TASKS)):
                said.append(
                    f"{part.name}: {len(both)} of its {len(part.task_ids)} tasks have the ids of tasks that are "
                    "trained on, and begin like these. Scores on them are of no new tasks."
                )
    return said


def _also_in(env: TextEnv, part: EvaluationSet) -> list[str]:
    """The tasks of a set whose ids an environment has as well."""
    return [task for task in part.task_ids if env.has_task(task)]


def _require_apart(env: TextEnv, held_out: Sequence[EvaluationSet]) -> None:
    """Refuse files with tasks that are trained on among those held out, as where one file stands for every split.

    Raises:
        ValueError: there are such tasks.
    """
    for part in held_out:
        both = _also_in(env, part)
        if both:
            raise ValueError(
                f"{len(both)} of the {len(part.task_ids)} tasks held out as {part.name!r} are trained on as well. Let "
                "--data name a folder with a file for each split, or hold none out: --test_tasks 0 "
                "--validation_tasks 0."
            )
