"""The experts that only read: they search the room place by place, in an order drawn per episode.

`search` knows nothing of where things usually are; it looks everywhere once and forgets nothing. `clumsy` is the
same one, who now and then mistypes a command, so that its episodes show how to go on after one. `hasty` searches with
a fault: it often walks past the object it wants and leaves closed places closed, goes by what it sees just now, and now
and then mistypes; `heedless` walks past nearly all it wants. Their episodes are demonstrations for a start that leaves
reinforcement learning a behaviour to change.

A decision is a pure function of the texts so far and the episode's seed, so it survives a snapshot and does not depend
on how often it is asked for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Sequence

from steppo_gym.envs.alfworld.experts.memory import Memory, kind
from steppo_gym.envs.alfworld.tasks import LOOK, TWO, Goal
from steppo_gym.errors import DataError

OVERLOOK = {"hasty": 0.6, "heedless": 0.9}
"""Chance that an expert with the fault walks on although it sees the object it wants."""

SKIP_CLOSED = 0.6
"""Chance that one with the fault, when it searches, walks on from a closed place without opening it."""

WRONG = 0.1
"""Chance that all but `search` write a command that does nothing."""

_NUMBER = re.compile(r"\d+")


def search_command(memory: Memory, seed: int, step: int, *, overlook: float | None = None) -> str:
    """The next command.

    Args:
        memory: beliefs from the texts so far.
        seed: the episode's.
        step: number of steps so far.
        overlook: search with the fault, with this chance to walk past what is wanted; None for no fault.

    Raises:
        DataError: the task is not worded as one of the official sentences.
    """
    if memory.goal is None or not memory.places:
        raise DataError(
            "The search experts read only the official introduction and task sentences. Use expert='oracle' here."
        )
    return _Search(memory, memory.goal, seed, step, overlook).command()


def slip(command: str, past: Sequence[str], admissible: Collection[str], seed: int, step: int) -> str | None:
    """Sometimes a plausible command that does nothing: the right one misnumbered, or the last walk or opening again.

    Args:
        command: the right one.
        past: the commands so far.
        admissible: what does something now; only used to make sure that the slip does nothing.
        seed: the episode's.
        step: number of steps so far.
    """
    rng = random.Random(f"slip {seed} {step}")
    if rng.random() >= WRONG:
        return None
    misnumbered = [
        f"{command[: match.start()]}{number}{command[match.end() :]}"
        for match in _NUMBER.finditer(command)
        for number in range(1, 6)
    ]
    again = [text for text in past if text.startswith(("go to", "open"))][-1:]
    wrong = [[text for text in texts if text not in admissible] for texts in (misnumbered, again)]
    wrong = [texts for texts in wrong if texts]
    return rng.choice(rng.choice(wrong)) if wrong else None


class _Search:
    """One decision."""

    def __init__(self, memory: Memory, goal: Goal, seed: int, step: int, overlook: float | None) -> None:
        self.memory, self.goal, self.hasty, self.overlook = memory, goal, overlook is not None, overlook or 0.0
        self.order = random.Random(f"order {seed}").sample(memory.places, len(memory.places))
        self.rng = random.Random(f"haste {seed} {step}")

    def command(self) -> str:
        held = self.memory.holding
        command = self._seek() if held is None else self._use(held)
        if command not in self.memory.failed:
            return command
        # Something is not as believed: go and see another place.
        away = [
            place
            for place in self.order
            if place not in self.memory.here and f"go to {place}" not in self.memory.failed
        ]
        return f"go to {self.rng.choice(away)}" if away else "look"

    def _seek(self) -> str:
        wanted = [place for place in self._reachable_first() if self._wanted(place)]
        if not wanted:
            return self._explore()
        place = wanted[0]
        if place not in self.memory.here:
            return f"go to {place}"
        if place in self.memory.closed:
            return f"open {place}"
        if self.hasty and self.rng.random() < self.overlook:
            return self._walk_on()
        return f"take {self._wanted(place)[0]} from {place}"

    def _wanted(self, place: str) -> list[str]:
        """The objects at a place that would serve the goal elsewhere."""
        if self.hasty and place not in self.memory.here:
            return []
        if self.goal.task_type == TWO and place == self._target():
            return []
        return [name for name in self.memory.contents.get(place, ()) if kind(name) == self.goal.object_type]

    def _use(self, held: str) -> str:
        treatment = self.goal.treatment
        if kind(held) != self.goal.object_type:
            return self._put_away(held)
        if self.goal.task_type == LOOK:
            return self._light()
        if treatment is not None and (treatment.verb, held) not in self.memory.treated:
            tools = [place for place in self._reachable_first() if kind(place) == treatment.tool.lower()]
            if not tools:
                return self._put_away(held)
            return f"{treatment.verb} {held} with {tools[0]}" if tools[0] in self.memory.here else f"go to {tools[0]}"
        target = self._target()
        return self._put(held, target) if target else self._put_away(held)

    def _light(self) -> str:
        for place in self._reachable_first():
            lamps = [name for name in self.memory.contents.get(place, ()) if kind(name) == self.goal.target_type]
            if lamps:
                return f"use {lamps[0]}" if place in self.memory.here else f"go to {place}"
        return self._explore(closed_too=False)

    def _target(self) -> str | None:
        """Where to put the object: where one already is, else within reach, else by the order of the search."""
        places = [place for place in self._reachable_first() if kind(place) == self.goal.target_type]
        if self.goal.task_type == TWO:
            places.sort(
                key=lambda place: (
                    -sum(kind(name) == self.goal.object_type for name in self.memory.contents.get(place, ()))
                )
            )
        return places[0] if places else None

    def _put(self, held: str, place: str) -> str:
        if place not in self.memory.here:
            return f"go to {place}"
        if place in self.memory.closed:
            return f"open {place}"
        return f"move {held} to {place}" if place in self.memory.seen else f"examine {place}"

    def _put_away(self, held: str) -> str:
        places = [place for place in self._reachable_first() if (kind(held), kind(place)) not in self.memory.refused]
        return self._put(held, places[0]) if places else "inventory"

    def _explore(self, *, closed_too: bool = True) -> str:
        for place in self.memory.here:
            if place not in self.memory.seen:
                return f"examine {place}"
            if closed_too and place in self.memory.closed and not (self.hasty and self.rng.random() < SKIP_CLOSED):
                return f"open {place}"
        if closed_too and not self.hasty:
            unknown = [place for place in self.order if place not in {*self.memory.contents, *self.memory.here}]
            if unknown:
                return f"go to {unknown[0]}"
        return self._walk_on()

    def _walk_on(self) -> str:
        """Go where one never was, else where it is longest ago."""
        away = [place for place in self.order if place not in self.memory.here]
        return f"go to {min(away, key=lambda place: self.memory.seen.get(place, 0))}" if away else "look"

    def _reachable_first(self) -> list[str]:
        here = [place for place in self.memory.here if place in self.order]
        return here + [place for place in self.order if place not in here]
