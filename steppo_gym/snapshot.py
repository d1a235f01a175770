"""Snapshots as they come back from a file or another process: untrusted until every part has its type.

A `TypedDict` or a dataclass says what a snapshot holds, for the reader, the type checker and `restored` alike.

>>> class Walk(TypedDict):
...     position: int
...     visited: list[str]
>>> restored({"position": 2, "visited": ["hall", 3]}, Walk)
Traceback (most recent call last):
    ...
steppo_gym.errors.DataError: No snapshot of this environment: expected text in visited[1], found 3.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict, TypeVar, Union, cast

import numpy as np

from steppo_gym.errors import DataError
from steppo_gym.quoting import one_line

T = TypeVar("T")

_INT_END = 2**63
_LARGEST_FLOAT = 1e300


class EnvSnapshot(TypedDict):
    """What `TextEnv.get_state` returns."""

    task_id: str
    num_steps: int
    history: list[tuple[str, str]]
    """What was said before each action, and the action."""
    feedback: str
    success: bool
    over: bool
    random: Mapping[str, Any]
    """Of `np_random`; `restored_generator` checks it."""
    task: Any
    """The task's own part, which the task checks."""


def restored(state: object, kind: type[T]) -> T:
    """What was written as JSON, once it is known to be of this kind.

    A `TypedDict` or a dataclass has exactly its fields; a `tuple` is read from a list; an `int` counts something, so it
    is not negative and below 2**63; a `float` is finite; a `str` can be written as UTF-8.

    Args:
        state: what was read.
        kind: a `TypedDict`, a dataclass, or any type built of them and of `str`, `bool`, `int`, `float`, `list`,
            `tuple`, `Mapping`, `Literal`, `Any` and unions.

    Raises:
        DataError: says which part is not as expected.
    """
    return cast(T, _restored(state, kind, ""))


def bad_snapshot(reason: str) -> DataError:
    """The error about a snapshot that cannot be continued from; the reason says what was expected and found."""
    return DataError(f"No snapshot of this environment: {reason}.")


def canonical_json(value: Any) -> bytes:
    """The one way to write a value as JSON that hashes are taken of: keys sorted, no blanks, ASCII alone."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def state_digest(*parts: Any) -> str:
    """A short key of anything that JSON can write; equal for equal parts.

    Raises:
        TypeError: a part is something else, such as a number of numpy.
    """
    try:
        written = json.dumps(parts)
    except TypeError as error:
        raise TypeError(f"A task's state must be of texts, Python's own numbers, lists and dicts: {error}.") from error
    return hashlib.sha256(written.encode()).hexdigest()[:32]


def restored_generator(state: Mapping[str, Any]) -> np.random.Generator:
    """The generator whose bit generator was in this state.

    Raises:
        DataError: it is no state of PCG64.
    """
    generator = np.random.Generator(np.random.PCG64())
    try:
        generator.bit_generator.state = state
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise bad_snapshot(f"expected the state of a PCG64 generator in random, found {error}") from error
    return generator


def _restored(value: object, kind: Any, place: str) -> object:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if typing.is_typeddict(kind) or dataclasses.is_dataclass(kind):
        return _restored_fields(value, kind, place)
    if origin is list or origin is tuple:
        return _restored_items(value, origin, arguments, place)
    if origin is Union or origin is types.UnionType:
        return _restored_choice(value, arguments, place)
    if origin is Literal:
        matches = any(type(value) is type(choice) and value == choice for choice in arguments)
    else:
        matches = _MATCHES[origin or kind](value)
    if not matches:
        raise _unexpected(_name(kind), place, value)
    return value


def _restored_fields(value: object, kind: Any, place: str) -> object:
    fields = typing.get_type_hints(kind)
    if not isinstance(value, Mapping):
        raise _unexpected(f"an object with {', '.join(fields)}", place, value)
    if value.keys() != fields.keys():
        raise _unexpected(f"exactly {', '.join(fields)}", place, list(value))
    return kind(**{name: _restored(value[name], fields[name], f"{place}.{name}".lstrip(".")) for name in fields})


def _restored_items(value: object, origin: type, arguments: tuple[Any, ...], place: str) -> object:
    if not isinstance(value, list | tuple):
        raise _unexpected("a list", place, value)
    kinds = arguments[:1] * len(value) if origin is list or arguments[-1] is ... else arguments
    if len(value) != len(kinds):
        raise _unexpected(f"{len(kinds)} items", place, value)
    items = enumerate(zip(value, kinds, strict=True))
    return origin(_restored(item, kind, f"{place}[{position}]") for position, (item, kind) in items)


def _restored_choice(value: object, kinds: tuple[Any, ...], place: str) -> object:
    for kind in kinds:
        try:
            return _restored(value, kind, place)
        except DataError:
            continue
    raise _unexpected(" or ".join(map(_name, kinds)), place, value)


def _unexpected(expected: str, place: str, found: object) -> DataError:
    return bad_snapshot(f"expected {expected}{f' in {place}' if place else ''}, found {one_line(repr(found))}")


def _name(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    return _NAMES.get(origin or kind, "an object")


def is_text(value: object) -> bool:
    """Whether a value is a text that can be written as UTF-8."""
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


_NAMES = {str: "text", bool: "true or false", int: "a count", float: "a finite number", types.NoneType: "nothing"}
_NAMES |= {list: "a list", tuple: "a list"}
_MATCHES: dict[Any, Callable[[Any], bool]] = {
    str: is_text,
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and 0 <= value < _INT_END,
    float: lambda value: type(value) in (int, float) and -_LARGEST_FLOAT < value < _LARGEST_FLOAT,
    types.NoneType: lambda value: value is None,
    Mapping: lambda value: isinstance(value, Mapping),
    Any: lambda value: True,
}
