"""A whole audit in a folder: episodes in groups, audited steps, and a file of each that a second call goes on from."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steppo_gym.audit.continuations import Plan, Table, audit_points
from steppo_gym.audit.points import AuditedPoint, choose_points
from steppo_gym.errors import DataError
from steppo_gym.rollouts.episode import Episode, read_episodes, write_episodes
from steppo_gym.rollouts.rollout import Assignment
from steppo_gym.storage.data_lines import read_json
from steppo_gym.storage.json_lines import alone_in, append_text, read_lines, write_whole

SETTINGS_FILE, EPISODES_FILE, POINTS_FILE = "settings.json", "episodes.jsonl", "points.jsonl"
CREDIT_FILE = "episodes.credit.npz"
"""Of recorded episodes: what training gave them (docs/viewing.md)."""


@dataclass(frozen=True)
class Found:
    """What an audit has played."""

    episodes: tuple[Episode, ...]
    points: tuple[AuditedPoint, ...]
    continuations: tuple[tuple[Episode, ...], ...]
    """Of each point, of the response that was taken."""

    @property
    def reach(self) -> float:
        """The largest difference between two returns that were seen; 1 where all were equal."""
        returns = [
            x for p in self.points for arm in (p.free, *(a.returns for a in p.arms)) for x in arm if x is not None
        ]
        return (max(returns) - min(returns)) or 1.0 if returns else 1.0


def run_audit(
    table: Table,
    task_ids: Sequence[str],
    plan: Plan,
    folder: str | Path,
    *,
    episodes_per_task: int,
    points: int,
    seed: int,
    settings: Mapping[str, Any],
    recorded: str | Path | None = None,
    on_point: Callable[[AuditedPoint], object] | None = None,
) -> Found:
    """Play and audit, or go on where an earlier call with the same settings stopped.

    Args:
        table: where and by what it is played.
        task_ids: each makes a group.
        plan: what is played at a point.
        folder: of the audit; what is in it already is not played again.
        episodes_per_task: more than a training group has, so that batches can be drawn from them.
        points: decision points.
        seed: of the environments and of the choice of points.
        settings: all that the result depends on and that is not among the arguments, such as the policy.
        recorded: a file of episodes that the policy has played before, which are audited in place of new ones; the file
            of credit beside it is kept with them. `task_ids` and `episodes_per_task` are not used then.
        on_point: called with every point, those found in the folder included.

    Raises:
        ValueError: the folder holds an audit with other settings.
        DataError: a file in it cannot be read, or another process is at work in it.
    """
    folder, recorded = Path(folder), None if recorded is None else Path(recorded)
    if recorded is None:
        own = {"tasks": list(task_ids), "episodes_per_task": episodes_per_task}
    else:
        own = {"recorded": hashlib.sha256(recorded.read_bytes()).hexdigest()}
    own |= {"points": points, "seed": seed}
    _settle(folder, json.loads(json.dumps({**settings, **own, "plan": asdict(plan)})))
    with alone_in(folder):
        if recorded is not None:
            _keep(recorded, folder)
        episodes = _episodes(table, task_ids, folder, episodes_per_task, seed)
        chosen = choose_points(episodes, points, seed=seed)
        found = _read_points(folder / POINTS_FILE)
        for point, _ in found:
            if on_point is not None:
                on_point(point)
        done = {point.step for point, _ in found}
        for point, played in audit_points(table, [step for step in chosen if step not in done], episodes, plan):
            found.append((point, played))
            line = {"point": json.loads(point.to_json()), "continuations": [json.loads(e.to_json()) for e in played]}
            append_text(folder / POINTS_FILE, json.dumps(line) + "\n")
            if on_point is not None:
                on_point(point)
    return Found(episodes, tuple(point for point, _ in found), tuple(played for _, played in found))


def _settle(folder: Path, settings: dict[str, Any]) -> None:
    file = folder / SETTINGS_FILE
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(settings, indent=1))
        return
    before = read_json(file)
    changed = [name for name in {**before, **settings} if before.get(name) != settings.get(name)]
    if changed:
        raise ValueError(
            f"{folder} holds an audit with another {changed[0]}. Give the same settings to go on with it, or another "
            "folder with --out."
        )


def _keep(recorded: Path, folder: Path) -> None:
    """Copy recorded episodes, whose numbers and lines stay the same, and the credit they were given."""
    for source, name in ((recorded, EPISODES_FILE), (recorded.with_suffix(".credit.npz"), CREDIT_FILE)):
        if source.exists() and not (folder / name).exists():
            shutil.copyfile(source, folder / f"{name}.part")
            (folder / f"{name}.part").rename(folder / name)


def _episodes(table: Table, task_ids: Sequence[str], folder: Path, number: int, seed: int) -> tuple[Episode, ...]:
    file = folder / EPISODES_FILE
    if file.exists():
        return tuple(read_episodes(file))
    todo = [Assignment(task, seed, group) for group, task in enumerate(task_ids) for _ in range(number)]
    episodes = table.play(todo, [None] * len(todo), range(len(todo)))
    # Under its own name only when it is whole.
    write_episodes(folder / f"{EPISODES_FILE}.part", episodes)
    (folder / f"{EPISODES_FILE}.part").rename(file)
    return episodes


def _read_points(file: Path) -> list[tuple[AuditedPoint, tuple[Episode, ...]]]:
    """The points of a file; a last line that was cut off is not counted, since it is played again."""
    found = []
    try:
        for record in read_lines(file):
            played = tuple(Episode.from_json(json.dumps(e)) for e in record["continuations"])
            found.append((AuditedPoint.from_json(json.dumps(record["point"])), played))
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} holds a line that is no audited point: {error}.") from error
    return found
