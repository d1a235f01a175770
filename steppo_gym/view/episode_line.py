"""One line of a file of episodes, taken apart without building all of it: fields, and where each step stands.

The viewer reads the format itself (it is described in docs/viewing.md): a line may hold a hundred thousand steps, of
which a page shows twenty.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from steppo_gym.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True)
class StepPlace:
    """A step's JSON object and the bytes of the line it is made of."""

    start: int
    end: int
    data: dict[str, Any]


@dataclass(frozen=True)
class EpisodeLine:
    """The fields of an episode but for its steps, and those."""

    fields: dict[str, Any]
    steps: list[StepPlace]


def parse_line(line: bytes) -> EpisodeLine:
    """Take one line apart.

    Raises:
        DataError: it is not an episode.
    """
    try:
        # Each byte a character, so that positions in the text are positions in the line.
        episode = _Reader(line).episode()
        if not isinstance(episode.fields.get("task_id"), str) or not isinstance(episode.fields.get("ended"), str):
            raise ValueError("task_id or ended is missing")
        return episode
    except (ValueError, IndexError, RecursionError, TypeError) as error:
        raise DataError(f"expected one episode as JSON, got {line[:80]!r} ({error})") from error


def new_tokens(prompt: Sequence[int], previous: Sequence[int]) -> tuple[int, int]:
    """From where to where a prompt differs from the one before: what both begin and both end with is left out.

    Args:
        prompt: token ids.
        previous: token ids of the prompt before, empty if there is none.
    """
    most = min(len(prompt), len(previous))
    start = next((i for i in range(most) if prompt[i] != previous[i]), most)
    most -= start
    end = next((i for i in range(most) if prompt[-1 - i] != previous[-1 - i]), most)
    return start, len(prompt) - end


class _Reader:
    """Reads a line from left to right. Every byte is taken for a character, so that positions are those of bytes."""

    def __init__(self, line: bytes) -> None:
        self._line, self._text, self._position = line, line.decode("latin-1"), 0
        self._is_ascii = line.isascii()

    def episode(self) -> EpisodeLine:
        """The whole line."""
        fields: dict[str, Any] = {}
        steps: list[StepPlace] = []
        self._take("{")
        while True:
            name = self._value()
            self._take(":")
            if name == "steps":
                steps = self._steps()
            else:
                fields[name] = self._value()
            if self._take(",}") == "}":
                return EpisodeLine(fields, steps)

    def _steps(self) -> list[StepPlace]:
        steps: list[StepPlace] = []
        self._take("[")
        if self._next() == "]":
            self._take("]")
            return steps
        while True:
            self._next()
            start = self._position
            data = self._value()
            if not isinstance(data, dict):
                raise ValueError(f"expected a step at byte {start}")
            steps.append(StepPlace(start, self._position, data))
            if self._take(",]") == "]":
                return steps

    def _value(self) -> Any:
        """The JSON value that comes next."""
        self._next()
        start = self._position
        value, self._position = _DECODER.raw_decode(self._text, start)
        return value if self._is_ascii else json.loads(self._line[start : self._position])

    def _take(self, characters: str) -> str:
        """One of some characters, which must come next."""
        found = self._next()
        if found not in characters:
            raise ValueError(f"expected one of {characters!r} at byte {self._position}")
        self._position += 1
        return found

    def _next(self) -> str:
        """The character that comes next; white space is passed over."""
        match = _SPACE.match(self._text, self._position)
        self._position = match.end() if match else self._position
        return self._text[self._position]
