"""Keywords of an environment on a command line.

>>> env_argument("max_steps=3"), env_argument("split=test")
(('max_steps', 3), ('split', 'test'))
"""

from __future__ import annotations

import argparse
import json
from typing import Any


def env_argument(text: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE; a value that is JSON is read as such, any other is text.

    Raises:
        ValueError: there is no "=" in it.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"Expected NAME=VALUE for a keyword of the environment, got {text!r}.")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def add_env_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flag that takes them."""
    parser.add_argument(
        "--env_args", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="keywords of the environment"
    )
