"""One group or two halves: what is tried, and what is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_rollout import CODEC, Watched, assign, going, make_pool, without_time

from steppo_gym.rollouts.rollout import collect
from steppo_gym.rollouts.schedules.choice import CYCLES, TRIALS, Choice


@pytest.fixture(autouse=True)
def importable_env(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def found(seconds, requests=lambda number: 10):
    """What is chosen if cycle `number` in halves or not takes so many seconds."""
    choice = Choice(None)
    for number in range(CYCLES * len(TRIALS)):
        assert choice.overlap is None
        choice.note(seconds(number, choice.halves), requests(number))
    return choice.overlap


def test_the_faster_one_is_kept():
    assert found(lambda _, halves: 0.95 if halves else 1.0) is False
    assert found(lambda _, halves: 1.0 if halves else 2.0) is True
    assert found(lambda _, halves: 2.0 if halves else 1.0) is False


def test_contexts_that_grow_favor_neither():
    for halves_take, best in ((0.87, True), (0.93, False)):
        assert found(lambda number, halves, take=halves_take: (1 + number / 4) * (take if halves else 1.0)) is best


def test_time_is_counted_by_request():
    """Halves get the late cycles of a rollout, with few slots left, as often as not."""
    assert found(lambda number, halves: (0.85 if halves else 1.0) * (20 - number), lambda number: 20 - number) is True


def test_the_first_cycle_after_a_change_is_not_counted():
    changes = {0, CYCLES, CYCLES * 3}
    assert found(lambda number, halves: 100.0 if number in changes and not halves else 1.0 + 0.5 * halves) is False
    assert found(lambda number, halves: 100.0 if number in changes and halves else 1.0 - 0.5 * halves) is True


@pytest.mark.parametrize("overlap", [True, False])
def test_what_is_asked_for_stays(overlap):
    choice = Choice(overlap)
    for _ in range(CYCLES * len(TRIALS) + 1):
        assert choice.halves is overlap
        choice.note(0.0 if overlap else 1e9, 1)


def test_a_rollout_tries_both_and_its_episodes_are_the_same():
    policy, tasks = Watched(going()), assign(*["walk-9", "walk-5", "walk-7"] * 10)
    with make_pool(6, 2) as pool:
        tried = collect(policy, pool, CODEC, tasks, overlap=None)
    with make_pool(6) as pool:
        together = collect(going(), pool, CODEC, tasks, overlap=False)
        alone = collect(going(), pool, CODEC, tasks, overlap=None)
    assert without_time(tried.episodes) == without_time(together.episodes)
    cycles = [[6], [3, 3], [3, 3], [6]]
    sizes = [size for cycle in cycles for _ in range(CYCLES) for size in cycle]
    assert policy.batch_sizes[: len(sizes)] == sizes
    assert tried.stats.overlap is not None
    rest = policy.batch_sizes[len(sizes) :][:6]
    assert set(rest) == ({3} if tried.stats.overlap else {6})
    # Without workers nothing can overlap.
    assert alone.stats.overlap is False
    assert alone.stats.num_generation_calls == together.stats.num_generation_calls


def test_a_short_rollout_does_not_decide():
    with make_pool(4, 1) as pool:
        assert collect(going(), pool, CODEC, assign(*["walk-3"] * 8), overlap=None).stats.overlap is None
