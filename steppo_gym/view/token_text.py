"""The text of token ids, by the run's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError
from steppo_gym.quoting import valid_text


class NumberedTokens:
    """For runs without a tokenizer: the ids themselves."""

    def texts(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """The text of each sequence, special tokens included."""
        return ["".join(self.pieces(token_ids)) for token_ids in batch]

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """What each token adds to the text; "" for one that only begins a character."""
        return [f"[{token}]" for token in token_ids]


class TokenizerText:
    """A `tokenizer.json`.

    Raises:
        DataError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        from tokenizers import Tokenizer

        try:
            self._tokenizer: Any = Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises nothing narrower
            raise DataError(f"{path}: expected a tokenizer ({error}).") from error

    def texts(self, batch: Sequence[Sequence[int]]) -> list[str]:
        """See `NumberedTokens`."""
        return [valid_text(text) for text in self._tokenizer.decode_batch(_known(batch), skip_special_tokens=False)]

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """See `NumberedTokens`."""
        from tokenizers.decoders import DecodeStream

        stream, pieces = DecodeStream(skip_special_tokens=False), []
        for token in _known([token_ids])[0]:
            try:
                piece = stream.step(self._tokenizer, token)
            except Exception:  # the package raises nothing narrower
                # A byte that is no text has changed what was decoded of those before it; from here on it begins anew.
                stream = DecodeStream(skip_special_tokens=False)
                piece = f"\N{REPLACEMENT CHARACTER}{stream.step(self._tokenizer, token) or ''}"
            pieces.append(valid_text(piece or ""))
        return pieces


TokenText = NumberedTokens | TokenizerText
"""From token ids to text. Never raises, whatever the ids."""


def _known(batch: Sequence[Sequence[int]]) -> list[list[int]]:
    """Ids that the package takes: what is none, or outside 32 bits, becomes one that no vocabulary has."""
    none = 2**32 - 1
    return [[token if type(token) is int and 0 <= token < none else none for token in ids] for ids in batch]
