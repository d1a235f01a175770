"""Statistics over seeds against numbers computed by hand and against definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.baselines.running.progress import seconds_left
from steppo_gym.baselines.tables.estimates import (
    Estimate,
    area_under_curve,
    estimate,
    holm,
    interquartile_mean,
    paired_t_test,
    probability_of_improvement,
    t_interval,
)
from steppo_gym.baselines.tables.over_tasks import aggregate

shares = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=8)


def test_student_intervals_are_those_of_tables():
    # 2.776 and 2.262: the 97.5 % points of t with 4 and 9 degrees of freedom.
    found = t_interval([0.1, 0.2, 0.3, 0.4, 0.5])
    error = np.std([0.1, 0.2, 0.3, 0.4, 0.5], ddof=1) / 5**0.5
    assert (found.mean, found.low, found.high) == pytest.approx(
        (0.3, 0.3 - 2.7764 * error, 0.3 + 2.7764 * error), abs=1e-5
    )
    found = t_interval([0.0, 1.0] * 5)
    assert found.high - found.mean == pytest.approx(2.2622 * np.std([0.0, 1.0] * 5, ddof=1) / 10**0.5, abs=1e-4)


def test_student_intervals_cover_as_often_as_they_say():
    samples = np.random.default_rng(0).normal(0.5, 0.1, (2000, 5))
    covered = [found.low <= 0.5 <= found.high for found in map(t_interval, samples.tolist())]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


@given(shares)
def test_few_runs_have_a_range_and_more_an_interval(values):
    found = estimate(values)
    assert found.runs == len(values) and found.mean == pytest.approx(np.mean(values))
    assert found.is_range == (len(values) < 5)
    if found.is_range:
        assert (found.low, found.high) == (min(values), max(values))
    else:
        assert found == t_interval(values)
        assert found.high - found.mean == pytest.approx(found.mean - found.low)


@given(shares, shares)
def test_probability_of_improvement_counts_pairs(values, reference):
    found = probability_of_improvement(values, reference)
    pairs = [1.0 if own > other else 0.5 if own == other else 0.0 for own in values for other in reference]
    assert found == pytest.approx(sum(pairs) / len(pairs))
    assert found + probability_of_improvement(reference, values) == pytest.approx(1)


def test_one_run_is_a_point():
    assert estimate([0.25]) == Estimate(0.25, 0.25, 0.25, 1)


@pytest.mark.parametrize(
    ("freedom", "t"),
    # The 97.5 % points of Student's distribution, from any printed table.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (6, 2.447), (9, 2.262), (10, 2.228), (30, 2.042)],
)
def test_t_test_against_the_printed_table(freedom, t):
    sample = np.linspace(-1.0, 1.0, freedom + 1)
    sample += t * sample.std(ddof=1) / np.sqrt(freedom + 1)
    assert paired_t_test(sample.tolist()) == pytest.approx(0.05, abs=1e-4)
    assert paired_t_test((-sample).tolist()) == pytest.approx(0.05, abs=1e-4)


def test_without_spread_or_pairs_there_is_no_test():
    assert paired_t_test([]) is None and paired_t_test([0.5]) is None and paired_t_test([0.1, 0.1, 0.1]) is None


def test_holm_by_hand():
    # Sorted .01 x 4, .02 x 3, .03 x 2 (below the one before), .5 x 1.
    assert holm([0.03, 0.01, None, 0.5, 0.02]) == pytest.approx([0.06, 0.04, None, 0.5, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([None]) == [None] and holm([]) == []


def test_interquartile_mean_by_hand():
    assert interquartile_mean([0.9]) == 0.9
    assert interquartile_mean([0.0, 0.3, 0.9]) == pytest.approx(0.4)
    assert interquartile_mean([1.0, 0.0, 0.4, 0.2]) == pytest.approx(0.3)
    assert interquartile_mean([1.0, 0.0, 0.5, 0.2, 0.2]) == pytest.approx(0.3)
    assert interquartile_mean([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == 4.5


def test_area_by_hand():
    # 0 to 2: mean 0.3, 2 to 3: mean 0.7.
    assert area_under_curve([[0, 0.0], [2, 0.6], [3, 0.8]]) == pytest.approx((2 * 0.3 + 0.7) / 3)
    assert area_under_curve([[0.0, 0.4]]) == 0.4
    assert area_under_curve([[1.0, 0.5], [9.0, 0.5]]) == 0.5


@pytest.mark.parametrize(
    ("durations", "running", "waiting", "num_processes", "expected"),
    [
        ([], [], 5, 2, None),
        ([], [(3.0, 0.0)], 5, 2, None),
        # 100 s a run: half a run and three more, two at a time.
        ([90.0, 110.0], [(50.0, 0.5)], 3, 2, 175.0),
        # None has ended: 20 s for a quarter is 80 s a run.
        ([], [(20.0, 0.25), (1.0, 0.0)], 2, 2, 80.0 * (2 + 0.75 + 1) / 2),
        # One run cannot be shared out.
        ([100.0], [(50.0, 0.5)], 0, 8, 50.0),
        ([100.0], [], 0, 2, 0.0),
    ],
)
def test_time_left(durations, running, waiting, num_processes, expected):
    assert seconds_left(durations, running, waiting, num_processes) == expected


# Success of two rules, three tasks by five seeds.
RUNS = {
    "steppo": [[0.50, 0.62, 0.41, 0.58, 0.70], [0.81, 0.79, 0.85, 0.90, 0.77], [0.93, 0.90, 0.96, 0.88, 0.91]],
    "ppo": [[0.55, 0.49, 0.39, 0.66, 0.52], [0.70, 0.79, 0.72, 0.75, 0.74], [0.91, 0.92, 0.90, 0.93, 0.89]],
}


def test_measures_over_tasks_are_those_of_rliable():
    # rliable 1.2.0: aggregate_iqm, aggregate_mean, probability_of_improvement(ppo, steppo), and get_interval_estimates
    # with 50,000 and 20,000 resamples of its own.
    ours, theirs = aggregate(RUNS).values()
    for found, expected in (
        (ours.iqm, (0.8022222222222223, 0.76777778, 0.83)),
        (ours.mean, (0.7673333333333333, 0.734, 0.8)),
        (theirs.iqm, (0.7444444444444445, 0.71666667, 0.76777778)),
        (theirs.mean, (0.7239999999999999, 0.69733333, 0.75133333)),
        (theirs.above, (0.29333333333333333, 0.12, 0.48)),
    ):
        assert found is not None and found.mean == pytest.approx(expected[0], abs=1e-12)
        assert (found.low, found.high) == pytest.approx(expected[1:], abs=0.01)
    assert ours.difference is None and ours.above is None


def test_differences_over_tasks_stay_with_their_seeds():
    # Seeds differ much, the rules by 0.1 at each: the difference has no spread, the means have.
    shifted = {"steppo": RUNS["steppo"], "ppo": [[value - 0.1 for value in task] for task in RUNS["steppo"]]}
    _, found = aggregate(shifted).values()
    assert found.difference is not None and found.difference.mean == pytest.approx(-0.1)
    assert (found.difference.low, found.difference.high) == pytest.approx((-0.1, -0.1))
    assert found.mean.high - found.mean.low > 0.05


def test_runs_are_resampled_within_their_task():
    # Tasks of 0 and 1 without spread: whatever is drawn, a task keeps its weight.
    found = aggregate({"steppo": [[0.0] * 4, [1.0] * 4]})["steppo"]
    assert (found.mean.mean, found.mean.low, found.mean.high) == (0.5, 0.5, 0.5)


def test_rules_with_other_numbers_of_runs_have_no_aggregate():
    for theirs, said in ((RUNS["ppo"][:2], r"'ppo': \(5, 5\)"), ([*RUNS["ppo"][:2], [0.5]], r"'ppo': \(5, 5, 1\)")):
        with pytest.raises(
            ValueError, match=rf"same tasks and seeds, got runs by task of .*'steppo': \(5, 5, 5\), {said}"
        ):
            aggregate(RUNS | {"ppo": theirs})
    with pytest.raises(ValueError, match=r"got runs by task of \{'steppo': \(2, 1\)\}"):
        aggregate({"steppo": [[0.5, 0.6], [0.5]]})
