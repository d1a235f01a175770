"""What the code of others raises, in one line: readers of models and tokenizers, environments, serializers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import gymnasium

from steppo_gym.errors import DataError, SteppoGymError
from steppo_gym.rollouts.env_host import describe_error

MOST_SAID = 500
"""Characters of an error: a model that does not fit its weights names all of them, some readers all families."""

_EXPLAINED = (SteppoGymError, gymnasium.error.Error, ImportError, ValueError, TypeError, OSError)


def in_one_line(error: Exception) -> str:
    """What an error of somebody else's code says; with type and place unless it is one that explains itself."""
    said = str(error) if isinstance(error, _EXPLAINED) else describe_error(error)
    line = " ".join(said.split()) or type(error).__name__
    return line if len(line) <= MOST_SAID else f"{line[:MOST_SAID]} ..."


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise a DataError that names `what` in place of what a reader raises, which seldom says which file it was.

    What the system says, and what this package says itself, is left as it is.
    """
    try:
        yield
    except (SteppoGymError, OSError, ImportError):
        raise
    except Exception as error:
        raise DataError(f"{what} cannot be read: {in_one_line(error)}") from error
