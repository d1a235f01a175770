"""Runs of one's own in a table and a figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from steppo_gym.baselines.own_runs import grouped, read_runs, table
from steppo_gym.baselines.tables.estimates import first_time, paired_t_test
from steppo_gym.cli import main
from steppo_gym.errors import DataError


def write(
    folder: Path, algorithm: str, seed: int, greedy: list[float], *, finished: bool = True, env="doors", **config
):
    """A run with a greedy curve from iteration 0 on, over two splits whose mean it is."""
    folder.mkdir(parents=True)
    settings = {
        "algorithm": algorithm,
        "run": {"env": env, "test_tasks": 50},
        "config": {
            "seed": seed, "output_dir": str(folder), "episodes_per_iteration": 8, "updates_per_iteration": 2,
            "save_every": seed, "num_slots": seed, **config,
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    lines = []
    for iteration, success in enumerate(greedy):
        if iteration:
            seconds = {"rollout_seconds": 20.0, "credit_seconds": 4.0, "update_seconds": 18.0}
            lines.append({"iteration": float(iteration), "success": success / 2, **seconds})
        # A metric of the task's own that ends like success is none.
        scores = {"eval_a_success": success - 0.1, "eval_a_door_success": 1.0, "eval_b_success": success + 0.1}
        lines.append({"iteration": float(iteration), **scores})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if finished:
        summary = {
            "evaluation_tasks": 50, "success_before": greedy[0], "success_after": greedy[-1],
            "sampled_success_after": greedy[-1] / 2,
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def folders(tmp_path):
    return [
        write(tmp_path / "a1", "StepPO", 1, [0.1, 0.3, 0.8]),
        write(tmp_path / "a2", "StepPO", 2, [0.1, 0.6, 0.7]),
        write(tmp_path / "a3", "StepPO", 3, [0.1, 0.2, 0.45]),
        write(tmp_path / "b2", "GRPO", 2, [0.1, 0.2, 0.5]),
        write(tmp_path / "b3", "GRPO", 3, [0.1, 0.2, 0.4]),
    ]


def cells(text: str) -> dict[str, dict[str, str]]:
    """The rows of a table in markdown, by label and column."""
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_runs_of_other_seeds_are_one_row(folders):
    groups = grouped(read_runs(folders))
    assert {label: [result.run.name for result in group] for label, group in groups.items()} == {
        "StepPO": ["a1", "a2", "a3"],
        "GRPO": ["b2", "b3"],
    }


def test_the_table_has_means_paired_differences_and_the_time_to_a_score(folders):
    rows = cells(table(grouped(read_runs(folders)), score=0.5))
    own, other = rows["StepPO"], rows["GRPO"]
    assert own["seeds"] == "3" and own["greedy"] == "65.0 (45.0 to 80.0)"
    assert own["before"] == "10.0 (10.0 to 10.0)" and other["sampled"] == "22.5 (20.0 to 25.0)"
    # Over the two seeds that both have: 0.5 - 0.7 and 0.4 - 0.45.
    assert other["greedy - StepPO"] == "-12.5 (-20.0 to -5.0)" and own["greedy - StepPO"] == "-"
    assert other["p"] == f"{paired_t_test([-0.2, -0.05]):.3f}"
    assert own["area"] == "37.1 (23.8 to 50.0)"
    # Two of three reach a half, at iterations 2 and 1; 24 s of rollouts and credit and two updates of 18 s each.
    assert own["reach 50 %"] == "2 of 3"
    assert (own["iterations"], own["episodes"], own["minutes"]) == ("1.5", "12", "1.5")
    assert other["reach 50 %"] == "1 of 2" and other["minutes"] == "2.0"


def test_p_is_never_nought(tmp_path):
    runs = [write(tmp_path / f"a{n}", "StepPO", n, [0.1, 0.2 + n / 1000]) for n in range(6)]
    runs += [write(tmp_path / f"b{n}", "GRPO", n, [0.1, 0.8 - n / 1000]) for n in range(6)]
    assert cells(table(grouped(read_runs(runs)), score=0.5))["GRPO"]["p"] == "<0.001"


def test_another_row_can_be_the_reference(folders):
    rows = cells(table(grouped(read_runs(folders)), score=0.9, reference="GRPO"))
    assert rows["StepPO"]["greedy - GRPO"] == "+12.5 (+5.0 to +20.0)"
    assert (rows["StepPO"]["reach 90 %"], rows["StepPO"]["minutes"]) == ("0 of 3", "-")
    with pytest.raises(DataError, match="no row 'PPO' to compare with; there are: StepPO, GRPO"):
        table(grouped(read_runs(folders)), score=0.5, reference="PPO")


def test_labels_say_what_tells_groups_of_one_algorithm_apart(tmp_path):
    runs = [write(tmp_path / f"r{n}", "StepPO", 1, [0.1], gamma=gamma) for n, gamma in enumerate((0.9, 0.99))]
    runs.append(write(tmp_path / "other", "GRPO", 1, [0.1], gamma=0.5))
    assert list(grouped(read_runs(runs))) == ["StepPO, gamma 0.9", "StepPO, gamma 0.99", "GRPO"]


def test_what_is_no_comparison_is_refused(tmp_path, folders):
    other = write(tmp_path / "windows", "StepPO", 9, [0.5], env="windows")
    with pytest.raises(DataError, match=r"in run.env: doors in a1, a2, a3, b2, b3; windows in windows\. Runs on"):
        read_runs([*folders, other])
    twice = write(tmp_path / "again", "StepPO", 1, [0.5])
    with pytest.raises(DataError, match=r"the same seed: a1, again\. Name one of them"):
        grouped(read_runs([*folders, twice]))


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("summary.json", '{"success', "summary.json is not the summary of a run (JSONDecodeError"),
        ("summary.json", "[1]", "summary.json is not the summary of a run (TypeError"),
        (
            "summary.json",
            '{"success_after": 0.5}',
            "summary.json is not the summary of a run (KeyError: 'success_before'",
        ),
        ("config.json", "{}", "a1 is not the folder of a training run: its config.json names no algorithm"),
        ("config.json", "[", "config.json: expected JSON"),
    ],
)
def test_what_is_damaged_is_named(file, text, said, folders, capsys):
    (folders[0] / file).write_text(text)
    assert main(["compare", *map(str, folders)]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_runs_that_go_on_count_in_their_curves_alone(tmp_path, folders):
    going = write(tmp_path / "going", "GRPO", 7, [0.1, 0.9], finished=False)
    text = table(grouped(read_runs([*folders, going])), score=0.5)
    row = cells(text)["GRPO"]
    assert row["seeds"] == "3" and row["greedy"] == "45.0 (40.0 to 50.0)" and row["reach 50 %"] == "2 of 3"
    assert "1 of 6 runs are not finished" in text


def test_the_first_time_of_a_score():
    curve = [(0.0, 0.2), (5.0, 0.5), (10.0, 0.4), (15.0, 0.9)]
    assert first_time(curve, 0.5) == 5.0 and first_time(curve, 0.1) == 0.0
    assert first_time(curve, 0.95) is None and first_time([], 0.5) is None


def test_commands_print_a_table_and_draw_a_figure(tmp_path, folders, capsys):
    names = [str(folder) for folder in folders]
    assert main(["compare", *names, "--score", "0.5"]) == 0
    assert cells(capsys.readouterr().out).keys() == {"StepPO", "GRPO"}
    for name in ("curves.svg", "again.svg", "curves.png"):
        assert main(["plot", *names, "--out", str(tmp_path / name)]) == 0
    svg = (tmp_path / "curves.svg").read_text()
    assert svg == (tmp_path / "again.svg").read_text()
    told = "thick: mean; thin: one run; shade: range of the runs"
    for text in ("StepPO, 3 runs", "GRPO, 2 runs", "doors", "greedy success, watched tasks", told):
        assert f"<!-- {text} -->" in svg
    assert imread(tmp_path / "curves.png").shape[1] > 500
    capsys.readouterr()
    assert main(["plot", *names, "--out", str(tmp_path / "x.svg"), "--metric", "height"]) == 1
    assert "None of these runs logged 'height'. They have: " in capsys.readouterr().err
    assert not (tmp_path / "x.svg").exists()
