"""What the page asks of a file of episodes. Every answer is plain JSON and bounded, however long an episode is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError
from steppo_gym.storage.sqlite import Connections, read_only
from steppo_gym.view.audit_truth import AuditTruth, read_truth
from steppo_gym.view.credit_arrays import CreditArrays, read_credit
from steppo_gym.view.episode_index import build_index
from steppo_gym.view.filters import Filters, add_functions
from steppo_gym.view.response_parts import split_response
from steppo_gym.view.token_text import NumberedTokens, TokenizerText

PAGE = 100
"""Episodes or steps in one answer, at most."""
CURVE_POINTS = 1_000
"""Points of a curve along an episode, at most."""
SHOWN_CHARACTERS = 20_000
"""Of an observation or a response; the rest is asked for."""
MATES = 50
CONTEXT_TOKENS = 20_000
"""Of the context before a prompt's new part."""
_EPISODE = "number, task, ended, success, steps, reward, invalid, group_number, seed, failure, metrics"
_STEP = (
    "number, start, end, reward, invalid, state, observation, response, prompt_tokens, new_from, new_to, extends, "
    "first_token"
)


class EpisodeFile:
    """A file of episodes with its index, credit, audit and tokenizer, as they were when it was opened.

    Args:
        path: of the file.
        tokenizer: the run's `tokenizer.json`, if it has one.

    Raises:
        DataError: something in them is damaged.
    """

    def __init__(self, path: Path, tokenizer: Path | None) -> None:
        self.path = path
        self._text = NumberedTokens() if tokenizer is None else TokenizerText(tokenizer)
        self._index_path = build_index(path, tokenizer, self._text)
        self._index = Connections(lambda: add_functions(read_only(self._index_path)))
        self.credit: CreditArrays | None = read_credit(path)
        self.truth: AuditTruth | None = read_truth(path)

    def has_tokens(self, number: int) -> bool:
        """Whether the tokens of an episode were recorded."""
        return self.credit is not None and self.credit.has_tokens(number)

    def is_audited(self, number: int) -> bool:
        """Whether the truth about a step of an episode was measured."""
        return self.truth is not None and self.truth.has(number)

    def listing(self, filters: Filters, offset: int, limit: int) -> dict[str, Any]:
        """Episodes that pass the filters, and how many there are; with a text, the first step that has it."""
        where, parameters = filters.condition()
        with_text = f"({filters.found_step()})" if filters.text else "NULL"
        order = filters.order()
        rows = self._query(
            f"SELECT {_EPISODE}, {with_text} AS found FROM episodes WHERE {where} ORDER BY {order} LIMIT ? OFFSET ?",
            [*([filters.needle] * 2 if filters.text else []), *parameters, min(limit, PAGE), offset],
        )
        ((total,),) = self._rows(f"SELECT COUNT(*) FROM episodes WHERE {where}", parameters)
        ((everything,),) = self._rows("SELECT COUNT(*) FROM episodes", ())
        for row in rows:
            row["metrics"] = json.loads(row["metrics"])
            if self.truth is not None:
                row["audited"] = len(self.truth.along(row["number"]))
        return {"total": total, "all": everything, "episodes": rows}

    def episode(self, number: int) -> dict[str, Any]:
        """An episode without its steps: its fields, curves along it, and the episodes it is compared with."""
        row = self._episode_row(number)
        mates = self._query(
            f"SELECT {_EPISODE} FROM episodes WHERE group_number = ? AND task = ? AND number != ? LIMIT ?",
            (row["group_number"], row["task"], number, MATES),
        )
        for one in (row, *mates):
            one["metrics"] = json.loads(one["metrics"])
        truth = [] if self.truth is None else self.truth.along(number)
        return row | {
            "curve": self._curve(number),
            "mates": mates,
            "has_tokens": self.has_tokens(number),
            "truth": truth,
        }

    def steps(self, number: int, offset: int, limit: int) -> list[dict[str, Any]]:
        """Some steps of an episode, each with the tokens of its response and their credit."""
        rows = self._query(
            f"SELECT {_STEP} FROM steps WHERE episode = ? AND number >= ? ORDER BY number LIMIT ?",
            (number, offset, min(limit, PAGE)),
        )
        with self.path.open("rb") as file:
            read = [self._data(file, row) for row in rows]
        return [self._step(number, row, data) for row, data in zip(rows, read, strict=True)]

    def whole(self, number: int, step: int) -> dict[str, Any]:
        """The whole prompt of a step: what came before, what is new, what follows; and the response."""
        (row,) = self._step_rows(number, step)
        with self.path.open("rb") as file:
            ids = self._data(file, row)["prompt_ids"]
            begin, end = row["new_from"], row["new_to"]
            context, missing = ([], False) if not row["extends"] else self._context(file, number, step)
        before, after = self._text.texts([[*context, *ids[:begin]][-CONTEXT_TOKENS:], ids[end:]])
        return {
            "before": before,
            "cut": missing or len(context) + begin > CONTEXT_TOKENS,
            "observation": row["observation"],
            "after": after,
            "response": row["response"],
        }

    def mates(self, number: int, step: int) -> list[dict[str, Any]]:
        """Steps that this episode and those it is compared with took from the same hidden state."""
        (row,) = self._step_rows(number, step)
        own = self._episode_row(number)
        rows = self._query(
            "SELECT s.episode, s.number, s.reward, s.invalid, s.response, e.success, e.reward AS total, e.ended "
            "FROM steps s JOIN episodes e ON e.number = s.episode "
            "WHERE s.state = ? AND e.group_number = ? AND e.task = ? ORDER BY s.episode, s.number LIMIT ?",
            (row["state"], own["group_number"], own["task"], MATES),
        )
        for mate in rows:
            mate |= self._step_credit(mate["episode"], mate["number"])
            mate["thought"], mate["action"] = split_response(mate.pop("response")[:SHOWN_CHARACTERS])
        return rows

    def find(self, number: int, text: str, after: int) -> int | None:
        """The first step from `after` on whose observation or response has a text, whatever its case."""
        filters = Filters(text=text)
        rows = self._rows(
            "SELECT number FROM steps WHERE episode = ? AND number >= ? AND "
            "(contains(observation, ?) OR contains(response, ?)) ORDER BY number LIMIT 1",
            (number, after, filters.needle, filters.needle),
        )
        return rows[0][0] if rows else None

    def _step(self, number: int, row: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        thought, action = split_response(row["response"][:SHOWN_CHARACTERS])
        step = {
            "number": row["number"],
            "observation": row["observation"][:SHOWN_CHARACTERS],
            "observation_length": len(row["observation"]),
            "response": row["response"][:SHOWN_CHARACTERS],
            "response_length": len(row["response"]),
            "thought": thought,
            "action": action,
            "pieces": self._text.pieces(data["response_ids"][:SHOWN_CHARACTERS]),
            "reward": row["reward"],
            "invalid": row["invalid"],
            "state": row["state"][:1_000],
            "prompt_tokens": row["prompt_tokens"],
            "rebuilt": not row["extends"] and row["number"] > 0,
        }
        if self.credit is not None and self.has_tokens(number):
            admissible = self.credit.admissible(number, row["number"])
            if admissible:
                step["admissible"] = [action[:1_000] for action in admissible[:1_000]]
            first = row["first_token"]
            step["tokens"] = self.credit.of_tokens(number, first, first + len(step["pieces"]))
        truth = None if self.truth is None else self.truth.of_step(number, row["number"])
        return step | self._step_credit(number, row["number"]) | ({} if truth is None else {"truth": truth})

    def _curve(self, number: int) -> dict[str, list[Any]]:
        """Reward, value and advantage along an episode; of a long one, the mean over as many steps as a point is."""
        (row,) = self._rows("SELECT steps FROM episodes WHERE number = ?", (number,))
        width = max(1, -(-row[0] // CURVE_POINTS))
        rewards = self._rows(
            "SELECT AVG(reward) FROM steps WHERE episode = ? GROUP BY number / ? ORDER BY number / ?",
            (number, width, width),
        )
        curves = {} if self.credit is None else self.credit.curves(number, width)
        return {**curves, "step": list(range(0, row[0], width)), "reward": [reward for (reward,) in rewards]}

    def _context(self, file: Any, number: int, step: int) -> tuple[list[int], bool]:
        """The tokens before a step whose prompt extends the one before, and whether the first of them are missing."""
        parts: list[list[int]] = []
        length, extends = 0, True
        while extends and step > 0 and length < CONTEXT_TOKENS:
            step -= 1
            (row,) = self._step_rows(number, step)
            data = self._data(file, row)
            parts.append([*data["prompt_ids"], *data["response_ids"]])
            length, extends = length + len(parts[-1]), bool(row["extends"])
        return [token for part in reversed(parts) for token in part], extends

    def _data(self, file: Any, row: Mapping[str, Any]) -> dict[str, Any]:
        file.seek(row["start"])
        try:
            return json.loads(file.read(row["end"] - row["start"]))
        except ValueError as error:
            raise DataError(f"{self.path} was changed while it was read ({error}). Load the page again.") from error

    def _step_credit(self, number: int, step: int) -> dict[str, float | None]:
        columns = {} if self.credit is None else self.credit.of_steps(number, step, step + 1)
        return {name: column[0] for name, column in columns.items()}

    def _episode_row(self, number: int) -> dict[str, Any]:
        rows = self._query(f"SELECT {_EPISODE}, final_text FROM episodes WHERE number = ?", (number,))
        if not rows:
            raise DataError(f"{self.path.name} has no episode {number}.")
        rows[0]["final_text"] = rows[0]["final_text"] and rows[0]["final_text"][:SHOWN_CHARACTERS]
        return rows[0]

    def _step_rows(self, number: int, step: int) -> list[dict[str, Any]]:
        rows = self._query(f"SELECT {_STEP} FROM steps WHERE episode = ? AND number = ?", (number, step))
        if not rows:
            raise DataError(f"Episode {number} of {self.path.name} has no step {step}.")
        return rows

    def _query(self, statement: str, parameters: Sequence[Any]) -> list[dict[str, Any]]:
        names, rows = self._found(statement, parameters)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _rows(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return self._found(statement, parameters)[1]

    def _found(self, statement: str, parameters: Sequence[Any]) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Names of the columns, and the rows."""
        try:
            cursor = self._index.execute(statement, parameters)
            return [column[0] for column in cursor.description], cursor.fetchall()
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"The index {self._index_path} is damaged ({error}). Delete it; it is built again."
            ) from error
