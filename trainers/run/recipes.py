"""Settings of a run in YAML files (`--config`): keys are flags, read before those of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from steppo_gym.credit.records import CreditRule

CRITIC, GROUPS = "with_critic", "in_groups"
"""Keys whose flags are read by algorithms that have a critic, and by those that compare episodes of one task."""


def with_recipes(rule: type[CreditRule], argv: Sequence[str]) -> list[str]:
    """The command line with the flags of its `--config` files in front, where later ones go before them.

    Raises:
        ValueError: a file that is none, in one line.
    """
    # An only one, so that no other flag is read as its abbreviation.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", nargs="+", action="extend", default=[])
    named, rest = parser.parse_known_args(argv)
    flags = [flag for file in named.config for flag in _flags(rule, _read(Path(file)), file)]
    return [*flags, *rest]


def _read(path: Path) -> dict[str, Any]:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"--config: {path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"--config: {path} is no text.") from error
    except yaml.YAMLError as error:
        raise ValueError(f"--config: {path} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(read, dict):
        raise ValueError(f"--config: {path} must hold `flag: value` lines, got {type(read).__name__}.")
    return read


def _flags(rule: type[CreditRule], read: dict[str, Any], file: str) -> list[str]:
    applies = {CRITIC: rule.critic is not None, GROUPS: rule.needs_groups}
    flags = []
    for name, value in read.items():
        if name in applies:
            if not isinstance(value, dict):
                raise ValueError(f"--config: {name} of {file} must hold flags, got {value!r}.")
            flags += _flags(rule, value, file) if applies[name] else []
        elif isinstance(value, dict) or value is None:
            raise ValueError(f"--config: {name} of {file} must be a number, a text or a list, got {value!r}.")
        else:
            flags += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return flags
