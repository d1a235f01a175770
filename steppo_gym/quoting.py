"""Texts of any size and content, shortened for an observation or a message.

>>> one_line("an  id of many words", 12)
'an id of ...'
>>> shared_limit([10, 300, 300], room=210)
100
"""

from __future__ import annotations

from collections.abc import Sequence


def one_line(text: str, length: int = 100) -> str:
    """One printable line of at most `length` characters, so that no quoted text can pose as another line."""
    line = " ".join(terminal_text(text[: 4 * length]).split())
    return line if len(line) <= length and len(text) <= 4 * length else f"{line[: length - 3]}..."


def terminal_text(text: str) -> str:
    """The text with a blank for whatever a terminal would obey or not show, such as escapes; its lines stay lines."""
    return "".join(character if character.isprintable() or character in "\n\t" else " " for character in text)


def valid_text(text: str) -> str:
    r"""The text with a "?" for each half of a surrogate pair, which JSON can write as "\ud800" and UTF-8 cannot.

    Whatever is shown to an agent or kept in a snapshot has to be written as UTF-8 sooner or later.
    """
    return text.encode("utf-8", "replace").decode()


def written_id(text: str) -> str:
    r"""An id that can be written to files and hashed.

    Raises:
        ValueError: it holds half of a surrogate pair, which JSON can write as "\ud800" and UTF-8 cannot.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"expected an id of valid Unicode, found {text!r:.80}") from None
    return text


def shared_limit(lengths: Sequence[int], room: int) -> int:
    """The largest limit with which texts of these lengths, each cut to it, take no more than `room`; at least 0."""
    remaining = max(room, 0)
    for shares, length in zip(range(len(lengths), 0, -1), sorted(lengths), strict=True):
        if shares * length > remaining:
            return remaining // shares
        remaining -= length
    return max(lengths, default=0)
