"""Shortened texts: printable, short, marked where cut, and no shorter than they have to be."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from steppo_gym.quoting import one_line, shared_limit


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


@given(st.lists(st.integers(0, 300)), st.integers(-5, 2000))
@example([300, 300], 300)
@example([10, 300, 300], 200)
@example([3, 3], 5)
def test_shared_limit_is_the_largest_that_fits(lengths, room):
    def taken(limit):
        return sum(min(length, limit) for length in lengths)

    limit = shared_limit(lengths, room)
    assert limit == max(value for value in range(max(lengths, default=0) + 1) if value == 0 or taken(value) <= room)
