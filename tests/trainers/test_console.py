from __future__ import annotations

import sys

from transformers import TrainerState

from steppo_gym.trainers.run.console import Console


def test_a_log_that_is_no_terminal_has_lines_and_no_bars(capsys):
    console = Console(iterations=1, episodes_per_iteration=2, updates_in_iteration=1)
    console.count(2, "test")
    console.on_episode(None)  # type: ignore[arg-type]
    console.say("a line")
    console.finish()
    assert capsys.readouterr() == ("a line\n", "")


def test_a_terminal_has_bars_unless_they_are_switched_off(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for bars in (True, False):
        console = Console(iterations=1, episodes_per_iteration=2, updates_in_iteration=1, bars=bars)
        console.count(2, "test")
        console.finish()
        assert bool(capsys.readouterr().err) == bars


def test_what_was_evaluated_is_splits_and_no_metrics_that_are_called_like_success(capsys):
    console = Console(iterations=1, episodes_per_iteration=2, updates_in_iteration=1)
    scores = {"eval_valid_door_success": 1.0, "eval_valid_success": 0.25, "eval_test_unseen_success": 0.75}
    console.on_log(None, TrainerState(), None, logs=scores)
    assert capsys.readouterr().out.strip() == "greedy on held-out tasks: valid 25 %  test unseen 75 %"
