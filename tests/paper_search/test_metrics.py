"""Precision, recall and F1 of lists of papers, computed by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.envs.paper_search.papers import Query
from steppo_gym.envs.paper_search.reward import CUTS, cut_metrics, list_scores, macro_average


def ids(text):
    return tuple(text.split())


OTHERS = [f"n{i}" for i in range(200)]


@pytest.mark.parametrize(
    ("found", "answers", "cut", "precision", "recall", "f1"),
    [
        # All, half and none of them.
        (ids("a b"), ids("a b"), None, 1, 1, 1),
        (ids("b a"), ids("a b"), None, 1, 1, 1),
        (ids("a"), ids("a b"), None, 1, 1 / 2, 2 / 3),
        (ids("a c"), ids("a b"), None, 1 / 2, 1 / 2, 1 / 2),
        (ids("a c d e"), ids("a"), None, 1 / 4, 1, 2 / 5),
        (ids("a b c d e"), ids("a b x y"), None, 2 / 5, 1 / 2, 4 / 9),
        (ids("c d"), ids("a b"), None, 0, 0, 0),
        # Empty lists, and a query without answers.
        ((), ids("a"), None, 0, 0, 0),
        (ids("a"), (), None, 0, 0, 0),
        ((), (), None, 0, 0, 0),
        # Ids count once, on both sides.
        (ids("a a a c"), ids("a b"), None, 1 / 2, 1 / 2, 1 / 2),
        (ids("a"), ids("a a"), None, 1, 1, 1),
        # Only versions of arXiv ids are cut off, on both sides.
        (ids("2401.01234v3"), ids("2401.01234"), None, 1, 1, 1),
        (ids("2401.01234"), ids("2401.01234v1"), None, 1, 1, 1),
        (ids("2401.01234v1 2401.01234v2"), ids("2401.01234 a"), None, 1, 1 / 2, 2 / 3),
        (ids("cs/0112017v2"), ids("cs/0112017"), None, 1, 1, 1),
        (ids("conv1"), ids("conv2"), None, 0, 0, 0),
        (ids("survey1"), ids("survey1"), None, 1, 1, 1),
        (ids("solv-int/9701001v1"), ids("solv-int/9701001"), None, 1, 1, 1),
        (ids("https://arxiv.org/abs/2401.01234v2"), ids("2401.01234"), None, 1, 1, 1),
        # Cuts: at one, within the list, longer than the list.
        (ids("a c b"), ids("a b"), 1, 1, 1 / 2, 2 / 3),
        (ids("c a b"), ids("a b"), 1, 0, 0, 0),
        (ids("c a b"), ids("a b"), 2, 1 / 2, 1 / 2, 1 / 2),
        (ids("c a b"), ids("a b"), 3, 2 / 3, 1, 4 / 5),
        (ids("c a b"), ids("a b"), 100, 2 / 3, 1, 4 / 5),
        # Repeated ids do not use up places.
        (ids("c c a"), ids("a"), 2, 1 / 2, 1, 2 / 3),
        # An answer just within and just outside.
        ([*OTHERS[:24], "a"], ids("a"), 25, 1 / 25, 1, 2 / 26),
        ([*OTHERS[:25], "a"], ids("a"), 25, 0, 0, 0),
        ([*OTHERS[:49], "a"], ids("a b"), 50, 1 / 50, 1 / 2, 2 / 52),
        ([*OTHERS[:99], "a"], ids("a b c d"), 100, 1 / 100, 1 / 4, 2 / 104),
        ([*OTHERS, "a"], ids("a"), 100, 0, 0, 0),
        ([*OTHERS, "a"], ids("a"), None, 1 / 201, 1, 2 / 202),
    ],
)
def test_list_scores(found, answers, cut, precision, recall, f1):
    scores = list_scores(found, answers, cut)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((precision, recall, f1))


def test_a_cut_is_at_least_one():
    with pytest.raises(ValueError, match="cut must be at least 1 or None, got 0"):
        list_scores(["a"], ["a"], 0)


def test_cut_metrics_are_named():
    metrics = cut_metrics([*OTHERS[:30], "a"], ["a"])
    assert list(metrics) == [
        f"{name}{suffix}" for suffix in ("", "@100", "@50", "@25") for name in ("precision", "recall", "f1")
    ]
    assert metrics["precision"] == metrics["precision@50"] == 1 / 31
    assert metrics["recall@25"] == metrics["precision@25"] == 0.0


QUERIES = [Query("p", "?", ("a",)), Query("q", "?", ("a", "b")), Query("r", "?", ("c", "d", "e", "f"))]


@pytest.mark.parametrize(
    ("results", "precision", "recall", "f1"),
    [
        ({"p": ["a"], "q": ["a", "b"], "r": ["c", "d", "e", "f"]}, 1, 1, 1),
        # Every query counts the same, however many answers it has.
        ({"p": ["a"], "q": [], "r": []}, 1 / 3, 1 / 3, 1 / 3),
        ({"p": ["x"], "q": ["x"], "r": ["c", "d", "e", "f"]}, 1 / 3, 1 / 3, 1 / 3),
        # F1 is averaged, not computed from the averages.
        ({"p": ["a", "x"], "q": ["a"], "r": ["c", "x", "y", "z"]}, 7 / 12, 7 / 12, (2 / 3 + 2 / 3 + 1 / 4) / 3),
        # What is missing counts as nothing found.
        ({"p": ["a"]}, 1 / 3, 1 / 3, 1 / 3),
        ({"q": ["b"]}, 1 / 3, 1 / 6, 2 / 9),
        ({}, 0, 0, 0),
    ],
)
def test_macro_average(results, precision, recall, f1):
    average = macro_average(results, QUERIES)
    assert (average["precision"], average["recall"], average["f1"]) == pytest.approx((precision, recall, f1))


def test_macro_average_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="at least one query"):
        macro_average({}, [])
    with pytest.raises(ValueError, match="results of the queries given, got 1 others, for example 's'"):
        macro_average({"s": []}, QUERIES)


IDS = st.lists(st.sampled_from(["a", "b", "c", "2401.01234v1", "2401.01234", "x/1v2"]))


@given(found=IDS, answers=IDS, cut=st.sampled_from(CUTS))
def test_scores_are_consistent(found, answers, cut):
    scores = list_scores(found, answers, cut)
    assert 0 <= min(scores.precision, scores.recall) <= scores.f1 <= max(scores.precision, scores.recall) <= 1
    swapped = list_scores(answers, found)
    if cut is None:
        assert (swapped.precision, swapped.recall) == (scores.recall, scores.precision)
