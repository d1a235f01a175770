"""JSON lines survive whoever dies while writing them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from steppo_gym.baselines.records import append_line
from steppo_gym.baselines.running.processes import may_resume
from steppo_gym.storage.json_lines import append_text, read_lines, write_whole
from steppo_gym.trainers.run.report import forget_after, read_metrics


def test_a_torn_last_line_is_dropped_with_a_note(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = tmp_path / "metrics.jsonl"
    whole = [{"update": 1, "success": 0.5}, {"update": 2, "text": "é" * 40}]
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in whole).encode()
    second = text.index(b"\n") + 1
    for size in range(second, len(text)):
        path.write_bytes(text[:size])
        assert read_metrics(path) == whole[:1]
        noted = f"{path}: the last line was not written to its end" in capsys.readouterr().err
        assert noted == (size > second)
    path.write_bytes(text)
    assert read_metrics(path) == whole and capsys.readouterr().err == ""


def test_nothing_is_glued_to_a_torn_line(tmp_path: Path):
    path = tmp_path / "results.jsonl"
    # Longer than the block in which the last line break is looked for.
    for torn in ("", '{"a": 1', '{"a": "' + "x" * 200_000):
        path.write_text('{"seed": 0}\n' + torn)
        append_line(path, {"seed": 1})
        assert path.read_text() == '{"seed": 0}\n{"seed": 1}\n'
    path.write_text('{"torn')
    append_text(path, '{"seed": 2}\n')
    assert read_lines(path) == [{"seed": 2}]
    assert read_lines(tmp_path / "none.jsonl") == []


def test_damage_in_the_middle_is_named_and_not_dropped(tmp_path: Path):
    (tmp_path / "a.jsonl").write_text('{"seed": 0}\n{"se\n{"seed": 1}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl, line 2: this is no JSON"):
        read_lines(tmp_path / "a.jsonl")


def test_a_resumed_run_forgets_what_came_after_its_checkpoint_and_the_torn_line(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 0}\n{"update": 2}\n{"update": 4}\n{"upd')
    forget_after(tmp_path, 2)
    assert path.read_text() == '{"update": 0}\n{"update": 2}\n'
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_file_is_replaced_in_one_go(tmp_path: Path):
    path = tmp_path / "job.json"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"


@pytest.mark.parametrize("text", ["", '{"script": "st', "[]"])
def test_a_torn_job_is_started_anew(text, tmp_path: Path):
    (tmp_path / "job.json").write_text(text)
    assert not may_resume(tmp_path, {"script": "steppo"})
