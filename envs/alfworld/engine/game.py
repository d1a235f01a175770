"""Plays ALFWorld games: the rules of textworld's `PddlEnv`, at a hundred times its speed.

The game is the original one: the same Fast Downward library decides what can be done and what follows, and the file's
own grammar says so. `stock.StockEngine` plays the same games through textworld and alfworld; both give the same
texts, the same admissible commands and the same wins, which a test checks. What is saved is repeated work:
translating a game once instead of four times per episode, parsing the grammar once instead of at every step, and
putting a command into words once instead of every time it is admissible.

    engine = FastEngine()
    engine.load(json.loads(Path("game.tw-pddl").read_text()))
    state = engine.reset()
    state = engine.step("go to drawer 1")

Not thread-safe: an engine belongs to one thread at a time. Engines in different threads do not disturb each other;
compiling a game waits for a lock. After a fork, parent and child each go on with their own copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppo_gym.envs.alfworld.engine.downward import Downward, acquire
from steppo_gym.envs.alfworld.engine.facts import Facts
from steppo_gym.envs.alfworld.engine.world import World, worlds
from steppo_gym.errors import DataError, EpisodeOverError
from steppo_gym.storage.cache import cache_dir as default_cache_dir

NOTHING_HAPPENS = "Nothing happens."
"""What the game says to a command that is not admissible."""

RESETS_PER_LOAD = 100
"""The planner remembers every state it has seen; loading the game again makes it forget."""


@dataclass(frozen=True)
class EngineState:
    """What the game shows.

    Attributes:
        feedback: what the game says; after a reset, the introduction.
        admissible_commands: sorted and unique; help, inventory and look included.
        won: whether the goal holds.
    """

    feedback: str
    admissible_commands: tuple[str, ...]
    won: bool


class FastEngine:
    """Plays one game at a time. Create one per environment and reuse it for all games."""

    def __init__(self, cache_dir: Path | None = None) -> None:
        """Prepare an engine; nothing is loaded yet.

        Args:
            cache_dir: folder of the compiled games; None: `alfworld` in this package's cache folder.
        """
        self._cache_dir = Path(cache_dir) if cache_dir is not None else default_cache_dir("alfworld")
        self._game: Mapping[str, object] = {}
        self._world: World | None = None
        self._downward: Downward | None = None
        self._resets = 0
        self._play: _Play | None = None

    def load(self, game: Mapping[str, object]) -> None:
        """Take up a game; `reset` starts it.

        Args:
            game: the content of a `game.tw-pddl` file.

        Raises:
            DataError: the game can not be played.
        """
        world = worlds(self._cache_dir).get(game)
        if world is not self._world:
            self._resets = 0
        self._game, self._world, self._play = game, world, None

    def reset(self) -> EngineState:
        """Start the game from its beginning.

        Raises:
            EpisodeOverError: no game is loaded.
        """
        if self._world is None:
            raise EpisodeOverError("No game is loaded. Call load(game) before reset().")
        if self._downward is None:
            self._downward = acquire(self)
        if self._resets % RESETS_PER_LOAD == 0:
            self._downward.load(self._world.sas)
        else:
            self._downward.restart()
        self._resets += 1
        self._play = _Play(self._world, self._downward)
        return self._play.show(self._world.introduction())

    def step(self, command: str) -> EngineState:
        """Carry out a command. One that is not admissible changes nothing; any string is allowed.

        Raises:
            EpisodeOverError: the game has not been started.
        """
        play = self._playing()
        operator = play.carry_out(command.strip())
        return play.show(NOTHING_HAPPENS if operator is None else play.world.feedback(operator, play.facts))

    def facts(self) -> frozenset[tuple[str, ...]]:
        """Predicate and arguments, as PDDL names, of every fact that holds now.

        As textworld keeps them, from the effects the planner names, conditional effects included whether or not their
        condition holds. In ALFWorld that is only `ison` of a lamp: never there, and nothing depends on it; `istoggled`,
        which goals and texts ask for, is right.
        """
        return frozenset(self._playing().facts.true_facts())

    def names(self) -> Mapping[str, str]:
        """What the game calls each object, by its PDDL name in lower case: "mug 1"."""
        if self._world is None:
            raise EpisodeOverError("No game is loaded. Call load(game) before names().")
        return self._world.names

    def get_state(self) -> list[str]:
        """The commands carried out since the reset, without those that changed nothing."""
        return list(self._playing().history)

    def set_state(self, commands: Iterable[str]) -> EngineState:
        """Start the game anew and carry out commands.

        Returns:
            What the game showed after the last of them.

        Raises:
            DataError: one of the commands is not admissible when its turn comes. The game stays where it was then.
        """
        state, operator = self.reset(), None
        play = self._playing()
        for command in commands:
            operator = play.carry_out(command.strip())
            if operator is None:
                raise DataError(
                    f"The command {command!r} is not admissible after {play.history}; this is no state of this game."
                )
        return state if operator is None else play.show(play.world.feedback(operator, play.facts))

    def _playing(self) -> _Play:
        if self._play is None:
            raise EpisodeOverError("The game has not been started. Call reset() first.")
        return self._play

    def __getstate__(self) -> dict[str, object]:
        """What a copy in another process needs: the game and the commands so far."""
        commands = None if self._play is None else self._play.history
        return {"cache_dir": self._cache_dir, "game": dict(self._game), "commands": commands}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue where the original was."""
        self.__init__(state["cache_dir"])
        if state["game"]:
            self.load(state["game"])
        if state["commands"] is not None:
            self.set_state(state["commands"])


class _Play:
    """A game from reset to reset.

    Attributes:
        world: the game.
        facts: what holds now.
        history: the commands carried out so far.
    """

    def __init__(self, world: World, downward: Downward) -> None:
        self.world = world
        self.facts: Facts = world.facts.copy()
        self.history: list[str] = []
        self._downward = downward
        self._list_operators()

    def show(self, feedback: str) -> EngineState:
        """What the game shows now, with `feedback` as its words."""
        return EngineState(feedback, self._admissible, self._won)

    def carry_out(self, command: str) -> str | None:
        """Change the state.

        Returns:
            The operator applied: its action and arguments; None if the command is not admissible and nothing changed.
        """
        place = self._places.get(command)
        if place is None:
            return None
        operator = self._downward.operator_name(place)
        for effect in self._downward.apply(self._applicable[place]):
            self._note(effect)
        self.history.append(command)
        self._list_operators()
        return operator

    def _note(self, effect: str) -> None:
        """Take over an effect such as `NegatedAtom opened(drawer_1)`."""
        kind, _, fact = effect.partition(" ")
        predicate, _, names = fact[:-1].partition("(")
        arguments = names.split(", ") if names else []
        false_now, true_now = f"not_{predicate}", predicate
        if kind == "NegatedAtom":
            false_now, true_now = true_now, false_now
        self.facts.remove(false_now, arguments)
        self.facts.add(true_now, arguments)

    def _list_operators(self) -> None:
        self._applicable = self._downward.applicable()
        self._won = self._downward.is_goal()
        # The first operator counts where two have the same command, as in textworld.
        self._places: dict[str, int] = {}
        for place, (number, _) in enumerate(self._applicable):
            command = self.world.known_command(number)
            if command is None:
                command = self.world.command(number, self._downward.operator_name(place), self.facts)
            self._places.setdefault(command, place)
        self._admissible = tuple(sorted(self._places))
