"""The expert that sees the hidden state: a shortest plan to the goal from any state of a game.

It tries every object, receptacle and tool that can serve the goal, writes the commands each choice needs, and takes the
shortest list. That is optimal up to choices no task type rewards (carrying a second object on the way, opening ahead).
The generator writes its walkthroughs with the same function.

    commands = plan(World.from_facts(engine.facts()), goal, engine.names())
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from steppo_gym.envs.alfworld.tasks import LOOK, TWO, Goal


@dataclass(frozen=True)
class World:
    """The facts of a state that a plan depends on. Ids and types are lower case; types end in "type"."""

    at: str
    holding: str | None
    location: Mapping[str, str]
    """Where each receptacle is used from."""
    contents: Mapping[str, tuple[str, ...]]
    """The receptacles each object is in: usually one; official scenes also have two."""
    closed: frozenset[str]
    type: Mapping[str, str]
    """Type of each object and receptacle."""
    can_contain: frozenset[tuple[str, str]]
    """Pairs of receptacle type and object type."""
    marks: frozenset[tuple[str, str]]
    """Pairs of predicate and object: pickupable, cleanable, isclean, istoggled and so on."""

    @classmethod
    def from_facts(cls, facts: Iterable[tuple[str, ...]]) -> World:
        """Read the true facts of a state: predicate and arguments, lower case."""
        pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
        marks = set()
        for fact in facts:
            if len(fact) == 3:
                pairs[fact[0]].append((fact[1], fact[2]))
            elif len(fact) == 2:
                marks.add((fact[0], fact[1]))
        contents: dict[str, list[str]] = defaultdict(list)
        for name, receptacle in sorted(pairs["inreceptacle"]):
            contents[name].append(receptacle)
        return cls(
            at=next((place for _, place in pairs["atlocation"]), ""),
            holding=next((name for _, name in pairs["holds"]), None),
            location=dict(sorted(pairs["receptacleatlocation"])),
            contents={name: tuple(places) for name, places in contents.items()},
            closed=frozenset(name for mark, name in marks if mark == "openable" and ("opened", name) not in marks),
            type=dict(sorted(pairs["objecttype"] + pairs["receptacletype"])),
            can_contain=frozenset(pairs["cancontain"]),
            marks=frozenset(marks),
        )

    def of_type(self, kind: str) -> list[str]:
        """Ids of a type, which is given without its ending, sorted."""
        return sorted(name for name, of in self.type.items() if of == f"{kind}type")

    def accepts(self, receptacle: str, name: str) -> bool:
        """Whether the object may be put into the receptacle."""
        return (self.type.get(receptacle, ""), self.type.get(name, "")) in self.can_contain


class _Dead(Exception):  # noqa: N818 - ends a line of thought, not an error
    """A choice that leads nowhere."""


class _Walk:
    """A list of commands and where it leaves the agent."""

    def __init__(self, world: World, names: Mapping[str, str]) -> None:
        self.world, self.names = world, names
        self.at, self.holding, self.closed = world.at, world.holding, set(world.closed)
        self.commands: list[str] = []

    def say(self, text: str, *ids: str) -> None:
        self.commands.append(text.format(*(self.names[name] for name in ids)))

    def go(self, receptacle: str) -> None:
        place = self.world.location[receptacle]
        if place != self.at:
            self.say("go to {}", receptacle)
            self.at = place

    def open(self, receptacle: str) -> None:
        self.go(receptacle)
        if receptacle in self.closed:
            self.say("open {}", receptacle)
            self.closed.discard(receptacle)

    def take(self, name: str) -> None:
        """Get hold of an object, with empty hands before."""
        if self.holding == name:
            return
        if self.holding is not None:
            self.drop()
        places = [place for place in self.world.contents.get(name, ()) if place in self.world.location]
        if ("pickupable", name) not in self.world.marks or not places:
            raise _Dead
        place = min(places, key=self._effort)
        self.open(place)
        self.say("take {} from {}", name, place)
        self.holding = name

    def put(self, name: str, receptacle: str) -> None:
        if not self.world.accepts(receptacle, name) or receptacle not in self.world.location:
            raise _Dead
        self.open(receptacle)
        self.say("move {} to {}", name, receptacle)
        self.holding = None

    def drop(self) -> None:
        """Put away what is held, wherever that is quickest."""
        assert self.holding is not None
        places = [place for place in self.world.location if self.world.accepts(place, self.holding)]
        if not places:
            raise _Dead
        self.put(self.holding, min(places, key=self._effort))

    def _effort(self, receptacle: str) -> int:
        return (self.world.location[receptacle] != self.at) + (receptacle in self.closed)


def plan(world: World, goal: Goal, names: Mapping[str, str]) -> list[str]:
    """The shortest commands found that reach the goal; empty if none do or if it holds already.

    Args:
        world: the current state.
        goal: what the game asks for, types in lower case.
        names: names of the ids, as commands use them.
    """
    if goal.task_type == LOOK:
        attempts = _looking(world, goal)
    elif goal.task_type == TWO:
        attempts = _placing_two(world, goal)
    else:
        attempts = _placing_one(world, goal)
    best: list[str] = []
    for attempt in attempts:
        walk = _Walk(world, names)
        try:
            attempt(walk)
        except _Dead:
            continue
        if walk.commands and (not best or len(walk.commands) < len(best)):
            best = walk.commands
    return best


_Attempt = Callable[[_Walk], None]


def _placing_one(world: World, goal: Goal) -> Iterator[_Attempt]:
    treatment = goal.treatment
    tools = world.of_type(treatment.tool.lower()) if treatment else [""]
    for name, target, tool in itertools.product(
        world.of_type(goal.object_type), world.of_type(goal.target_type), tools
    ):

        def attempt(walk: _Walk, name: str = name, target: str = target, tool: str = tool) -> None:
            walk.take(name)
            if treatment is not None and (treatment.done, name) not in world.marks:
                if (treatment.able, name) not in world.marks or tool not in world.location:
                    raise _Dead
                walk.go(tool)
                walk.say(treatment.verb + " {} with {}", name, tool)
            walk.put(name, target)

        yield attempt


def _placing_two(world: World, goal: Goal) -> Iterator[_Attempt]:
    things = world.of_type(goal.object_type)
    for target in world.of_type(goal.target_type):
        outside = [name for name in things if target not in world.contents.get(name, ())]
        missing = 2 - (len(things) - len(outside))
        for chosen in itertools.permutations(outside, max(0, missing)):

            def attempt(walk: _Walk, chosen: tuple[str, ...] = chosen, target: str = target) -> None:
                for name in chosen:
                    walk.take(name)
                    walk.put(name, target)

            yield attempt


def _looking(world: World, goal: Goal) -> Iterator[_Attempt]:
    lamps = [(lamp, place) for lamp in world.of_type(goal.target_type) for place in world.contents.get(lamp, ())]
    for name, (lamp, place) in itertools.product(world.of_type(goal.object_type), lamps):

        def attempt(walk: _Walk, name: str = name, lamp: str = lamp, place: str = place) -> None:
            if place not in world.location:
                raise _Dead
            walk.take(name)
            walk.go(place)
            if ("istoggled", lamp) not in world.marks:
                walk.say("use {}", lamp)

        yield attempt
