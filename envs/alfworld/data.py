"""Where games come from: the generator, or official game files read unchanged.

    ProceduralGames("train", "easy").load("easy/train/00000")
    GameFiles("~/alfworld_data", "valid_seen").task_ids[0]
    # "valid_seen/look_at_obj_in_light-AlarmClock-None-DeskLamp-323/trial_T20190909_044715_250790"

Official games lie in `<folder>/json_2.1.1/<split>/<task>/<trial>/{game.tw-pddl,traj_data.json}`. Which of them count is
decided as by `AlfredTWEnv.collect_game_files` of `alfworld/agents/environment/alfred_tw_env.py` (0.4.2): both files are
there, neither "movable" nor "Sliced" is in the path, the task type is asked for, and the game says it is solvable. Two
things differ: the order is sorted, not the file system's, and the task type is read from the folder's name where that
starts with one, so that 3,553 files need not be parsed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppo_gym.envs.alfworld.built_in.generate import generate_game
from steppo_gym.envs.alfworld.splits import DIFFICULTIES, SPLIT_SIZES, task_spec, task_type_of
from steppo_gym.envs.alfworld.tasks import TASK_TYPES, Goal, parse_goal
from steppo_gym.errors import DataError, UnknownTaskError
from steppo_gym.keywords import check_choice, check_split, path_of, unknown_task_message
from steppo_gym.quoting import written_id
from steppo_gym.snapshot import canonical_json, is_text
from steppo_gym.storage.data_lines import read_json, reading_file

MAX_FILE_BYTES = 8_000_000
"""Larger files are refused unread. Official game files have about 0.1 MB."""

_TAIL_BYTES = 8192
"""`solvable` stands behind the long texts, with nothing but the walkthrough after it."""

_SOLVABLE = re.compile(rb'"solvable"\s*:\s*(true|false)')
_TEXTS = ("pddl_domain", "grammar", "pddl_problem")


@dataclass(frozen=True)
class Game:
    """One game, ready to be loaded into an engine."""

    task_id: str
    goal: Goal
    """What it asks for, types in lower case."""
    content: Mapping[str, Any]
    """Content of `game.tw-pddl`."""


class ProceduralGames:
    """The generator's games of a split. Ids are `<difficulty>/<split>/<number>`.

    Args:
        split: a key of `SPLIT_SIZES`.
        difficulty: a key of `DIFFICULTIES`.
        task_types: keep only these.

    Raises:
        UnknownTaskError: an unknown split.
        ValueError: another unknown name, or no game is of these types.
    """

    def __init__(self, split: str, difficulty: str = "full", task_types: Sequence[str] = TASK_TYPES) -> None:
        check_split(split, SPLIT_SIZES)
        check_choice("difficulty", difficulty, tuple(DIFFICULTIES))
        wanted = _check_task_types(task_types)
        self.split, self.difficulty = split, difficulty
        self._numbers = {
            f"{difficulty}/{split}/{index:05d}": index
            for index in range(SPLIT_SIZES[split])
            if task_type_of(difficulty, index) in wanted
        }
        if not self._numbers:
            offered = ", ".join(DIFFICULTIES[difficulty].task_types)
            raise ValueError(
                f"Difficulty {difficulty!r} has the task types {offered}, got task_types={tuple(task_types)}."
            )
        self.task_ids: Sequence[str] = tuple(self._numbers)

    def load(self, task_id: str) -> Game:
        """Generate a game.

        Raises:
            UnknownTaskError: no such id.
        """
        return _checked(task_id, self._generate(task_id), source=task_id)

    def read(self, task_id: str) -> bytes:
        """What would be the content of the game's file."""
        return canonical_json(self._generate(task_id))

    def _generate(self, task_id: str) -> dict[str, Any]:
        if task_id not in self._numbers:
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        spec = task_spec(self.split, self.difficulty, self._numbers[task_id])
        return generate_game(spec.seed, room=spec.room, task_type=spec.task_type).game


