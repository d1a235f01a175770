"""What an audit measured, beside the episodes it measured it on: `truth.jsonl` (docs/audit.md).

It is there when the audit is done; until then, and beside the episodes of training, there is none.
"""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError

TRUTH = "truth.jsonl"
SHOWN_CHARACTERS = 2_000
"""Of a response that was tried."""


class AuditTruth:
    """The audited steps of one file of episodes.

    Args:
        records: lines of the file.

    Raises:
        KeyError: a field is missing.
    """

    def __init__(self, records: list[dict[str, Any]]) -> None:
        self._known: dict[int, dict[int, dict[str, Any]]] = {}
        """By episode and place."""
        for record in records:
            episode, place = map(operator.index, (record["episode"], record["place"]))
            self._known.setdefault(episode, {})[place] = _shown(record)

    def has(self, episode: int) -> bool:
        """Whether a step of an episode was audited."""
        return episode in self._known

    def of_step(self, episode: int, place: int) -> dict[str, Any] | None:
        """What is known of a step."""
        return self._known.get(episode, {}).get(place)

    def along(self, episode: int) -> list[dict[str, Any]]:
        """The audited steps of an episode in their order, each with its place, value, advantage and verdict."""
        return [_short(record) for _, record in sorted(self._known.get(episode, {}).items())]

    def points(self) -> list[dict[str, Any]]:
        """All audited steps, those first at which the choice matters, and of these the largest advantages."""
        found = [_short(record) | {"credit": _means(record)} for own in self._known.values() for record in own.values()]
        return sorted(found, key=lambda p: (p["verdict"] != "matters", -abs((p["advantage"] or [0.0])[0])))


def read_truth(episodes: Path) -> AuditTruth | None:
    """The truth that lies beside a file of episodes, None if there is none.

    Raises:
        DataError: the file is damaged.
    """
    path = episodes.with_name(TRUTH)
    if not path.is_file():
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        truth = AuditTruth([json.loads(line) for line in lines])
        truth.points()  # reads every value that is shown
        return truth
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: expected the steps of an audit ({error!r}). Call the audit again.") from error


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    responses = [
        {
            "response": str(one["response"])[:SHOWN_CHARACTERS],
            "draws": one["draws"],
            "value": one["value"],
            "advantage": one["advantage"],
        }
        for one in record["responses"]
    ]
    names = ("episode", "place", "value", "continuations", "verdict", "credit")
    return {name: record[name] for name in names} | {"responses": responses, "advantage": responses[0]["advantage"]}


def _short(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("episode", "place", "value", "advantage", "verdict")}


def _means(record: dict[str, Any]) -> dict[str, float | None]:
    return {name: given["scaled"] for name, given in record["credit"].items()}
