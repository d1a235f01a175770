"""Plays ALFWorld games through textworld and alfworld themselves, for comparison and for doubts.

The interface of `game.FastEngine` on textworld's `PddlEnv` and alfworld's `AlfredDemangler` without shuffling, nothing
replaced. About ten steps per second. textworld evaluates the expressions in a game's grammar as Python: play files
you do not trust with `FastEngine`.

alfworld makes a folder in the user's home when it is imported, and textworld overwrites `sys.argv`; both are undone
here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from steppo_gym.envs.alfworld.engine.game import EngineState, FastEngine
from steppo_gym.envs.alfworld.engine.translation import LOCK
from steppo_gym.errors import DataError, EpisodeOverError


class StockEngine:
    """The slow engine, with the methods of `FastEngine`."""

    def __init__(self) -> None:
        with _contained():
            self._env = _stock_env()
        self._is_loaded = False
        self._game: Mapping[str, object] = {}
        self._state: Any = None
        self._history: list[str] = []

    def load(self, game: Mapping[str, object]) -> None:
        """Take up a game; see `FastEngine.load`."""
        self._is_loaded, self._state = False, None
        try:
            with _contained():
                self._env.load(dict(game))
        except (Exception, SystemExit) as error:
            raise DataError(f"textworld can not load the game: {type(error).__name__}: {error}") from error
        self._is_loaded, self._game = True, game

    def reset(self) -> EngineState:
        """Start the game from its beginning; see `FastEngine.reset`."""
        if not self._is_loaded:
            raise EpisodeOverError("No game is loaded. Call load(game) before reset().")
        with _contained():
            self._state = self._env.reset()
        self._history = []
        return self._show()

    def step(self, command: str) -> EngineState:
        """Carry out a command; see `FastEngine.step`."""
        if command.strip() in self._playing()["admissible_commands"]:
            self._history.append(command.strip())
        self._state, _, _ = self._env.step(command)
        return self._show()

    def facts(self) -> frozenset[tuple[str, ...]]:
        """What holds now; see `FastEngine.facts`."""
        # Derived facts, which textworld does not keep up to date, have an "@" in their name.
        return frozenset(
            (fact.name, *fact.names)
            for fact in self._playing()["_facts"]
            if not fact.is_negation and "@" not in fact.name
        )

    def names(self) -> Mapping[str, str]:
        """What the game calls each object; see `FastEngine.names`."""
        if not self._is_loaded:
            raise EpisodeOverError("No game is loaded. Call load(game) before names().")
        return {name: info.name for name, info in self._env.unwrapped._entity_infos.items()}

    def get_state(self) -> list[str]:
        """The commands carried out since the reset; see `FastEngine.get_state`."""
        self._playing()
        return list(self._history)

    def set_state(self, commands: Iterable[str]) -> EngineState:
        """Start the game anew and carry out commands; see `FastEngine.set_state`."""
        state = self.reset()
        for command in commands:
            if command.strip() not in state.admissible_commands:
                raise DataError(
                    f"The command {command!r} is not admissible after {self._history}; this is no state of this game."
                )
            state = self.step(command)
        return state

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs; see `FastEngine.__getstate__`."""
        commands = None if self._state is None else self._history
        return {"game": dict(self._game) if self._is_loaded else None, "commands": commands}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Continue where the original was."""
        self.__init__()
        if state["game"] is not None:
            self.load(state["game"])
        if state["commands"] is not None:
            self.set_state(state["commands"])

    def _playing(self) -> Any:
        if self._state is None:
            raise EpisodeOverError("The game has not been started. Call reset() first.")
        return self._state

    def _show(self) -> EngineState:
        state = self._state
        return EngineState(state["feedback"], tuple(state["admissible_commands"]), state["won"])


Engine = FastEngine | StockEngine


def _stock_env() -> Any:
    _import_alfworld()
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
    from textworld.envs import PddlEnv

    return AlfredDemangler(PddlEnv(textworld.EnvInfos(won=True, admissible_commands=True)), shuffle=False)


def _import_alfworld() -> None:
    """Import alfworld without the folder it makes in the user's home and without setting `ALFWORLD_DATA`."""
    if "alfworld.info" in sys.modules:
        return
    spec = find_spec("alfworld")
    if spec is None or spec.origin is None:
        raise DataError("alfworld is not installed. Run `pip install alfworld` to use the stock engine.")
    named = os.environ.get("ALFWORLD_DATA")
    folder = named or os.path.expanduser("~/.cache/alfworld")
    # It creates the folder it is told of unless that exists; its own surely does.
    os.environ["ALFWORLD_DATA"] = folder if os.path.isdir(folder) else str(Path(spec.origin).parent)
    try:
        import alfworld
        import alfworld.info
    finally:
        os.environ.pop("ALFWORLD_DATA")
        if named is not None:
            os.environ["ALFWORLD_DATA"] = named
    for module in (alfworld, alfworld.info):
        setattr(module, "ALFWORLD_DATA", folder)  # noqa: B010 - not declared where a type checker would see it


@contextmanager
def _contained() -> Iterator[None]:
    """One translation at a time, and `sys.argv` as it was."""
    with LOCK:
        argv = sys.argv
        try:
            yield
        finally:
            sys.argv = argv
