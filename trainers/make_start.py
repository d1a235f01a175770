"""Make the policy that runs of a task begin with: it can read, and errs.

    python -m steppo_gym.trainers.make_start --env alfworld

It takes one to two hours on one core, by task; docs/starts.md has recipes and figures. An interrupted
command goes on where it was when it is given again. The same command on the same instruction set makes the same bytes.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import transformers

from steppo_gym.command_line import CommandParser
from steppo_gym.errors import DataError, SteppoGymError
from steppo_gym.evaluation.scores import evaluation_metrics, task_metrics
from steppo_gym.rollouts.open_episode import Assignment
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import collect
from steppo_gym.trainers.evaluation import EvaluationSet, first_tasks
from steppo_gym.trainers.results.saved_policy import SavedPolicy
from steppo_gym.trainers.run.presets import PRESETS, Preset
from steppo_gym.trainers.run.settings import Start
from steppo_gym.trainers.run.starts import CARD, SHIPPED, read_start
from steppo_gym.trainers.setting import check_ranges
from steppo_gym.trainers.warm_start.start import StartRecipe, make_start, start_hash

_PACKAGES = ("alfworld", "safetensors", "steppo-gym", "tokenizers", "torch", "transformers")
_NUM_SLOTS = 50
LEAST = {"seed": 0, "demonstrations": 1, "updates": 1, "tasks": 1}
"""The smallest values of its numbers."""


@dataclass(frozen=True)
class Making:
    """What the command was asked for."""

    env: str
    name: str
    preset: Preset
    recipe: StartRecipe
    seed: int
    tasks: int
    command: str
    origin: Start | None


def main(argv: Sequence[str] | None = None) -> None:
    """Make a start, unless it is there."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        check_ranges(options, LEAST)
    except ValueError as error:
        parser.error(f"--{error}")
    preset = PRESETS[options.env]
    name = options.name or next(iter(preset.starts))
    if name not in preset.starts:
        parser.error(f"--name must be one of {', '.join(preset.starts)}, got {name!r}")
    if options.origin is not None and (options.updates is None or options.out is None):
        parser.error("--from needs --out, and --updates: for how long the policy learns to read again")
    out = options.out or SHIPPED / name
    if (out / CARD).exists() and not options.remake:
        print(f"{read_start(out).folder} is complete; --remake makes it again.")
        return
    # Sums come out the same whatever the machine's cores, and environments need no more.
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    try:
        origin = None if options.origin is None else _origin(options.origin, preset, preset.starts[name])
        making = Making(
            options.env,
            name if origin is None else out.name,
            preset,
            _shortened(preset.starts[name], options.demonstrations, options.updates, whole_fault=origin is not None),
            options.seed,
            options.tasks,
            _command(options, name),
            origin,
        )
        _make(making, out)
    except SteppoGymError as error:
        sys.exit(f"{parser.prog}: {error}")


def _origin(folder: Path, preset: Preset, recipe: StartRecipe) -> Start:
    """The start that is gone on with.

    Raises:
        DataError: there is none in the folder, or it was made for other environments.
    """
    origin, wanted = read_start(folder), {"id": preset.env_id, "kwargs": dict(recipe.env_kwargs)}
    if origin.environment != wanted:
        raise DataError(f"--from: {folder} was made for {origin.environment}, expected one for {wanted}.")
    return origin


def _parser() -> CommandParser:
    parser = CommandParser(prog="make_start", description="Make the policy that runs of a task begin with.")
    having = [env for env, preset in PRESETS.items() if preset.starts]
    parser.add_argument("--env", choices=having, required=True)
    parser.add_argument("--name", help="which start of the task; default: its first")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: where the package's own starts lie")
    parser.add_argument("--seed", type=int, default=0, help="of everything (default: %(default)s)")
    parser.add_argument(
        "--from",
        dest="origin",
        type=Path,
        metavar="FOLDER",
        help="a start that is gone on with, instead of a new policy: it reads again for --updates, then learns the "
        "whole fault; with other seeds these are other starts of one reader",
    )
    parser.add_argument("--remake", action="store_true", help="make it again although it is there")
    parser.add_argument("--demonstrations", type=int, help="episodes of each phase; default: the recipe's")
    parser.add_argument("--updates", type=int, help="of the reading phase; default: the recipe's")
    parser.add_argument(
        "--tasks", type=int, default=100, help="of each validation split, for the card (default: %(default)s)"
    )
    return parser


