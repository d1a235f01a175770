"""What a game calls its objects: `mug_bar__plus_01_dot_2` is "mug 1".

The numbering of `alfworld.agents.utils.misc.Demangler` (alfworld 0.4.2) without shuffling, kept here because
importing alfworld creates a folder in the user's home.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

_ESCAPES = (("_bar_", "|"), ("_minus_", "-"), ("_plus_", "+"), ("_dot_", "."), ("_comma_", ","))


def object_names(ids: Iterable[str]) -> dict[str, str]:
    """Name every object of a game.

    Objects of a kind are numbered from the last to the first in alphabetical order. An object without a kind, such as
    the agent, keeps its id and gets a blank behind it, as in the original.

    Args:
        ids: the PDDL names, in lower case, of all objects that some fact of the initial state mentions.
    """
    ordered = sorted(ids)
    unnumbered = Counter(_kind(name) for name in ordered)
    names = {}
    for name in ordered:
        kind = _kind(name)
        if kind is None:
            names[name] = f"{_unescaped(name)} "
        else:
            names[name] = f"{kind} {unnumbered[kind]}"
            unnumbered[kind] -= 1
    return names


def _kind(name: str) -> str | None:
    kind, bar, _ = _unescaped(name).partition("|")
    if not bar:
        return None
    return kind + "basin" if "basin" in name else kind


def _unescaped(name: str) -> str:
    for escaped, character in _ESCAPES:
        name = name.replace(escaped, character)
    return name
