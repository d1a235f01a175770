"""The arrays a trainer leaves beside a file of episodes: credit of every step, and of the tokens of some episodes.

`iteration-0003.credit.npz` goes with `iteration-0003.jsonl`; docs/viewing.md lists the arrays. A missing file is no
error: evaluations have none, and the one of an iteration is written after its last update.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steppo_gym.errors import DataError
from steppo_gym.quoting import valid_text

STEP_COLUMNS = ("advantage", "value", "ratio", "ratio_min", "ratio_max")
TOKEN_COLUMNS = ("advantage", "ratio", "entropy", "log_prob_change")
Column = list[float | None]


class CreditArrays:
    """The credit of one file of episodes.

    Args:
        arrays: as the trainer wrote them.

    Raises:
        KeyError: one is missing.
        ValueError: their lengths do not go together.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self._step_columns = {name: arrays[name] for name in STEP_COLUMNS}
        self._token_columns = {name: arrays[f"token_{name}"] for name in TOKEN_COLUMNS}
        self._steps = _spans(arrays["lines"], arrays["steps"], self._step_columns)
        self._tokens = _spans(arrays["sampled"], arrays["tokens"], self._token_columns)
        self._admissible = _Admissible(arrays, self._steps)

    def has_tokens(self, line: int) -> bool:
        """Whether the episode in a line is in the sample."""
        return line in self._tokens

    def of_steps(self, line: int, first: int, last: int) -> dict[str, Column]:
        """Each column over some steps of the episode in a line, nothing if it was not trained on."""
        return _columns(self._step_columns, self._steps.get(line), first, last)

    def of_tokens(self, line: int, first: int, last: int) -> dict[str, Column]:
        """Each column over some response tokens of the episode in a line, nothing if it is not in the sample."""
        return _columns(self._token_columns, self._tokens.get(line), first, last)

    def admissible(self, line: int, step: int) -> list[str]:
        """What would have done something in a step of the episode in a line; nothing if that was not recorded."""
        return self._admissible.of_step(line, step)

    def curves(self, line: int, width: int) -> dict[str, Column]:
        """Value and advantage along the episode in a line, each point the mean over `width` steps."""
        span = self._steps.get(line)
        if span is None:
            return {}
        starts = np.arange(0, span.stop - span.start, width)
        counts = np.diff(starts, append=span.stop - span.start)
        found = {}
        for name in ("value", "advantage"):
            column = self._step_columns[name][span].astype(np.float64)
            if len(column) and not np.isnan(column).all():
                found[name] = [_short(float(point)) for point in np.add.reduceat(column, starts) / counts]
        return found


def read_credit(episodes: Path) -> CreditArrays | None:
    """The credit that goes with a file of episodes, None if there is none.

    Raises:
        DataError: the file is damaged.
    """
    path = episodes.with_suffix(".credit.npz")
    if not path.exists():
        return None
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return CreditArrays({name: arrays[name] for name in arrays.files})
    except Exception as error:  # a damaged archive ends in errors of zipfile, zlib, tokenize or NumPy, of any kind
        raise DataError(f"{path}: expected the arrays of a trainer ({error}). Delete it to go without.") from error


def _spans(
    lines: npt.NDArray[Any], lengths: npt.NDArray[Any], columns: Mapping[str, npt.NDArray[Any]]
) -> dict[int, slice]:
    """Where each line's entries are."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    if len(lines) != len(lengths) or any(column.shape != (total,) for column in columns.values()):
        raise ValueError("lengths do not go together")
    return {
        int(line): slice(int(end - length), int(end)) for line, length, end in zip(lines, lengths, ends, strict=True)
    }


class _Admissible:
    """The admissible actions of the steps of sampled episodes; of files from before these were recorded, none."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], steps: Mapping[int, slice]) -> None:
        self._first: dict[int, int] = {}
        if "actions" not in arrays:
            return
        self._actions = [valid_text(str(action)) for action in json.loads(arrays["actions"].tobytes())]
        self._places, self._ends = arrays["admissible"], np.cumsum(arrays["admissible_counts"])
        total = 0
        for line in map(int, arrays["sampled"]):
            self._first[line] = total
            total += steps[line].stop - steps[line].start
        if len(self._ends) != total or (total and self._ends[-1] != len(self._places)):
            raise ValueError("lengths do not go together")
        if len(self._places) and not 0 <= self._places.min() <= self._places.max() < len(self._actions):
            raise ValueError("an admissible action is none of the list")

    def of_step(self, line: int, step: int) -> list[str]:
        if line not in self._first:
            return []
        number = self._first[line] + step
        first = int(self._ends[number - 1]) if number else 0
        return [self._actions[place] for place in self._places[first : int(self._ends[number])]]


def _columns(columns: Mapping[str, npt.NDArray[Any]], span: slice | None, first: int, last: int) -> dict[str, Column]:
    """Plain numbers with five significant digits; None where there is none, and no column of Nones."""
    if span is None:
        return {}
    part = slice(min(span.start + first, span.stop), min(span.start + last, span.stop))
    plain = {name: [_short(float(value)) for value in column[part]] for name, column in columns.items()}
    return {name: column for name, column in plain.items() if any(value is not None for value in column)}


def _short(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None
