"""Which episodes are listed, and in which order."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

_SORTED_BY = {"number": "number", "task": "task", "steps": "steps", "reward": "reward", "invalid": "invalid"}
_LARGEST = 2**63 - 1
"""Whole number of SQLite."""
_TEXT = "(contains(s.observation, ?) OR contains(s.response, ?))"


@dataclass(frozen=True)
class Filters:
    """What an episode must be; None and "" ask for nothing."""

    success: bool | None = None
    ended: str = ""
    task: str = ""
    """A part of the task's id."""
    invalid: bool | None = None
    """Whether it has an invalid action."""
    min_steps: int | None = None
    max_steps: int | None = None
    min_reward: float | None = None
    max_reward: float | None = None
    text: str = ""
    """In an observation or a response of it."""
    sort: str = "number"
    descending: bool = False

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Filters:
        """Filters from the query of an address.

        Raises:
            ValueError: a value cannot be read; the message names it.
        """
        readers: dict[str, Callable[[str], Any]] = {
            "success": _yes_or_no, "invalid": _yes_or_no, "descending": _yes_or_no,
            "min_steps": _whole, "max_steps": _whole, "min_reward": _number, "max_reward": _number,
        }  # fmt: skip
        found: dict[str, Any] = {}
        for name in (f.name for f in fields(cls)):
            if query.get(name):
                try:
                    found[name] = readers.get(name, str)(query[name])
                except ValueError as error:
                    raise ValueError(f"{name} cannot be {query[name][:80]!r}.") from error
        if found.get("sort", "number") not in _SORTED_BY:
            raise ValueError(f"sort must be one of {', '.join(_SORTED_BY)}, got {found['sort'][:80]!r}.")
        return cls(**found)

    @property
    def needle(self) -> str:
        """The text as it is compared."""
        return self.text.casefold()

    def condition(self) -> tuple[str, list[Any]]:
        """An expression of SQL over the table of episodes, and its parameters."""
        parts: list[tuple[str, Any]] = [
            ("success = ?", None if self.success is None else int(self.success)),
            ("ended = ?", self.ended or None),
            ("contains(task, ?)", self.task.casefold() or None),
            ("(invalid > 0) = ?", None if self.invalid is None else int(self.invalid)),
            ("steps >= ?", self.min_steps),
            ("steps <= ?", self.max_steps),
            ("reward >= ?", self.min_reward),
            ("reward <= ?", self.max_reward),
        ]
        asked = [(part, value) for part, value in parts if value is not None]
        conditions, parameters = [part for part, _ in asked], [value for _, value in asked]
        if self.text:
            conditions.append(f"EXISTS (SELECT 1 FROM steps s WHERE s.episode = episodes.number AND {_TEXT})")
            parameters += [self.needle, self.needle]
        return " AND ".join(conditions) or "1", parameters

    def order(self) -> str:
        """An ORDER BY of SQL."""
        direction = "DESC" if self.descending else "ASC"
        return f"{_SORTED_BY[self.sort]} {direction}, number"

    def found_step(self) -> str:
        """A query of SQL for the first step with the text; its two parameters are `needle`."""
        return f"SELECT MIN(s.number) FROM steps s WHERE s.episode = episodes.number AND {_TEXT}"


def add_functions(connection: sqlite3.Connection) -> sqlite3.Connection:
    """Give a connection what the conditions call: `contains`, whatever the case, in any script."""
    connection.create_function(
        "contains", 2, lambda text, needle: needle in (text or "").casefold(), deterministic=True
    )
    return connection


def _yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ValueError
    return text == "yes"


def _whole(text: str) -> int:
    number = int(text)
    if not -_LARGEST <= number <= _LARGEST:
        raise ValueError
    return number


def _number(text: str) -> float:
    number = float(text)
    if math.isnan(number):
        raise ValueError
    return number
