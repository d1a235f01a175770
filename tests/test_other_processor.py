"""What is compared between two processors, and what is said where none can be emulated."""

from __future__ import annotations

import math

import pytest
from benchmark_scripts import load_benchmark

other_processor = load_benchmark("other_processor")
differences, main = other_processor.differences, other_processor.main


def test_metrics_differ_by_their_last_bit():
    run = [{"loss": 0.3, "entropy": 0.5}, {"loss": 1.0, "value": math.nan}]
    assert differences(run, [dict(entry) for entry in run]) == []
    # 0.1 + 0.2 is the next number after 0.3.
    assert differences(run, [run[0] | {"loss": 0.1 + 0.2}, run[1]]) == ["loss"]
    assert differences(run, [run[0], {"loss": 1.0}]) == ["value"]
    assert differences(run, run[:1]) == ["entropy", "loss", "value"]


def test_without_an_emulator_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("PATH", "")
    main([])
    assert "Skipped: there is no qemu-x86_64 here" in capsys.readouterr().out
