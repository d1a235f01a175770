"""Which source files and installed packages a module depends on, found by following its imports.

What is followed is what a project changes: this package, the package of the module itself, and every other module that
is not installed. Installed packages are named with their version instead. Imports inside functions count; names that
are put together at run time are not seen.
"""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import sysconfig
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_OWN = "steppo_gym"
_INSTALLED = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Sources:
    """What a set of modules depends on."""

    files: dict[str, Path]
    """By module, sorted by name."""
    versions: dict[str, str]
    """Of installed packages, sorted by name."""


def sources_of(modules: Iterable[str]) -> Sources:
    """Follow the imports of modules.

    Args:
        modules: dotted names that can be imported.
    """
    waiting = list(modules)
    own = {_OWN, *(name.partition(".")[0] for name in waiting)}
    files: dict[str, Path] = {}
    installed: set[str] = set()
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in files or top in installed:
            continue
        if top not in own and _is_installed(top):
            installed.add(top)
            continue
        file = _file(name)
        if file is not None:
            files[name] = file
            waiting += _imports(name, file)
            if top != _OWN and "." in name:
                # Importing a module runs its package; those of this project only export names.
                waiting.append(name.rpartition(".")[0])
    return Sources(dict(sorted(files.items())), _versions(installed))


def _imports(name: str, file: Path) -> Iterator[str]:
    """What a module imports; `from a import b` names a, and a.b, which is a module or is not found."""
    package = name if file.stem == "__init__" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _is_installed(top: str) -> bool:
    """Whether a top-level module comes with Python or from a package index, or is not there at all."""
    try:
        spec = importlib.util.find_spec(top)
    except ValueError:
        return True  # "__main__", for example.
    if spec is None or spec.origin is None or not spec.has_location:
        return True
    file = Path(spec.origin)
    return bool(_INSTALLED & set(file.parts)) or file.is_relative_to(sysconfig.get_path("stdlib"))


def _file(name: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None  # A name in a module, or an optional module that is missing.
    return None if spec is None or spec.origin is None or not spec.origin.endswith(".py") else Path(spec.origin)


@functools.cache
def providers() -> Mapping[str, Sequence[str]]:
    """The installed packages that bring a top-level module, by module; a second's work, done once in a process."""
    return importlib.metadata.packages_distributions()


def _versions(tops: Iterable[str]) -> dict[str, str]:
    names = {name for top in tops for name in providers().get(top, ())}
    return {name: importlib.metadata.version(name) for name in sorted(names)}
