"""Compiled games: what the translator makes of a game, kept on disk.

Translating a game takes 15 to 150 ms and gives the same result every time. `CompiledGames` does it once per game and
keeps the result in a folder that any number of processes may share.

One file per game: a line that names the format, the SHA-256 of the rest, and the rest compressed with zlib: a line of
JSON, then the planning task in SAS format. A file that is damaged, of another version or of another game is written
anew. No code is ever read from disk.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import re
import tempfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from steppo_gym.envs.alfworld.engine import translation
from steppo_gym.envs.alfworld.engine.downward import NAME_BYTES
from steppo_gym.errors import DataError

FORMAT_VERSION = 1

_MAGIC = b"steppo-gym compiled ALFWorld game\n"
_CONTROL = re.compile(rb"[^\n -~]")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompiledGame:
    """A game as Fast Downward plays it, and what is needed to put it into words.

    Attributes:
        packed_sas: the planning task in SAS format, compressed with zlib.
        parameters: name of an operator to the name and type of its parameters.
        types: name of each type and of its supertypes, in the order declared.
        objects: name of each object to its type.
        facts: predicate and arguments of each fact of the initial state; derived facts are left out.
        fluents: the predicates that actions change.
    """

    packed_sas: bytes
    parameters: Mapping[str, tuple[tuple[str, str], ...]]
    types: tuple[tuple[str, tuple[str, ...]], ...]
    objects: Mapping[str, str]
    facts: tuple[tuple[str, ...], ...]
    fluents: frozenset[str]

    @property
    def sas(self) -> bytes:
        """The planning task in SAS format."""
        return zlib.decompress(self.packed_sas)


def compile_game(domain: str, problem: str) -> CompiledGame:
    """Translate a game.

    Raises:
        DataError: the text is not a game that can be played.
    """
    translated = translation.translate(domain, problem)
    longest = max(map(len, translated.sas.split(b"\n")))
    if longest >= NAME_BYTES:
        raise DataError(
            f"The game has an operator or fact of {longest} characters; names of up to {NAME_BYTES - 1} can be played."
        )
    # The library ends the process on a text that a null byte cuts.
    if control := _CONTROL.search(translated.sas):
        raise DataError(f"The game has a name with the control character {control[0]!r}. Was its file damaged?")
    task = translated.task
    atoms = [fact for fact in task.init if getattr(fact, "predicate", "=") != "="]
    objects = {thing.name: thing.type_name for thing in task.objects}
    unknown = next((name for atom in atoms for name in atom.args if name not in objects), None)
    if unknown is not None:
        raise DataError(f"The game begins with a fact about {unknown!r:.80}, which it does not declare.")
    return CompiledGame(
        packed_sas=zlib.compress(translated.sas, 1),
        parameters={
            action.name: tuple((parameter.name.strip("?"), parameter.type_name) for parameter in action.parameters)
            for action in task.actions
        },
        types=tuple((kind.name, tuple(kind.supertype_names)) for kind in task.types),
        objects=objects,
        facts=tuple(dict.fromkeys((atom.predicate, *atom.args) for atom in atoms)),
        fluents=frozenset(effect.literal.predicate for action in task.actions for effect in action.effects),
    )


class CompiledGames:
    """The compiled games of one folder, safe for any number of threads and processes.

    Attributes:
        folder: where the files are; created when the first game is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, key: str, domain: str, problem: str) -> CompiledGame:
        """The compiled game, from disk or compiled now.

        Args:
            key: `game_key(domain, problem)`.
            domain: PDDL text.
            problem: PDDL text.

        Raises:
            DataError: the text is not a game that can be played.
        """
        path = self.folder / f"{key}.game"
        game = _read(path, key)
        if game is None:
            with translation.LOCK:
                game = _read(path, key)  # Another thread may have compiled it in the meantime.
                if game is None:
                    game = compile_game(domain, problem)
                    _write(path, key, game)
        return game


def game_key(domain: str, problem: str) -> str:
    """Name of a game: a hash of its text and of all that its translation depends on."""
    versions = f"{FORMAT_VERSION} {_translator_version()}"
    digest = hashlib.sha256()
    for part in (versions, domain, problem):
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


@cache
def _translator_version() -> str:
    return importlib.metadata.version("fast-downward-textworld")


def encode(key: str, game: CompiledGame) -> bytes:
    """The content of the file of a game."""
    header = {
        "key": key,
        "parameters": game.parameters,
        "types": game.types,
        "objects": game.objects,
        "facts": game.facts,
        "fluents": sorted(game.fluents),
    }
    rest = zlib.compress(json.dumps(header, separators=(",", ":")).encode() + b"\n" + game.sas, 6)
    return _MAGIC + hashlib.sha256(rest).digest() + rest


def decode(key: str, content: bytes) -> CompiledGame:
    """The game in a file's content.

    Raises:
        ValueError: the content is damaged, or of another version or another game.
    """
    digest, rest = content[len(_MAGIC) :][:32], content[len(_MAGIC) + 32 :]
    if not content.startswith(_MAGIC) or hashlib.sha256(rest).digest() != digest:
        raise ValueError("the file is damaged or of another format")
    header, _, sas = zlib.decompress(rest).partition(b"\n")
    fields: dict[str, Any] = json.loads(header)
    if fields["key"] != key:
        raise ValueError("the file is of another game")
    return CompiledGame(
        packed_sas=zlib.compress(sas, 1),
        parameters={name: tuple((word, kind) for word, kind in pairs) for name, pairs in fields["parameters"].items()},
        types=tuple((name, tuple(supertypes)) for name, supertypes in fields["types"]),
        objects=dict(fields["objects"]),
        facts=tuple(map(tuple, fields["facts"])),
        fluents=frozenset(fields["fluents"]),
    )


def _read(path: Path, key: str) -> CompiledGame | None:
    try:
        return decode(key, path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zlib.error) as error:
        _LOG.warning("Compiled game %s can not be used (%s); compiling it again.", path, error)
        return None


def _write(path: Path, key: str, game: CompiledGame) -> None:
    """Write a file that other processes see either whole or not at all. Failing to is no error: the game is known."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encode(key, game))
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        _LOG.warning("Compiled game %s can not be kept (%s).", path, error)
