"""Each second of a run is in one phase."""

from __future__ import annotations

import time

import pytest

from steppo_gym.trainers.phases import PHASES, Phases


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when they are told to."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def wait(seconds):
        now[0] += seconds

    return wait


def test_a_phase_inside_another_takes_its_time_from_it(clock):
    phases = Phases()
    with phases.phase("credit"):
        clock(2)
        with phases.phase("forward"):
            clock(3)
            with phases.phase("saving"):
                clock(4)
        clock(5)
    assert {name: s for name, s in phases.seconds.items() if s} == {"credit": 7, "forward": 3, "saving": 4}


def test_what_is_inside_of_a_whole_phase_is_part_of_it(clock):
    phases = Phases()
    with phases.phase("evaluation", whole=True):
        clock(1)
        with phases.phase("generation"):
            clock(2)
        phases.move("generation", "environments", 1.5)
    with phases.phase("generation"):
        clock(4)
    phases.move("generation", "environments", 1.0)
    assert {name: s for name, s in phases.seconds.items() if s} == {
        "evaluation": 3, "generation": 3, "environments": 1,
    }  # fmt: skip


def test_an_error_leaves_the_phases_in_order(clock):
    phases = Phases()
    with pytest.raises(KeyError), phases.phase("evaluation", whole=True), phases.phase("credit"):
        clock(1)
        raise KeyError
    with phases.phase("forward"):
        clock(2)
    assert phases.seconds["evaluation"] == 1 and phases.seconds["forward"] == 2


def test_what_is_logged_is_new(clock):
    phases = Phases()
    with phases.phase("forward"):
        clock(3)
    assert phases.since_last() == {"phase_forward_seconds": 3}
    with phases.phase("backward"):
        clock(1)
    assert phases.since_last() == {"phase_backward_seconds": 1}
    assert phases.line() == "forward 75 %, backward 25 %"


def test_a_run_counts_its_time_once(make_trainer):
    trainer = make_trainer()
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    counted = trainer.phases.seconds
    assert set(counted) == set(PHASES)
    assert all(counted[name] > 0 for name in ("prefill", "generation", "credit", "forward", "backward", "optimizer"))
    assert min(counted.values()) >= 0
    assert sum(counted.values()) <= seconds
    logged = [entry for entry in trainer.state.log_history if "phase_forward_seconds" in entry]
    assert logged
