"""Files of models and tokenizers, whose readers raise whatever they like and seldom say which file it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from steppo_gym.errors import DataError, SteppoGymError

MOST_SAID = 300
"""Characters of what a reader says: some list all families they know."""


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Raise a DataError that names `what` in place of what a reader raises; what the system says is left as it is."""
    try:
        yield
    except (SteppoGymError, OSError, ImportError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:MOST_SAID]
        raise DataError(f"{what} cannot be read: {type(error).__name__}: {said}") from error
