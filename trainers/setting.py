"""A field of a settings class, with the text that `--help` shows."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(default: Any, text: str) -> Any:
    """A dataclass field of any type."""
    return field(default=default, metadata={"help": text})
