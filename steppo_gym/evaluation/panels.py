"""Panels: the tasks of an evaluation as a plain JSON file, each with a hash of what it is.

    panel = make_panel("alfworld-valid_seen", EnvFactory("steppo/ALFWorld-v0", {"split": "valid_seen", "data": folder}))
    write_panel(panel, Path("alfworld-valid_seen.json"))
    check_panel(read_panel(Path("alfworld-valid_seen.json")), env)  # [] where `env` has the same tasks

A file is `{"name", "environment", "tasks": [{"id", "hash"}, ...], "source"}`. A task's hash is the SHA-256 of
`TextEnv.task_content`: of a game's file for ALFWorld, otherwise of JSON with sorted keys and without blanks. The hash
of the panel is that of its environment and tasks, in their order; names and sources may change. docs/panels.md says
what the content of each task is, and how to read panels elsewhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from steppo_gym.env import TextEnv
from steppo_gym.errors import DataError
from steppo_gym.keywords import PLACES
from steppo_gym.rollouts.env_host import EnvFactory
from steppo_gym.snapshot import canonical_json, restored

MAX_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PanelTask:
    """One task of a panel."""

    id: str
    hash: str
    """SHA-256 of `TextEnv.task_content`, hexadecimal."""


@dataclass(frozen=True)
class PanelSource:
    """Where the tasks of a panel come from."""

    data: str
    """"built-in", or "files" for files that are not part of this package."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keywords of the environment that has these tasks, such as its split; without those that name places."""


@dataclass(frozen=True)
class Panel:
    """Tasks in the order in which they are played."""

    name: str
    environment: str
    """Id of the environment, for example "steppo/ALFWorld-v0"."""
    tasks: list[PanelTask]
    source: PanelSource

    def __post_init__(self) -> None:
        ids = [task.id for task in self.tasks]
        if not ids:
            raise DataError(f"A panel has at least one task, {self.name!r} has none.")
        if len(set(ids)) < len(ids):
            twice = next(id_ for position, id_ in enumerate(ids) if id_ in ids[:position])
            raise DataError(f"A panel has each task once, {self.name!r} has {twice!r} again.")

    @property
    def hash(self) -> str:
        """SHA-256 of environment and tasks, hexadecimal."""
        return hashlib.sha256(canonical_json([self.environment, [asdict(task) for task in self.tasks]])).hexdigest()

    def first(self, number: int | None) -> Panel:
        """The panel of the first `number` tasks; itself for None and where these are all.

        Raises:
            ValueError: it has fewer, or the number is below 1.
        """
        if number is None or _checked(number, len(self.tasks)) == len(self.tasks):
            return self
        return Panel(f"{self.name}-first-{number}", self.environment, self.tasks[:number], self.source)


def task_hash(env: TextEnv, task_id: str) -> str:
    """The hash of one task of an environment; an episode that is being played in it may be lost."""
    return hashlib.sha256(env.task_content(task_id)).hexdigest()


def make_panel(
    name: str, spec: EnvFactory, *, number: int | None = None, on_task: Callable[[], object] = lambda: None
) -> Panel:
    """The panel of an environment's first tasks.

    Args:
        name: of the panel.
        spec: the environment.
        number: of tasks; all by default.
        on_task: called after each task.

    Raises:
        ValueError: the environment has fewer tasks, or the number is below 1.
    """
    env = spec.make()
    try:
        tasks = []
        for position in range(len(env.task_ids) if number is None else _checked(number, len(env.task_ids))):
            task_id = env.task_ids[position]
            tasks.append(PanelTask(task_id, task_hash(env, task_id)))
            on_task()
    finally:
        env.close()
    kept = {keyword: value for keyword, value in spec.kwargs.items() if not _is_place(keyword, value)}
    source = PanelSource("built-in" if spec.kwargs.get("data") is None else "files", kept)
    return Panel(name, spec.env_id, tasks, source)


def check_panel(panel: Panel, env: TextEnv, *, on_task: Callable[[], object] = lambda: None) -> list[str]:
    """What is different in an environment, a line for each difference; empty if it has the panel's tasks.

    Args:
        panel: what should be there.
        env: made with the data to be checked.
        on_task: called after each task.
    """
    problems, there = [], []
    for task in panel.tasks:
        if not env.has_task(task.id):
            problems.append(f"missing: {task.id} is not in the data.")
        else:
            there.append(task.id)
            found = task_hash(env, task.id)
            if found != task.hash:
                problems.append(
                    f"changed: {task.id} has the hash {found[:12]}, the panel's is {task.hash[:12]}; "
                    "what the task is has changed."
                )
        on_task()
    return problems + list(_other_order(there, env.task_ids))


def _checked(number: int, most: int) -> int:
    """A number of tasks of which there are so many."""
    if number < 1:
        raise ValueError(f"Expected at least 1 task, got {number}.")
    if number > most:
        raise ValueError(
            f"Expected at most {most} tasks, as many as there are, got {number}. Without a number all count."
        )
    return number


def _is_place(keyword: str, value: object) -> bool:
    """Whether a keyword is about one machine; a panel keeps none of these."""
    return keyword in PLACES or (isinstance(value, str) and value.startswith(("http://", "https://")))


def _other_order(wanted: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """A line with the first place where two orders of the same tasks part."""
    places = {wanted_id: None for wanted_id in wanted}
    order = [task_id for task_id in found if task_id in places]
    for position, (mine, theirs) in enumerate(zip(wanted, order, strict=True)):
        if mine != theirs:
            yield f"order: task {position + 1} of the panel is {mine}, in the data {theirs} stands there."
            return


def write_panel(panel: Panel, path: str | Path) -> None:
    """Write a panel, a line for each task, so that differences can be read."""
    path = Path(path)
    head = {"name": panel.name, "environment": panel.environment, "source": asdict(panel.source)}
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}," for name, value in head.items()]
    tasks = [f"    {json.dumps(asdict(task))}" for task in panel.tasks]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["{", *lines, '  "tasks": [', ",\n".join(tasks), "  ]", "}", ""]), encoding="utf-8")


def read_panel(path: str | Path) -> Panel:
    """Read a panel.

    Raises:
        DataError: the file is not there or no panel; the message names it.
    """
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} has more than {MAX_FILE_BYTES} bytes and is not read. Is it a panel?")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no readable panel ({error}).") from error
    try:
        panel = restored(content, Panel)
    except DataError as error:
        raise DataError(
            f"{path} is no panel: {str(error).removeprefix('No snapshot of this environment: ')} "
            'Expected {"name", "environment", "tasks": [{"id", "hash"}], "source": {"data", "arguments"}}.'
        ) from error
    if places := [keyword for keyword, value in panel.source.arguments.items() if _is_place(keyword, value)]:
        # A file from elsewhere must not say what is read here, or which server is asked.
        raise DataError(f"A panel names no places, {path} has the argument {places[0]!r}. Give it on the command line.")
    return panel


def shipped_panels() -> dict[str, Path]:
    """The files of the panels in this package, by name."""
    folder = Path(str(files("steppo_gym"))) / "panels"
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def open_panel(name: str) -> Panel:
    """A panel of this package by its name, or one in a file.

    Raises:
        DataError: it is neither.
    """
    shipped = shipped_panels()
    if name in shipped:
        return read_panel(shipped[name])
    if not Path(name).is_file():
        raise DataError(f"There is no file {name!r}, and no panel of this name. Panels: {', '.join(shipped)}.")
    return read_panel(Path(name))