def _command(options: Any, name: str) -> str:
    """The command that makes the same bytes, wherever they go."""
    chosen = {
        "from": options.origin,
        "demonstrations": options.demonstrations,
        "updates": options.updates,
        "tasks": options.tasks,
    }
    given = "".join(f" --{flag} {value}" for flag, value in chosen.items() if value is not None)
    return f"python -m steppo_gym.trainers.make_start --env {options.env} --name {name} --seed {options.seed}{given}"


def _shortened(
    recipe: StartRecipe, demonstrations: int | None, updates: int | None, *, whole_fault: bool = False
) -> StartRecipe:
    """The recipe with other budgets; that of the fault keeps its share, unless it is to be whole."""
    reading, fault = recipe.reading, recipe.fault
    if updates is not None:
        share = fault.num_updates / reading.num_updates
        reading = replace(reading, num_updates=updates)
        if not whole_fault:
            fault = replace(fault, num_updates=max(1, round(share * updates)))
    if demonstrations is not None:
        reading, fault = (replace(phase, num_demonstrations=demonstrations) for phase in (reading, fault))
    return replace(recipe, reading=reading, fault=fault)


def _make(making: Making, out: Path) -> None:
    work = out.with_name(f"{out.name}.making")
    preset, recipe = making.preset, making.recipe
    say = partial(print, flush=True)
    origin = None if making.origin is None else making.origin.folder
    reader, start = make_start(
        work, preset.env_id, preset.train_split, recipe, seed=making.seed, origin=origin, say=say
    )
    sets = [
        first_tasks(split, preset.spec(split, recipe.env_kwargs), making.tasks) for split in preset.validation_splits
    ]
    limit = int(preset.small_policy_settings["max_completion_length"])
    card = {
        "name": making.name,
        "command": making.command,
        "sha256": start_hash(start),
        "figures": {
            f"{what}, {way}": {tasks.name: _play(folder, tasks, temperature, limit) for tasks in sets}
            for what, folder in (("ceiling", reader), ("start", start))
            for way, temperature in (("greedy", 0.0), ("sampled", 1.0))
        },
        "tasks": making.tasks,
        "environment": {"id": preset.env_id, "kwargs": dict(recipe.env_kwargs)},
        "seed": making.seed,
        **({"from": {"name": making.origin.name, "sha256": making.origin.sha256}} if making.origin else {}),
        "recipe": asdict(recipe),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
        "instructions": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
    }
    (start / CARD).write_text(json.dumps(card, indent=2) + "\n")
    if out.exists():
        shutil.rmtree(out)
    start.rename(out)
    shutil.rmtree(work)
    for what, scores in card["figures"].items():
        say(f"{what}: " + "; ".join(f"{split} {_said(figures)}" for split, figures in scores.items()))
    say(f"{out}, SHA-256 {card['sha256']}")


def _said(figures: Mapping[str, Any]) -> str:
    return f"success {figures['success']:.2f}, invalid {figures['invalid_actions']:.2f}, steps {figures['steps']:.1f}"


def _play(folder: Path, tasks: EvaluationSet, temperature: float, max_response_tokens: int) -> dict[str, Any]:
    """Success, share of invalid actions, mean number of steps and mean metrics of the environment on a set of tasks."""
    policy, codec, _ = SavedPolicy.open(folder).load(
        num_slots=_NUM_SLOTS, temperature=temperature, seed=0, max_response_tokens=max_response_tokens
    )
    assignments = [Assignment(task_id, seed) for seed, task_id in enumerate(tasks.task_ids)]
    with EnvPool(tasks.spec, num_slots=_NUM_SLOTS, num_workers=0) as pool:
        episodes = collect(policy, pool, codec, assignments).episodes
    scores = evaluation_metrics(episodes)
    return {
        "success": round(scores["success"], 4),
        "invalid_actions": round(scores["invalid_rate"], 4),
        "steps": round(scores["episode_steps"], 2),
        "metrics": {name: round(value, 4) for name, value in task_metrics(episodes).items()},
    }


if __name__ == "__main__":
    main()
