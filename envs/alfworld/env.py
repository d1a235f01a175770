"""`steppo/ALFWorld-v0`: household tasks in text, on procedural games or the official ones.

env = gymnasium.make("steppo/ALFWorld-v0", difficulty="easy")
observation, info = env.reset(seed=0, options={"task_id": "easy/train/00017"})
observation, reward, terminated, truncated, info = env.step("<action>go to desk 1</action>")
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from steppo_gym.actions import Invalid
from steppo_gym.env import TextEnv
from steppo_gym.envs.alfworld.actions import Command, Inadmissible, format_action, parse_action, tool_schemas
from steppo_gym.envs.alfworld.data import Game, GameFiles, Games, ProceduralGames
from steppo_gym.envs.alfworld.engine.game import NOTHING_HAPPENS, EngineState, FastEngine
from steppo_gym.envs.alfworld.engine.stock import Engine, StockEngine
from steppo_gym.envs.alfworld.experts.memory import remember
from steppo_gym.envs.alfworld.experts.oracle import World, plan
from steppo_gym.envs.alfworld.experts.search import OVERLOOK, search_command, slip
from steppo_gym.envs.alfworld.renaming import renamed
from steppo_gym.envs.alfworld.render import introduction, invalid_feedback, rebuilt_prompt, system_prompt
from steppo_gym.envs.alfworld.reward import PROTOCOLS, step_reward
from steppo_gym.envs.alfworld.tasks import TASK_TYPES
from steppo_gym.errors import DataError
from steppo_gym.keywords import CommonArguments, check_choice, check_place
from steppo_gym.protocol import named_protocol
from steppo_gym.quoting import one_line
from steppo_gym.snapshot import restored
from steppo_gym.storage.file_stamps import file_stamps, stamps_text
from steppo_gym.transition import Transition

ENGINES = ("fast", "stock")
EXPERTS = ("oracle", "search", "clumsy", *OVERLOOK)
NO_COMMAND = "(no command)"
"""How the history shows a response that held no command."""

_BOOKKEEPING = "checked"
"""The domain sets `checked(x)` when x is looked at, and no precondition, goal or text reads it."""


class _TaskState(TypedDict):
    commands: list[str]
    expert_seed: int


class AlfworldEnv(TextEnv):
    """ALFWorld (arXiv:2010.03768) with one text response as the action.

    Args:
        split: train, valid_seen, valid_unseen, test_seen or test_unseen; official data has the first three.
        data: None for procedural games, or where the official games are (see `GameFiles`).
        protocol: "steppo" (20 steps, reward 1) or "verl-agent" (50 steps, reward 10, -0.1 for an invalid action).
        engine: "fast", or "stock" for textworld's own, which is hundreds of times slower and gives the same texts.
        difficulty: "easy", "medium" or "full" (default); procedural games only.
        task_types: keep only these of the six types.
        common: see `TextEnv`. Of the experts "oracle" sees the hidden state, "search" reads, "clumsy" reads
            and mistypes, "hasty" reads and errs, "heedless" errs more.

    Raises:
        ValueError: an argument outside its range, or `difficulty` together with `data`.
        DataError: no games in `data`.
    """

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | Path | None = None,
        protocol: str = "steppo",
        engine: str = "fast",
        difficulty: str | None = None,
        task_types: Sequence[str] | None = None,
        **common: Unpack[CommonArguments],
    ) -> None:
        check_choice("engine", engine, ENGINES)
        check_place("data", data)
        super().__init__(named_protocol(PROTOCOLS, protocol), experts=EXPERTS, **common)
        self.games = _games(split, data, difficulty, TASK_TYPES if task_types is None else task_types)
        self.task_ids = self.games.task_ids
        self._engine_name = engine
        self._engine: Engine | None = None
        self._game: Game | None = None
        self._initial_facts: frozenset[tuple[str, ...]] = frozenset()
        self._admissible: tuple[str, ...] = ()
        self._won = False
        self._expert_seed = 0

    @property
    def system_prompt(self) -> str:
        """What the agent is told once, before the first observation."""
        return system_prompt(self.action_format, puts=self._puts)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The JSON schema of `env_step`, empty in the tag format."""
        return tool_schemas() if self.action_format == "tool_call" else []

    @property
    def text_version(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride] - thousands of files
        """Another one once a game's file has changed."""
        return stamps_text(file_stamps(self.games.paths)) if isinstance(self.games, GameFiles) else ""

    def expert_response(self) -> str:
        """What the expert writes in the current state.

        Raises:
            DataError: a reading expert met a task that is not worded officially.
        """
        self._require_episode("ask the expert about")
        command = self._oracle_command() if self.expert == "oracle" else self._search_command()
        return format_action(command, self.action_format)

    def task_content(self, task_id: str) -> bytes:
        """The bytes of `game.tw-pddl`; those of a procedural game are its JSON."""
        return self.games.read(task_id)

    def retold(self, texts: Sequence[str], rng: random.Random) -> list[str]:
        """The texts of an episode with other kinds and numbers; see `steppo_gym.envs.alfworld.renaming`."""
        return renamed(texts, rng)

    def _start(self, task_id: str) -> str:
        state = self._load(task_id)
        self._expert_seed = self._draw_seed()
        return introduction(state.feedback)

    def _load(self, task_id: str) -> EngineState:
        """Start the game of a task."""
        if self._engine is None:
            self._engine = FastEngine() if self._engine_name == "fast" else StockEngine()
        if self._game is None or self._game.task_id != task_id:
            self._game = None
            game = self.games.load(task_id)
            try:
                self._engine.load(game.content)
            except DataError as error:
                raise DataError(f"The game {task_id} cannot be played: {error}") from error
            self._game = game
        state = self._engine.reset()
        self._initial_facts = self._engine.facts()
        self._see(state)
        return state

    def _see(self, state: EngineState) -> None:
        # "help" lists the verbs and changes nothing; the official StepPO recipe leaves it out as well.
        self._admissible = tuple(command for command in state.admissible_commands if command != "help")
        self._won = state.won

    def _apply(self, response: str) -> Transition:
        match parse_action(response, self.action_format, self._admissible):
            case Invalid(reason):
                return self._invalid(invalid_feedback(reason, self.action_format), NO_COMMAND, reason)
            case Inadmissible(text, reason):
                return self._invalid(NOTHING_HAPPENS, one_line(text), reason)
            case Command(text):
                state = self._running.step(text)
                self._see(state)
                reward = step_reward(self.protocol, won=state.won, invalid=False)
                return Transition(state.feedback.strip(), text, reward, terminated=state.won)

    def _invalid(self, feedback: str, action: str, reason: str) -> Transition:
        reward = step_reward(self.protocol, won=False, invalid=True)
        return Transition(feedback, action, reward, invalid_action=reason)

    def _observation(self, feedback: str) -> str:
        if self.context == "append":
            return feedback
        return rebuilt_prompt(
            introduction=self.history[0].feedback if self.history else feedback,
            history=self._shown_history(),
            feedback=feedback,
            commands=self._admissible,
            action_format=self.action_format,
        )

    def _state_key(self) -> str:
        changed = sorted(fact for fact in self._running.facts() ^ self._initial_facts if fact[0] != _BOOKKEEPING)
        return hashlib.sha256(repr((self.task_id, changed)).encode()).hexdigest()[:32]

    def _admissible_actions(self) -> tuple[str, ...]:
        return self._admissible

    def _success(self) -> bool:
        return self._won

    def _metrics(self) -> dict[str, float]:
        success = float(self._won)
        return {"success": success, f"success/{self._playing.goal.task_type}": success}

    def _get_task_state(self) -> _TaskState:
        return {"commands": self._running.get_state(), "expert_seed": self._expert_seed}

    def _set_task_state(self, state: object) -> None:
        saved = restored(state, _TaskState)
        self._load(self.task_id)
        self._see(self._running.set_state(saved["commands"]))
        self._check_end(self._won)
        self._expert_seed = saved["expert_seed"]

    def _oracle_command(self) -> str:
        commands = plan(World.from_facts(self._running.facts()), self._playing.goal, self._running.names())
        return self._spelled(commands[0]) if commands else "look"

    def _search_command(self) -> str:
        past = [exchange.action for exchange in self.history]
        memory = remember(
            [*(exchange.feedback for exchange in self.history), self._feedback],
            [None if action == NO_COMMAND else action for action in past],
        )
        step = len(past)
        command = self._spelled(search_command(memory, self._expert_seed, step, overlook=OVERLOOK.get(self.expert)))
        mistypes = self.expert != "search"
        wrong = slip(command, past, self._admissible, self._expert_seed, step) if mistypes else None
        self.expert_slip = wrong is not None
        return wrong or command

    def _spelled(self, command: str) -> str:
        """The command in the words of this game: before alfworld 0.4, `put x in/on y` stood for `move x to y`."""
        if not command.startswith("move ") or command in self._admissible:
            return command
        older = command.replace("move ", "put ", 1).replace(" to ", " in/on ", 1)
        return older if older in self._admissible else command

    @functools.cached_property
    def _puts(self) -> bool:
        """Whether the games, of which the first stands for all, are from before alfworld 0.4."""
        is_official = isinstance(self.games, GameFiles)
        return is_official and '"put {o} in/on {r}"' in self.games.load(self.task_ids[0]).content["grammar"]

    @property
    def _running(self) -> Engine:
        assert self._engine is not None, "reset() loads the engine"
        return self._engine

    @property
    def _playing(self) -> Game:
        assert self._game is not None, "reset() loads the game"
        return self._game


def _games(split: str, data: str | Path | None, difficulty: str | None, task_types: Sequence[str]) -> Games:
    if data is None:
        return ProceduralGames(split, difficulty or "full", task_types)
    if difficulty is not None:
        raise ValueError(
            f"difficulty is for procedural games; with data={str(data)!r} leave it out, got {difficulty!r}."
        )
    return GameFiles(data, split, task_types)
