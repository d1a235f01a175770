"""Command lines that say in one line what is wrong, and which flag was probably meant.

    parser = CommandParser(prog="steppo-gym")
    parser.add_argument("--env_args")
    parser.parse_args(["--env-arg", "split=test"])
    # steppo-gym: unknown flag --env-arg. Did you mean --env_args?

`unknown_arguments` gives the sentence for parsers of other kinds.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pkgutil import resolve_name
from typing import Any, NoReturn

_SIMILAR = 0.6
_UNREAD = 141
"""Exit status of a process that the signal of a broken pipe has ended."""


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are one line, also those of its commands. Flags are written in full."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore
        """Read the arguments; unlike the base class, exit where one is unknown."""
        options, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_arguments(unknown, self._option_string_actions))
        return options, unknown

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            meant = did_you_mean(str(value), choices)
            raise argparse.ArgumentError(action, f"expected one of {', '.join(choices)}, got {value!r:.80}{meant}")

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 after one line."""
        ended = message if message.endswith(("?", ".")) else f"{message}."
        self.exit(2, f"{self.prog}: {ended} {self.prog} --help says more.\n")


def add_command(commands: Any, name: str, said: str, *, example: str) -> argparse.ArgumentParser:
    """A new command with one line that says what it does, in the list of commands and in its own help.

    Args:
        commands: what `ArgumentParser.add_subparsers` returned.
        name: what is typed.
        said: what it does, without a capital letter and a full stop.
        example: a whole command line.
    """
    about = f"{said[0].upper()}{said[1:]}."
    return commands.add_parser(name, help=said, description=about, epilog=f"Example: {example}")


def run_by_name(command: str, options: argparse.Namespace) -> int:
    """Run "module:function" on the options of a command; its module is loaded only now.

    So the core knows modules outside of it by name alone.
    """
    return resolve_name(command)(options)


@contextlib.contextmanager
def ending_when_unread() -> Iterator[None]:
    """Exit without a word where whoever reads the output has read enough, as in `steppo-gym panel list | head -1`."""
    try:
        try:
            yield
        finally:
            # At the exit of Python it would be too late to catch anything.
            print(end="", flush=True)
    except BrokenPipeError:
        # What is left to be written goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_UNREAD)


def unknown_arguments(unknown: Sequence[str], known: Iterable[str]) -> str:
    """What to say of arguments that a command does not have.

    Args:
        unknown: as argparse leaves them over, values of unknown flags included; at least one.
        known: the flags there are, with their dashes.

    >>> unknown_arguments(["--temprature", "1"], ["--seed", "--temperature"])
    'unknown flag --temprature. Did you mean --temperature?'
    >>> unknown_arguments(["x"], ["--seed"])
    "unexpected argument 'x'"
    """
    flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    if not flags:
        return f"unexpected argument {unknown[0]!r:.80}"
    return f"unknown flag {flags[0]:.80}{did_you_mean(flags[0], known)}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence with the most similar of some words, to stand behind another one; "" where none is similar.

    >>> did_you_mean("hotpotq", ["hotpotqa", "musique"])
    '. Did you mean hotpotqa?'
    """
    # Dashes and underscores count as the same: that is the most frequent mistake.
    spelled = {_spelling(name): name for name in known}
    similar = difflib.get_close_matches(_spelling(word), spelled, n=1, cutoff=_SIMILAR)
    return f". Did you mean {spelled[similar[0]]}?" if similar else ""


def _spelling(word: str) -> str:
    return word.lower().replace("-", "_")
