"""A field of a settings class with the text that `--help` shows, and the ranges of such fields."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import Field, field
from typing import Any


def setting(default: Any, text: str) -> Any:
    """A dataclass field of any type."""
    return field(default=default, metadata={"help": text})


def require_dataclass(kind: type) -> None:
    """Raise a ValueError if a class has such fields and is no dataclass: they would be no settings, and all true."""
    forgotten = next((name for name, value in vars(kind).items() if isinstance(value, Field)), None)
    if forgotten is not None:
        raise ValueError(
            f"{kind.__name__} is no dataclass, so that {forgotten} is no setting of it. Write @dataclass(frozen=True) "
            "above the class."
        )


def check_ranges(
    settings: Any, least: Mapping[str, float], above_zero: Iterable[str] = (), finite: Iterable[str] = ()
) -> None:
    """Raise a ValueError that names the first setting outside of its range, NaN included; None is in every range.

    Args:
        settings: has the fields that are named.
        least: the smallest value of each.
        above_zero: those that must be larger than 0.
        finite: those that must not be infinite.
    """
    ranges = [
        *((name, f"at least {value}", lambda x, value=value: x >= value) for name, value in least.items()),
        *((name, "above 0", lambda x: x > 0) for name in above_zero),
        *((name, "finite", math.isfinite) for name in finite),
    ]
    for name, said, holds in ranges:
        value = getattr(settings, name)
        if value is not None and not holds(value):
            raise ValueError(f"{name} must be {said}, got {value}.")
