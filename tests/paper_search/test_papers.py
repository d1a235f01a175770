"""Dates and ids of papers."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.envs.paper_search.papers import arxiv_id_without_version, latest_day, published_by


@given(st.dates(min_value=datetime.date(1000, 1, 1)), st.dates(min_value=datetime.date(1000, 1, 1)))
def test_a_paper_is_published_by_a_day_if_no_day_that_its_date_means_is_later(date, until):
    assert published_by(date.isoformat(), until.isoformat()) == (date <= until)
    days = [datetime.date(date.year, date.month, 1) + datetime.timedelta(days=number) for number in range(31)]
    last = max(day for day in days if day.month == date.month)
    assert published_by(date.isoformat()[:7], until.isoformat()) == (last <= until)
    assert published_by(date.isoformat()[:4], until.isoformat()) == (datetime.date(date.year, 12, 31) <= until)


def test_an_unknown_date_is_too_late_and_no_limit_lets_all_pass():
    assert not published_by("", "2024-01-01")
    assert published_by("", "") and published_by("2024", "")
    assert latest_day("2024-02") == "2024-02-29"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2401.01234v2", "2401.01234"),
        ("cs/0112017v1", "cs/0112017"),
        ("math.GT/0309136v3", "math.GT/0309136"),
        ("2401.01234", "2401.01234"),
        ("conv/1", "conv/1"),
        ("CoVoST v2", "CoVoST v2"),
        ("649def34f8be52c8b66281af98ae884c09aef38b", "649def34f8be52c8b66281af98ae884c09aef38b"),
    ],
)
def test_versions_alone_are_cut(text, expected):
    assert arxiv_id_without_version(text) == expected