class GameFiles:
    """Official games on disk. Ids are `<split>/<task>/<trial>`.

    Args:
        data: the folder that holds `json_2.1.1` (or a later `json_2.1.x`, the latest wins), that folder, any other
            folder of split folders, the split's own folder, or a single game file. `~` and variables are expanded.
        split: name of the split folder; a single file has none.
        task_types: keep only these.

    Raises:
        DataError: no games there.
        UnknownTaskError: an unknown split.
        ValueError: an unknown task type.
    """

    def __init__(self, data: str | Path, split: str, task_types: Sequence[str] = TASK_TYPES) -> None:
        check_split(split, SPLIT_SIZES)
        wanted = _check_task_types(task_types)
        path = path_of(data)
        if path.is_file():
            self._paths = {_single_id(path): path}
            if wanted < frozenset(TASK_TYPES) and (found := self.load(_single_id(path)).goal.task_type) not in wanted:
                raise DataError(f"{path} is a game of the type {found}, got task_types={tuple(task_types)}.")
        else:
            folder = _split_folder(path, split)
            found = _collect(folder, wanted)
            self._paths = {f"{split}/{game.relative_to(folder).parent.as_posix()}": game for game in found}
            if not self._paths:
                raise DataError(
                    f"No playable game of the types {', '.join(sorted(wanted))} is in {folder}: expected folders of a "
                    f"game.tw-pddl that says it is solvable, with its traj_data.json. {_ADVICE}"
                )
        for task_id in self._paths:
            try:
                written_id(task_id)
            except ValueError as error:
                raise DataError(f"Folders of games give their ids, {error}. Rename the folder.") from None
        self.task_ids: Sequence[str] = tuple(self._paths)

    @property
    def paths(self) -> Iterable[Path]:
        """The games' files, in the order of the ids."""
        return self._paths.values()

    def load(self, task_id: str) -> Game:
        """Read a game.

        Raises:
            UnknownTaskError: no such id.
            DataError: the file is damaged or asks for something else than the six task types.
        """
        path = self._path(task_id)
        return _checked(task_id, _read_json(path), source=path)

    def read(self, task_id: str) -> bytes:
        """The bytes of a game's file."""
        return self._path(task_id).read_bytes()

    def _path(self, task_id: str) -> Path:
        if task_id not in self._paths:
            raise UnknownTaskError(unknown_task_message(task_id, self.task_ids))
        return self._paths[task_id]


Games = ProceduralGames | GameFiles
"""The games of a split."""

_ADVICE = (
    "Run `steppo-gym download alfworld` and pass its folder as data=, "
    "or leave data out to play procedural games, which need no download."
)


def _split_folder(path: Path, split: str) -> Path:
    versions = sorted(path.glob("json_2.1.*"), key=lambda folder: folder.name)
    for folder in (*(root / split for root in (path, *reversed(versions))), path):
        if folder.is_dir() and folder.name == split:
            return folder
    found = sorted(
        folder.name for root in (path, *versions) if root.is_dir() for folder in root.iterdir() if folder.is_dir()
    )
    inside = f"only {', '.join(found)}" if found else "no folder" if path.is_dir() else "nothing"
    raise DataError(f"ALFWorld games of split {split!r} were expected in {path}, found {inside}. {_ADVICE}")


def _collect(folder: Path, task_types: frozenset[str]) -> Iterator[Path]:
    for root, folders, files in os.walk(folder, onerror=_unreadable):
        folders.sort()
        name = os.path.relpath(root, folder)
        if "traj_data.json" not in files or "game.tw-pddl" not in files or "movable" in name or "Sliced" in name:
            continue
        if _task_type(Path(root)) in task_types and _says_solvable(Path(root, "game.tw-pddl")):
            yield Path(root, "game.tw-pddl")


def _unreadable(error: OSError) -> None:
    raise DataError(f"{error.filename} cannot be read ({error.strerror or error}).") from error


def _task_type(trial: Path) -> str:
    named = trial.parent.name.partition("-")[0]
    if named in TASK_TYPES:
        return named
    return str(_read_json(trial / "traj_data.json").get("task_type"))


def _says_solvable(path: Path) -> bool:
    """Whether the key `solvable` is there and true. A text inside the JSON would have its quotes escaped."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            matches = _SOLVABLE.findall(file.read())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}). Download it again.") from error
    if matches:
        return matches[-1] == b"true"
    return bool(_read_json(path).get("solvable"))


def _read_json(path: Path) -> dict[str, Any]:
    with reading_file(path):
        size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise DataError(f"{path} has {size} bytes; a game file has at most {MAX_FILE_BYTES}. Is it a game file?")
    content = read_json(path)
    if not isinstance(content, dict):
        raise DataError(f"{path} must hold a JSON object, found {type(content).__name__}. Download it again.")
    return content


def _checked(task_id: str, content: dict[str, Any], *, source: str | Path) -> Game:
    missing = [key for key in _TEXTS if not is_text(content.get(key))]
    if missing:
        raise DataError(f"{source} lacks the text {', '.join(missing)} of a game.tw-pddl file. Download it again.")
    goal = parse_goal(content["pddl_problem"])
    if goal is None:
        raise DataError(f"{source} asks for none of the six task types {', '.join(TASK_TYPES)}. Choose another game.")
    return Game(task_id, goal, content)


def _single_id(path: Path) -> str:
    if path.name == "game.tw-pddl":
        return f"{path.parent.parent.name}/{path.parent.name}"
    return path.stem


def _check_task_types(task_types: Sequence[str]) -> frozenset[str]:
    if not isinstance(task_types, list | tuple | frozenset | set) or not task_types:
        raise ValueError(f"task_types must be a non-empty sequence of names, got {task_types!r}.")
    for name in task_types:
        check_choice("task_types", name, TASK_TYPES)
    return frozenset(task_types)
