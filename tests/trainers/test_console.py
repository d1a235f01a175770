from __future__ import annotations

from steppo_gym.trainers.run.console import Console


def test_a_log_that_is_no_terminal_has_lines_and_no_bars(capsys):
    console = Console(iterations=1, episodes_per_iteration=2, updates_in_iteration=1)
    console.count(2, "test")
    console.on_episode(None)  # type: ignore[arg-type]
    console.say("a line")
    console.finish()
    assert capsys.readouterr() == ("a line\n", "")
