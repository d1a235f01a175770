"""Recording of runs and the tables made from the records."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest

from steppo_gym.baselines import run, table


def record(seed: int, **changes) -> dict:
    line = {
        "algorithm": "StepPO",
        "env": "key_door",
        "environment": "steppo/KeyDoor-v0",
        "task": "(built-in data)",
        "seed": seed,
        "success_before": 0.1 * seed,
        "success_after": 0.5 + 0.1 * seed,
        "sampled_success_before": 0.2,
        "sampled_success_after": 0.6,
        "evaluation_tasks": 40,
        "iterations": 2,
        "episodes": 64,
        "updates": 8,
        "wall_seconds": 10.0 + seed,
        "arguments": ["--iterations", "2"],
        "commit": "abc1234",
        "versions": {"torch": "2.13.0"},
        "hardware": {"machine": "x86_64", "cpu_count": 2, "accelerator": None},
    }
    return line | changes


def cells(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_table_has_every_run_and_the_mean_of_all():
    lines = [record(2), record(0), record(1)]
    rows = cells(table.table(lines))
    assert [row[0] for row in rows[2:]] == ["0", "1", "2", "mean ± std"]
    after = [100 * line["success_after"] for line in lines]
    assert rows[-1][2] == f"**{statistics.mean(after):.1f} ± {statistics.stdev(after):.1f}**"
    assert "--seeds 0 1 2" in table.table(lines)


@pytest.mark.parametrize(
    "changes", [{"iterations": 3}, {"evaluation_tasks": 41}, {"task": "(official)"}, {"arguments": []}]
)
def test_table_refuses_to_mix_protocols(changes):
    with pytest.raises(ValueError, match="different protocols"):
        table.table([record(0), record(1, **changes)])


def test_readme_is_rewritten_between_the_markers_only(tmp_path: Path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "key_door-steppo.jsonl").write_text(json.dumps(record(0)) + "\n")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    table.write_tables(readme, tmp_path / "results")
    text = readme.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "old" not in text
    assert "| 0 |" in text
    table.write_tables(readme, tmp_path / "results")
    assert readme.read_text() == text


def test_readme_shows_the_recorded_results(repository: Path):
    files = sorted((repository / "baselines" / "results").glob("*.jsonl"))
    text = (repository / "README.md").read_text(encoding="utf-8")
    for file in files:
        assert table.table(run.read_results(file)) in text, f"run python baselines/table.py: {file.name} is not shown"


def test_recorded_seeds_are_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "key_door-steppo.jsonl").write_text(json.dumps(record(0, arguments=[])) + "\n")
    folders = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    run.main(["--env", "key_door", "--seeds", "0", *folders])
    assert "seed 0: recorded" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()
