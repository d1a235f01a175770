"""Procedural ALFWorld: seeded games in real AI2-THOR rooms, in the official format.

A game is a room, objects of the types found in it placed where ALFRED's containment table allows, and one of the six
goals. Every game can be won: its walkthrough is a plan from the start. Left out: sliced objects and movable receptacles
(ALFWorld skips both), objects inside mugs or boxes, and clutter that cannot be picked up.

    game = generate_game(7, room=308, task_type="look_at_obj_in_light")
    game.game["walkthrough"]        # ["go to desk 1", ..]
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppo_gym.envs.alfworld.built_in.problem import PlacedObject, escape, initial_facts, problem_text
from steppo_gym.envs.alfworld.built_in.rooms import Receptacle, Room, load_room, package_folder, supports
from steppo_gym.envs.alfworld.experts.oracle import World, plan
from steppo_gym.envs.alfworld.object_names import object_names
from steppo_gym.envs.alfworld.splits import SPLIT_SIZES, TaskSpec, task_spec
from steppo_gym.envs.alfworld.tasks import LOOK, TASK_TYPES, TWO, Goal, goal_sentences, possible_goals

__all__ = ["GeneratedGame", "TaskSpec", "generate_game", "task_spec", "write_games"]

_COPIES = (0, 1, 1, 1, 2, 2, 3)
"""How many objects of a type that the goal does not name are placed, drawn uniformly."""


@dataclass(frozen=True)
class GeneratedGame:
    """One game in the official format."""

    game: dict[str, Any]
    """Content of `game.tw-pddl`."""
    traj_data: dict[str, Any]
    """Content of `traj_data.json`: the fields that alfworld reads."""


def generate_game(seed: int, *, room: int, task_type: str) -> GeneratedGame:
    """Set up a game. Equal arguments give equal games, in any process.

    Raises:
        ValueError: the room does not afford the task type, or there is no such room or type.
    """
    goals = possible_goals(load_room(room), task_type) if task_type in TASK_TYPES else ()
    if not goals:
        raise ValueError(
            f"Room {room} affords no {task_type!r} task. See steppo_gym.envs.alfworld.splits.eligible_rooms."
        )
    rng = random.Random(f"procedural ALFWorld 1|{seed}|{room}|{task_type}")
    # The object type first, so that types with many possible places are not asked for more often.
    wanted = rng.choice(sorted({goal.object_type for goal in goals}))
    goal = rng.choice([goal for goal in goals if goal.object_type == wanted])
    objects = _furnish(rng, load_room(room), goal)
    sentence = rng.choice(goal_sentences(goal))
    return GeneratedGame(
        game=_game(load_room(room), objects, goal, sentence),
        traj_data=_traj_data(seed, room, goal, sentence),
    )


def write_games(folder: str | Path, split: str, difficulty: str, count: int) -> list[Path]:
    """Write the first games of a split in the official folder layout, below `<folder>/json_2.1.1/<split>`.

    Returns:
        The game files, in the order of the tasks.

    Raises:
        ValueError: the split has fewer games.
    """
    if not 0 <= count <= SPLIT_SIZES[split]:
        raise ValueError(f"count must be in 0..{SPLIT_SIZES[split]} for split {split!r}, got {count}.")
    paths = []
    for index in range(count):
        spec = task_spec(split, difficulty, index)
        generated = generate_game(spec.seed, room=spec.room, task_type=spec.task_type)
        params = generated.traj_data["pddl_params"]
        target = params["parent_target"] or params["toggle_target"]
        task = f"{spec.task_type}-{params['object_target']}-None-{target}-{spec.room}"
        trial = Path(folder, "json_2.1.1", split, task, f"trial_{difficulty}_{index:05d}")
        trial.mkdir(parents=True, exist_ok=True)
        (trial / "traj_data.json").write_text(json.dumps(generated.traj_data))
        (trial / "game.tw-pddl").write_text(json.dumps(generated.game))
        paths.append(trial / "game.tw-pddl")
    return paths


def _furnish(rng: random.Random, room: Room, goal: Goal) -> list[PlacedObject]:
    """Place the goal's objects outside its target, then everything else."""
    objects: dict[str, PlacedObject] = {}
    target = None if goal.task_type == LOOK else goal.target_type
    for _ in range(rng.randint(2, 3) if goal.task_type == TWO else rng.randint(1, 2)):
        _place(rng, room, objects, goal.object_type, avoid=target)
    for kind in room.object_types:
        if kind != goal.object_type:
            for _ in range(rng.choice(_COPIES)):
                _place(rng, room, objects, kind)
    for kind in room.lamp_types:
        _place(rng, room, objects, kind)
    return list(objects.values())


def _place(
    rng: random.Random, room: Room, objects: dict[str, PlacedObject], kind: str, *, avoid: str | None = None
) -> None:
    """Put one object of a type somewhere it may be, with an id no other object has."""
    places = [place for place in room.receptacles if place.type in supports(kind) and place.type != avoid]
    receptacle = rng.choice(places)
    while (name := _position(rng, kind, receptacle)) in objects:
        pass
    objects[name] = PlacedObject(name, kind, receptacle)


def _position(rng: random.Random, kind: str, receptacle: Receptacle) -> str:
    x, y, z = map(float, receptacle.id.split("|")[1:4])
    x, y, z = x + rng.uniform(-0.4, 0.4), y + rng.uniform(0, 0.2), z + rng.uniform(-0.4, 0.4)
    return f"{kind}|{x:+06.2f}|{y:+06.2f}|{z:+06.2f}"


def _game(room: Room, objects: Sequence[PlacedObject], goal: Goal, sentence: str) -> dict[str, Any]:
    return {
        "pddl_domain": _package_text("alfred.pddl"),
        "grammar": _package_text("alfred.twl2").replace("UNKNOWN GOAL", sentence),
        "pddl_problem": problem_text(room, objects, goal),
        "solvable": True,
        "walkthrough": _walkthrough(room, objects, goal),
    }


def _walkthrough(room: Room, objects: Sequence[PlacedObject], goal: Goal) -> list[str]:
    facts = [tuple(escape(word).lower() for word in fact) for fact in initial_facts(room, objects)]
    names = object_names(escape(thing.id).lower() for thing in (*objects, *room.receptacles))
    asked = Goal(goal.task_type, goal.object_type.lower(), goal.target_type.lower())
    commands = plan(World.from_facts(facts), asked, names)
    assert commands, f"no plan for {goal} in room {room.number}"
    return commands


def _traj_data(seed: int, room: int, goal: Goal, sentence: str) -> dict[str, Any]:
    look = goal.task_type == LOOK
    return {
        "task_id": f"procedural_{seed}_{room}",
        "task_type": goal.task_type,
        "pddl_params": {
            "mrecep_target": "",
            "object_sliced": False,
            "object_target": goal.object_type,
            "parent_target": "" if look else goal.target_type,
            "toggle_target": goal.target_type if look else "",
        },
        "scene": {"floor_plan": f"FloorPlan{room}", "scene_num": room},
        "turk_annotations": {"anns": [{"high_descs": [], "task_desc": sentence}]},
    }


@functools.cache
def _package_text(name: str) -> str:
    return (package_folder() / "data" / name).read_text()
