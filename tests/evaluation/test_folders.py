"""The folders of evaluations and audits: one process at a time, and nothing in them is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steppo_gym.audit.continuations import Plan
from steppo_gym.audit.study import SETTINGS_FILE, run_audit
from steppo_gym.cli import main
from steppo_gym.errors import DataError
from steppo_gym.evaluation.panels import open_panel
from steppo_gym.evaluation.playing import Playing
from steppo_gym.rollouts.episode import Episode, Failure
from steppo_gym.storage.json_lines import alone_in

BUSY = "Another process is at work in "


def test_a_folder_is_free_again_when_its_process_is_done(tmp_path):
    for _ in range(2):
        with alone_in(tmp_path), pytest.raises(DataError, match=f"{BUSY}{tmp_path}"), alone_in(tmp_path):
            pytest.fail("two are in it")


def test_two_evaluations_at_once_do_not_write_into_one_folder(tmp_path, capsys):
    command = ["evaluate", "--server", "http://127.0.0.1:9", "--chat", "--model", "m", "--panel", "key_door-test"]
    with alone_in(tmp_path):
        assert main([*command, "--tasks", "1", "--workers", "0", "--quiet", "--out", str(tmp_path)]) == 1
    assert f"{BUSY}{tmp_path}" in capsys.readouterr().err


def test_data_are_written_down_as_they_are_found_from_every_folder(tmp_path, monkeypatch):
    row = {"_id": "q", "question": "Who?", "answer": "yes", "context": [["A", ["One."]]]}
    (tmp_path / "rows.json").write_text(json.dumps([row | {"type": "bridge", "supporting_facts": [["A", 0]]}]))
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    command = ["evaluate", "--server", "http://127.0.0.1:9", "--chat", "--model", "m", "--env", "hotpotqa"]
    with alone_in(out):
        flags = ["--split", "validation", "--data", "rows.json", "--workers", "0", "--quiet", "--out", "out"]
        assert main([*command, *flags]) == 1
    settings = json.loads((out / "config.json").read_text())["evaluation"]
    assert settings["env_kwargs"] == {"split": "validation", "data": str(tmp_path / "rows.json")}


def audit(folder):
    sizes = {"episodes_per_task": 2, "points": 1, "seed": 0}
    return run_audit(None, ["train-0"], Plan(2), folder, settings={"policy": "own"}, **sizes)


def test_two_audits_at_once_do_not_count_their_points_twice(tmp_path):
    with alone_in(tmp_path), pytest.raises(DataError, match=f"{BUSY}{tmp_path}"):
        audit(tmp_path)


def test_settings_of_an_audit_that_were_not_written_to_their_end_are_named(tmp_path):
    (tmp_path / SETTINGS_FILE).write_text("")
    with pytest.raises(DataError, match=f"{tmp_path / SETTINGS_FILE} is not readable JSON"):
        audit(tmp_path)


def test_cutting_a_torn_line_off_does_not_write_the_others_again(tmp_path, monkeypatch):
    """Whoever dies while a file is written anew loses all of it."""
    panel, file = open_panel("key_door-test").first(2), tmp_path / "episodes.jsonl"
    line = Episode(panel.tasks[0].id, (), "failed", failure=Failure("worker", "x"), seed=0).to_json() + "\n"
    file.write_text(line + line[:20])
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: pytest.fail(f"{path} is written anew"))
    assert Playing(panel, tries=1, file=file).missing == [0, 1]
    assert file.read_text() == line
