"""Shortened texts: printable, short, marked where cut, and no shorter than they have to be."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from steppo_gym.quoting import one_line, shared_limit, terminal_text


@given(st.text(), st.integers(3, 60))
def test_a_quotation_is_one_short_line_that_can_be_written(text, length):
    quoted = one_line(text, length)
    assert len(quoted) <= length
    assert quoted.isprintable()
    quoted.encode()


def test_a_quotation_keeps_short_text_and_marks_a_cut():
    assert one_line("go to\tfridge 1") == "go to fridge 1"
    assert one_line("x" * 101) == "x" * 97 + "..."
    assert one_line("x" + " " * 1000 + "y").endswith("...")
    assert one_line("look \ud800 \x00 around") == "look around"


@given(st.text())
def test_a_text_does_nothing_to_a_terminal_and_keeps_its_lines(text):
    shown = terminal_text(text)
    assert len(shown) == len(text) and shown.count("\n") == text.count("\n")
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert terminal_text(shown) == shown


def test_escapes_and_changes_of_direction_are_blanks():
    assert terminal_text("a\x1b[31mb\r\n\tc\u202ed \u00e9\U0001f600") == "a [31mb \n\tc d \u00e9\U0001f600"


@given(st.lists(st.integers(0, 300)), st.integers(-5, 2000))
@example([300, 300], 300)
@example([10, 300, 300], 200)
@example([3, 3], 5)
def test_shared_limit_is_the_largest_that_fits(lengths, room):
    def taken(limit):
        return sum(min(length, limit) for length in lengths)

    limit = shared_limit(lengths, room)
    assert limit == max(value for value in range(max(lengths, default=0) + 1) if value == 0 or taken(value) <= room)
