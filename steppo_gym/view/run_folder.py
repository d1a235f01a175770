"""The folder of a run: its settings, its metrics, its files of episodes and its tokenizer.

The folder of an audit is looked at like a run. Its one file of episodes lies in it beside what was measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError

EPISODES, METRICS, CONFIG = "episodes", "metrics.jsonl", "config.json"
SCORES = {"before": "evaluation_before.json", "after": "summary.json"}
AUDIT_EPISODES, AUDIT_SETTINGS, AUDIT_REPORT = "episodes.jsonl", "settings.json", "report.json"
UNTOLD = ("output_dir", "logging_dir", "run_name", "hub_model_id")
"""Settings that differ between any two runs and say nothing about them."""


@dataclass(frozen=True)
class Run:
    """A run and the name it goes by, different from those of the other runs shown with it."""

    name: str
    folder: Path

    def settings(self) -> dict[str, str]:
        """Every setting by its dotted name, empty if the run wrote none down."""
        path = self.folder / (AUDIT_SETTINGS if self.is_audit else CONFIG)
        return dict(_flat("", _json(path))) if path.exists() else {}

    @property
    def is_audit(self) -> bool:
        """Whether it is the folder of an audit."""
        return _is_audit(self.folder)

    def evaluation_summary(self) -> dict[str, Any]:
        """What an evaluation came to, empty as long as it is not done."""
        path = self.folder / SCORES["after"]
        return _json(path) if path.exists() else {}

    def audit_report(self) -> dict[str, Any]:
        """What an audit came to, empty as long as it is not done."""
        path = self.folder / AUDIT_REPORT
        return _json(path) if self.is_audit and path.exists() else {}

    def curves(self) -> dict[str, list[tuple[float, float]]]:
        """Of each metric, iteration and value in the order they were logged."""
        found: dict[str, list[tuple[float, float]]] = {}
        path = self.folder / METRICS
        for entry in _json_lines(path) if path.is_file() else ():
            iteration = entry.get("iteration", 0.0)
            for name, value in entry.items() if _is_number(iteration) else ():
                if name not in ("iteration", "update") and _is_number(value):
                    found.setdefault(name, []).append((float(iteration), float(value)))
        return found

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """Scores of the evaluations before and after training, by the names of their files of episodes."""
        found = {}
        for when, file in SCORES.items():
            record = _json(self.folder / file) if (self.folder / file).exists() else {}
            by_mode = record.get(when, {}) if when == "after" else record
            for mode, splits in by_mode.items() if isinstance(by_mode, dict) else ():
                for split, scores in splits.items() if isinstance(splits, dict) else ():
                    found[f"{when}-{split}-{mode}.jsonl"] = _finite(scores)
        return found

    def episode_files(self) -> list[str]:
        """Names of the files of episodes: iterations in their order, evaluations around them."""
        if self.is_audit:
            return [AUDIT_EPISODES]
        names = sorted(path.name for path in (self.folder / EPISODES).glob("*.jsonl") if path.is_file())
        place = {"before": 0, "iteration": 1}
        return sorted(names, key=lambda name: (place.get(name.partition("-")[0], 2), name))

    def episode_file(self, name: str) -> Path:
        """The path of one of `episode_files`.

        Raises:
            DataError: the run has no such file.
        """
        if name not in self.episode_files():
            raise DataError(f"The run {self.name} has no file of episodes {name!r} in {self.folder / EPISODES}.")
        return self.folder / name if self.is_audit else self.folder / EPISODES / name

    def tokenizer_file(self) -> Path | None:
        """The `tokenizer.json` of the run, None if it left none."""
        folders = ("tokenizer", "final", *sorted(path.name for path in self.folder.glob("checkpoint-*")))
        paths = (self.folder / folder / "tokenizer.json" for folder in folders)
        return next((path for path in paths if path.exists()), None)


def open_runs(folders: Sequence[str | Path]) -> list[Run]:
    """The runs in some folders, each under the shortest end of its path that no other has.

    Raises:
        DataError: a folder is not that of a run, or is named twice.
    """
    paths = [Path(folder).expanduser().resolve() for folder in folders]
    for path in paths:
        if not (path / EPISODES).is_dir() and not (path / METRICS).exists() and not _is_audit(path):
            found = f"got {path}" if path.exists() else f"found nothing at {path}"
            raise DataError(
                f"Expected the folder of a run or an evaluation, with {METRICS} or {EPISODES}/ in it, or of an audit, "
                f"with {AUDIT_EPISODES}, {found}. What makes one prints its name."
            )
    if len(set(paths)) < len(paths):
        raise DataError(f"A run is named twice: {', '.join(map(str, folders))}.")
    return [Run(_shortest(path, paths), path) for path in paths]


def differing(settings: Sequence[Mapping[str, str]]) -> dict[str, list[str | None]]:
    """Settings that are not the same in all runs, with the value of each run, None where it has none."""
    names = sorted({name for one in settings for name in one if name.rpartition(".")[2] not in UNTOLD})
    columns = {name: [one.get(name) for one in settings] for name in names}
    return {name: column for name, column in columns.items() if len(set(column)) > 1}


def _is_audit(folder: Path) -> bool:
    return (folder / AUDIT_EPISODES).is_file() and (folder / AUDIT_SETTINGS).is_file()


def _shortest(path: Path, paths: Sequence[Path]) -> str:
    """Enough of the end of a path to tell it from the others."""
    for length in range(1, len(path.parts)):
        end = path.parts[-length:]
        if sum(other.parts[-length:] == end for other in paths) == 1:
            return "/".join(end)
    return str(path)


def _flat(prefix: str, value: Any) -> Iterable[tuple[str, str]]:
    """Dotted names and values of nested objects."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _flat(f"{prefix}.{name}" if prefix else str(name), inner)
    else:
        yield prefix, value if isinstance(value, str) else json.dumps(value)


def _finite(scores: Any) -> dict[str, float]:
    """The numbers among some scores; JSON has no word for others."""
    return {name: value for name, value in scores.items() if _is_number(value)} if isinstance(scores, dict) else {}


def _is_number(value: Any) -> bool:
    """Whether a float can hold it; comparing takes whole numbers of any length, which a float does not."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON ({error}).") from error
    if not isinstance(read, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(read).__name__}.")
    return read


def _json_lines(path: Path) -> Iterable[dict[str, Any]]:
    """The objects of a file; a last line that is still being written is left out."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith("\n"):
                return
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: expected JSON ({error}).") from error
            if isinstance(entry, dict):
                yield entry
