"""Credit rules of one's own on a command line: `module:Class`, as environments are named."""

from __future__ import annotations

from collections.abc import Sequence
from pkgutil import resolve_name

from steppo_gym.credit.records import CreditRule
from steppo_gym.registration import find_modules_here
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.setting import require_dataclass


def own_rules(names: Sequence[str]) -> dict[str, type[CreditRule]]:
    """The classes by the names they have in tables, those of their runs' folders.

    Args:
        names: "module:Class"; the module may lie in the working directory.

    Raises:
        ValueError: a name is not that of a credit rule, the rule is no dataclass, or has the name of another.
    """
    found: dict[str, type[CreditRule]] = {}
    for name in names:
        find_modules_here(name)
        try:
            rule = resolve_name(name) if ":" in name else None
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"--rule {name}: {error}.") from error
        if not (isinstance(rule, type) and issubclass(rule, CreditRule)):
            raise ValueError(
                f"--rule must be module:Class, a credit rule such as step_baseline:StepBaseline, got {name}."
            )
        require_dataclass(rule)
        short = rule.title().lower()
        if short in found or any(short == known.title().lower() for known in ALGORITHMS.values()):
            raise ValueError(
                f"--rule {name}: there is a rule of the name {rule.title()} already. Give it a title() of its own."
            )
        found[short] = rule
    return found
