"""An index of a file of episodes, in the cache folder: what is listed and searched, and where each step's bytes are.

It is built the first time a file is looked at and again when the file has changed. Text is decoded once, here, so that
a search reads no tokens, and a page of an episode of 100,000 steps reads its own steps alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError
from steppo_gym.quoting import valid_text
from steppo_gym.storage.cache import cache_dir, forget, make_once
from steppo_gym.view.episode_line import EpisodeLine, StepPlace, new_tokens, parse_line
from steppo_gym.view.token_text import TokenText

_FORMAT = 1
"""To be raised with every change of what is written below."""
_TABLES = """
CREATE TABLE episodes (
    number INTEGER PRIMARY KEY, task TEXT, ended TEXT, success INTEGER, steps INTEGER, reward REAL, invalid INTEGER,
    group_number INTEGER, seed INTEGER, failure TEXT, metrics TEXT, final_text TEXT, line_start INTEGER
);
CREATE TABLE steps (
    episode INTEGER, number INTEGER, start INTEGER, end INTEGER, reward REAL, invalid TEXT, state TEXT,
    observation TEXT, response TEXT, prompt_tokens INTEGER, new_from INTEGER, new_to INTEGER, extends INTEGER,
    first_token INTEGER
);
"""
_INDEXES = """
CREATE INDEX of_episode ON steps (episode, number);
CREATE INDEX of_state ON steps (state);
"""
_WRONG_VALUE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What a value of another type than expected ends in."""
_BATCH = 2_000
"""Steps decoded at a time."""


def index_path(episodes: Path, tokenizer: Path | None) -> Path:
    """Where the index of a file in its present state is or will be."""
    where = hashlib.sha256(str(episodes.resolve()).encode()).hexdigest()[:16]
    files = [episodes, *([tokenizer] if tokenizer else [])]
    state = [_FORMAT, *((path.stat().st_size, path.stat().st_mtime_ns) for path in files)]
    return cache_dir("view") / f"{where}-{hashlib.sha256(repr(state).encode()).hexdigest()[:16]}.sqlite"


def build_index(episodes: Path, tokenizer: Path | None, text: TokenText) -> Path:
    """Build the index of a file, if it is not there, and delete those of earlier states of it.

    Raises:
        DataError: a line is not an episode; the message names file and line.
    """
    path = index_path(episodes, tokenizer)
    if not path.exists():
        make_once(path, lambda unfinished: _build(episodes, unfinished, text))
        found = path.parent.glob(f"{path.name.partition('-')[0]}-*.sqlite*")
        for old in {other.with_name(f"{other.name.partition('.')[0]}.sqlite") for other in found} - {path}:
            forget(old)
    return path


def _build(episodes: Path, path: Path, text: TokenText) -> None:
    with closing(sqlite3.connect(path)) as connection:
        # It appears under its name only when it is complete: nothing has to survive a crash.
        connection.executescript(f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; {_TABLES}")
        for number, (start, line) in enumerate(_lines(episodes)):
            try:
                episode = parse_line(line)
                connection.execute(
                    "INSERT INTO episodes VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    _episode_row(number, start, episode, text),
                )
                connection.executemany(
                    f"INSERT INTO steps VALUES ({', '.join('?' * 14)})",
                    _step_rows(number, start, episode.steps, text),
                )
            except (DataError, sqlite3.Error, *_WRONG_VALUE) as error:
                raise DataError(f"{episodes}, line {number + 1}: {error!s}") from error
        connection.executescript(_INDEXES)
        connection.commit()


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines and where they start; a last one that is still being written is left out."""
    start = 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield start, line
            start += len(line)


def _episode_row(number: int, start: int, episode: EpisodeLine, text: TokenText) -> Sequence[Any]:
    fields = episode.fields
    final = fields.get("final")
    failure = fields.get("failure")
    return (
        number,
        clean(fields["task_id"]),
        clean(fields["ended"]),
        int(bool(fields.get("success"))),
        len(episode.steps),
        math.fsum(step.data["reward"] for step in episode.steps),
        sum(step.data.get("invalid_action") is not None for step in episode.steps),
        fields.get("group", 0),
        fields.get("seed"),
        None if failure is None else clean(f"{failure.get('boundary')}: {failure.get('message')}"),
        json.dumps(fields.get("metrics") or {}, allow_nan=False),
        None if final is None else _final_text(final, episode.steps, text),
        start,
    )


def _final_text(final: dict[str, Any], steps: Sequence[StepPlace], text: TokenText) -> str:
    """What is new in the prompt of the state an episode was cut off in."""
    prompt, previous = final["prompt_ids"], [] if final.get("extends") or not steps else steps[-1].data["prompt_ids"]
    first, last = new_tokens(prompt, previous)
    return text.texts([prompt[first:last]])[0]


def _step_rows(number: int, start: int, steps: Sequence[StepPlace], text: TokenText) -> Iterable[Sequence[Any]]:
    previous: list[int] = []
    before = first_token = 0
    for first in range(0, len(steps), _BATCH):
        batch = steps[first : first + _BATCH]
        spans: list[tuple[int, int, int]] = []
        for step in batch:
            prompt, extends = step.data["prompt_ids"], bool(step.data.get("extends"))
            begin, end = (0, len(prompt)) if extends else new_tokens(prompt, previous)
            length = len(prompt) + (before if extends else 0)
            spans.append((begin, end, length))
            previous, before = prompt, length + len(step.data["response_ids"])
        observations = text.texts([step.data["prompt_ids"][a:b] for step, (a, b, _) in zip(batch, spans, strict=True)])
        for position, (step, (begin, end, length)) in enumerate(zip(batch, spans, strict=True)):
            data = step.data
            yield (
                number,
                first + position,
                start + step.start,
                start + step.end,
                data["reward"],
                None if data.get("invalid_action") is None else clean(data["invalid_action"]),
                clean(data["state_key"]),
                observations[position],
                clean(data["response"]),
                length,
                begin,
                end,
                int(bool(data.get("extends"))),
                first_token,
            )
            first_token += len(data["response_ids"])


def clean(text: str) -> str:
    """The text without halves of surrogate pairs, which JSON can hold and UTF-8 cannot.

    Raises:
        TypeError: it is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected text, got {text!r}")
    return valid_text(text)
