"""The space of free text: any Unicode string up to a length.

Gymnasium's own `Text` holds a fixed alphabet and warns on every other character, so it cannot describe what a language
model writes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers.utils import create_zero_array

from steppo_gym.snapshot import is_text

_LAST_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)
_SAMPLE_LENGTH = 64


class FreeText(gymnasium.Space[str]):
    """All strings of at most `max_length` characters that can be written as UTF-8 (so no lone surrogates).

    Args:
        max_length: longest string, in code points.
        seed: seeds `sample`.

    Raises:
        ValueError: `max_length` is below 1.
    """

    def __init__(self, max_length: int = 1_000_000, seed: int | np.random.Generator | None = None) -> None:
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}.")
        self.max_length = max_length
        super().__init__(shape=None, dtype=None, seed=seed)

    @property
    def is_np_flattenable(self) -> bool:
        """Free text has no array form."""
        return False

    def sample(self, mask: None = None, probability: None = None) -> str:
        """A random string of 0 to 64 characters from all of Unicode.

        Args:
            mask: not supported, must be None.
            probability: not supported, must be None.

        Raises:
            ValueError: a mask or a probability was given.
        """
        if mask is not None or probability is not None:
            raise ValueError("FreeText.sample takes neither mask nor probability: there is no finite set to mask.")
        length = int(self.np_random.integers(0, min(self.max_length, _SAMPLE_LENGTH) + 1))
        codes = self.np_random.integers(0, _LAST_CODE_POINT + 1 - len(_SURROGATES), size=length)
        return "".join(chr(code if code < _SURROGATES.start else code + len(_SURROGATES)) for code in codes.tolist())

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string, short enough, and valid Unicode."""
        return is_text(x) and len(x) <= self.max_length

    def to_jsonable(self, sample_n: Iterable[str]) -> list[str]:
        """Strings are JSON already."""
        return list(sample_n)

    def from_jsonable(self, sample_n: list[Any]) -> list[str]:
        """Strings are JSON already."""
        return [str(sample) for sample in sample_n]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FreeText) and self.max_length == other.max_length

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.max_length))

    def __repr__(self) -> str:
        return f"FreeText(max_length={self.max_length})"


@create_zero_array.register(FreeText)
def _nothing_said(space: FreeText) -> str:
    """What `DelayObservation` and `FrameStackObservation` show before the first observation."""
    del space
    return ""
