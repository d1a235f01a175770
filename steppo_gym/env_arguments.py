"""Keywords of an environment on a command line.

>>> env_argument("max_steps=3"), env_argument("split=test")
(('max_steps', 3), ('split', 'test'))

Places that are there come out as whole paths: what is written down is to mean the same in every folder.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from steppo_gym.keywords import PLACES, path_of


def env_argument(text: str) -> tuple[str, Any]:
    """Name and value of NAME=VALUE; a value that is JSON is read as such, any other is text, and see `placed`.

    Raises:
        ValueError: there is no "=" in it.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"Expected NAME=VALUE for a keyword of the environment, got {text!r}.")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, placed(name, value)


def env_argument_text(name: str, value: Any) -> str:
    """NAME=VALUE, from which `env_argument` reads this name and value."""
    return f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def placed(name: str, value: str) -> str:
    """The value of a keyword; the whole path of what it names, if it says where something lies and that is there."""
    if name not in PLACES or not value:
        return value
    # Only places need what knows of searching.
    from steppo_gym.retrieval.engine import names_engine

    engine, colon, where = value.partition(":") if names_engine(value) else ("", "", value)
    path = str(path_of(where))
    # Not the path's own test, which raises where a name is too long.
    return f"{engine}{colon}{path}" if where and os.path.exists(path) else value


def add_env_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flag that takes them."""
    parser.add_argument(
        "--env_args", action="extend", nargs="+", default=[], metavar="NAME=VALUE", help="keywords of the environment"
    )
