"""The six ALFWorld task types: which goals a room affords, and a goal in PDDL and in words.

The PDDL and the sentences are those of `alfworld/gen/goal_library.py`.

    >>> parse_sentence("put a hot potato in sinkbasin").task_type
    'pick_heat_then_place_in_recep'
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from steppo_gym.envs.alfworld.built_in.rooms import Room, constants, goal_library, holders

PICK, LOOK, CLEAN, HEAT, COOL, TWO = TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
"""In the order of the numbers 1 to 6 of the official configuration."""


@dataclass(frozen=True)
class Treatment:
    """What is done to an object before it is placed."""

    verb: str
    tool: str
    """Type of the receptacle it is done with."""
    affordance: str
    """Key of `VAL_ACTION_OBJECTS`: the objects it can be done to."""
    able: str
    """PDDL predicate of those objects, lower case."""
    done: str
    """PDDL predicate of the effect, lower case."""


TREATMENTS = {
    CLEAN: Treatment("clean", "SinkBasin", "Cleanable", "cleanable", "isclean"),
    HEAT: Treatment("heat", "Microwave", "Heatable", "heatable", "ishot"),
    COOL: Treatment("cool", "Fridge", "Coolable", "coolable", "iscool"),
}


@dataclass(frozen=True)
class Goal:
    """What a game asks for. Types read from a game are lower case, types written into one in AI2-THOR's spelling."""

    task_type: str
    object_type: str
    target_type: str
    """The receptacle to put the object in; for `look_at_obj_in_light` the lamp to hold it under."""

    @property
    def treatment(self) -> Treatment | None:
        """What must be done to the object first, if anything."""
        return TREATMENTS.get(self.task_type)


@functools.cache
def possible_goals(room: Room, task_type: str) -> tuple[Goal, ...]:
    """The goals of a type that can be set and reached in a room; empty if it lacks what they need."""
    if task_type == LOOK:
        return tuple(Goal(LOOK, thing, lamp) for lamp in room.lamp_types for thing in room.object_types)
    return tuple(_placements(room, task_type))


def _placements(room: Room, task_type: str) -> Iterator[Goal]:
    treatment = TREATMENTS.get(task_type)
    here = set(room.receptacle_types)
    for thing in room.object_types:
        places = holders(thing) & here
        if treatment is not None:
            if treatment.tool not in here or thing not in constants().VAL_ACTION_OBJECTS[treatment.affordance]:
                continue
            # The official planner puts what it heats into the microwave.
            if task_type == HEAT and treatment.tool not in places:
                continue
            places = places - {treatment.tool}
        for target in sorted(places):
            # The object starts elsewhere, so there must be an elsewhere.
            if (holders(thing) & here) - {target}:
                yield Goal(task_type, thing, target)


def goal_pddl(goal: Goal) -> str:
    """The goal section of a PDDL problem, with the parenthesis that closes the problem."""
    text = goal_library().gdict[goal.task_type]["pddl"]
    return text.format(obj=goal.object_type, recep=goal.target_type, toggle=goal.target_type).replace("#", "-")


def goal_sentences(goal: Goal) -> tuple[str, ...]:
    """The official ways to say the goal, lower case."""
    obj, target = goal.object_type.lower(), goal.target_type.lower()
    return tuple(
        text.format(obj=obj, recep=target, toggle=target) for text in goal_library().gdict[goal.task_type]["templates"]
    )


def parse_sentence(sentence: str) -> Goal | None:
    """Read one of the official sentences; None for any other, such as a human annotation."""
    for task_type, pattern in _sentence_patterns():
        match = pattern.fullmatch(sentence.strip().rstrip("."))
        if match:
            return Goal(task_type, match["obj"], match["target"])
    return None


@functools.cache
def _sentence_patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    obj, target = r"(?P<obj>[a-z]+)", r"(?P<target>[a-z]+)"
    # The plain "put a .. in .." comes last, as the tests with "hot", "clean" and "two" are narrower.
    return tuple(
        (task_type, re.compile(text.format(obj=obj, recep=target, toggle=target)))
        for task_type in (*TASK_TYPES[1:], PICK)
        for text in goal_library().gdict[task_type]["templates"]
    )


def parse_goal(problem: str) -> Goal | None:
    """Read the goal of a PDDL problem; None if it is none of the six (sliced objects, movable receptacles)."""
    goal = problem.lower().partition("(:goal")[2]
    if "issliced" in goal or "inreceptacleobject" in goal:
        return None
    objects = re.findall(r"\(objecttype (\?\w+) (\w+)type\)", goal)
    lamps = re.findall(r"\(istoggled (\?\w+)\)", goal)
    if lamps:
        thing = [kind for variable, kind in objects if variable not in lamps]
        target = [kind for variable, kind in objects if variable in lamps]
        task_type = LOOK
    else:
        thing = [kind for _, kind in objects]
        target = re.findall(r"\(receptacletype \?\w+ (\w+)type\)", goal)
        treated = [name for name, treatment in TREATMENTS.items() if f"({treatment.done} " in goal]
        task_type = treated[0] if treated else TWO if len(objects) > 1 else PICK
    if len(set(thing)) != 1 or len(set(target)) != 1:
        return None
    return Goal(task_type, thing[0], target[0])
