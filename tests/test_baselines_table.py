"""Tables, lists and figures from recorded lines."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from baseline_lines import GRPO, POINT, PROTOCOL, STEPPO, cells, control_line, grid_line, matrix_line

from steppo_gym.baselines.compared.protocol import Algorithm, Protocol
from steppo_gym.baselines.jobs import Job
from steppo_gym.baselines.protocols import PROTOCOLS
from steppo_gym.baselines.recompute import over_tasks as recompute_over_tasks
from steppo_gym.baselines.records import (
    RESULTS,
    SETTINGS,
    SUMMARISED,
    MixedProtocolsError,
    append_line,
    read_lines,
    read_results,
    record,
    results_file,
)
from steppo_gym.baselines.study import CELLS
from steppo_gym.baselines.table import FROM_SHIPPED_STARTS, IN_THE_README, main
from steppo_gym.baselines.tables.comparison import compare
from steppo_gym.baselines.tables.effort import effort_table
from steppo_gym.baselines.tables.figures import draw_curves
from steppo_gym.baselines.tables.listing import listing
from steppo_gym.baselines.tables.over_tasks import aggregate, over_tasks
from steppo_gym.baselines.tables.short_block import README_MARKERS, short_block
from steppo_gym.baselines.tables.starts_block import INVALID_MARKERS, STARTS_MARKERS, invalid_block, starts_block
from steppo_gym.baselines.tables.summary import bounds, summary, table
from steppo_gym.baselines.tables.text_table import p_value, percent, write_between

OURS = {0: 0.9, 1: 0.5, 2: 0.8, 3: 0.6}
THEIRS = {0: 0.7, 1: 0.4, 3: 0.4}
LINES = [matrix_line(GRPO, seed, success) for seed, success in THEIRS.items()]
LINES += [matrix_line(STEPPO, seed, success) for seed, success in OURS.items()]
CONTROLS = [control_line("random", 0, 0.02), control_line("random", 1, 0.04), control_line("expert", 0, 1.0)]


def write_lines(folder: Path, stage: str, lines: list[dict]) -> None:
    for line in lines:
        append_line(results_file(folder, PROTOCOL, stage), line)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder with lines of all stages."""
    folder = tmp_path / "results"
    write_lines(folder, "matrix", LINES)
    write_lines(folder, "control", CONTROLS)
    grid = [grid_line(STEPPO, point, seed, 0.1, 0.8) for point in PROTOCOL.grid for seed in PROTOCOL.grid_seeds]
    write_lines(folder, "grid", [*grid, grid_line(GRPO, POINT, 100, 0.1, 0.6)])
    return folder


def test_a_row_is_over_all_runs_of_its_algorithm():
    ours, theirs = compare(PROTOCOL, LINES)
    assert (ours.title, ours.seeds, ours.point) == ("StepPO", (0, 1, 2, 3), POINT)
    assert ours.greedy.mean == pytest.approx(0.7) and ours.greedy_iqm == pytest.approx(0.7)
    assert ours.sampled.mean == pytest.approx(0.65)
    # The curves rise in a line from the warm start to the end.
    assert ours.area is not None
    assert ours.area.mean == pytest.approx(fmean((0.1 + 0.01 * seed + end) / 2 for seed, end in OURS.items()))
    assert ours.seconds_per_update == 0.5
    assert ours.difference is None
    assert (theirs.title, theirs.seeds) == ("GRPO", (0, 1, 3))


def test_differences_are_over_the_seeds_that_both_have():
    _, theirs = compare(PROTOCOL, LINES)
    assert theirs.difference is not None
    assert theirs.difference.mean == pytest.approx(fmean([-0.2, -0.1, -0.2]))
    assert (theirs.difference.low, theirs.difference.high) == pytest.approx((-0.2, -0.1))
    assert theirs.behind == 3
    # One algorithm is compared: nothing is corrected. t = mean / (std / sqrt(3)) = -5, df 2.
    assert theirs.p_value == pytest.approx(1 - 5 / (2 + 25) ** 0.5)
    (alone,) = compare(PROTOCOL, [line for line in LINES if line["algorithm"] == "grpo"])
    assert alone.difference is None


def test_an_algorithm_that_the_protocol_no_longer_lists_is_still_shown():
    assert [row.title for row in compare(replace(PROTOCOL, algorithms=(GRPO,)), LINES)] == ["GRPO", "StepPO"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol_hash": "0" * 12}, "The runs differ in 'protocol_hash': 000000000000, "),
        ({"protocol": "other"}, "The runs differ in 'protocol': other, small"),
        ({"stage": "grid"}, "The runs differ in 'stage': grid, matrix"),
        ({"episodes": 65}, "The runs differ in 'episodes': 64, 65"),
        ({"updates": 17}, "The runs differ in 'updates': 16, 17"),
        ({"iterations": 5}, "The runs differ in 'iterations': 4, 5"),
        ({"evaluation_tasks": 41}, "The runs differ in 'evaluation_tasks': 40, 41"),
        ({"learning_rate": 0.1}, "The runs of steppo differ in 'learning_rate': 0.001, 0.1"),
        ({"epsilon": 0.3}, "The runs of steppo differ in 'epsilon': 0.2, 0.3"),
        ({"arguments": []}, "The runs of steppo differ in 'arguments'"),
        ({"seed": 2}, r"steppo: seeds \[2\] are recorded more than once"),
        ({"success_before": 0.5}, "The runs of seed 3, which should start from the same policy, differ in"),
    ],
)
def test_what_does_not_belong_together_is_not_mixed(changes, message):
    with pytest.raises(MixedProtocolsError, match=message):
        table(PROTOCOL, [*LINES[:-1], LINES[-1] | changes], CONTROLS)


@pytest.mark.parametrize("change", [{"protocol_hash": "0" * 12}, {"stage": "grid"}])
def test_a_file_with_lines_of_another_protocol_is_refused(results: Path, change: dict):
    write_lines(results, "matrix", [matrix_line(STEPPO, 9, 0.5) | change])
    with pytest.raises(
        MixedProtocolsError, match=r"small\.jsonl, line 8: recorded under protocol .*move the old lines"
    ):
        summary(results, [PROTOCOL])


def test_the_table_has_a_row_for_each_algorithm_and_the_rows_without_training():
    rows = {row[0]: row for row in cells(table(PROTOCOL, LINES, CONTROLS))[1:]}
    assert list(rows) == ["random actions", "start", "StepPO", "GRPO", "expert"]
    assert rows["random actions"][5] == "3.0 (2.0 to 4.0)" and rows["random actions"][3] == "-"
    assert rows["start"][3] == "11.5 (10.0 to 13.0)" and rows["start"][5] == "16.5 (15.0 to 18.0)"
    assert rows["StepPO"][1:3] == ["0.001", "0.2"]
    assert rows["StepPO"][3] == "70.0 (50.0 to 90.0)"
    assert rows["GRPO"][7:] == ["-16.7 (-20.0 to -10.0)", "3 of 3", "0.038", "0.50", "3"]
    assert rows["expert"][3] == "100.0"


@pytest.mark.parametrize(
    ("p", "said"), [(1.0, "1.000"), (0.0381, "0.038"), (0.001, "0.001"), (0.0009, "<0.001"), (None, "-")]
)
def test_no_p_is_said_to_be_0(p: float | None, said: str):
    assert p_value(p) == said


def test_from_five_runs_on_there_is_an_interval_instead_of_a_range():
    rows = {row[0]: row for row in cells(table(PROTOCOL, [*LINES, matrix_line(STEPPO, 4, 0.7)], []))[1:]}
    assert re.fullmatch(r"70\.0 \[5\d\.\d, 8\d\.\d\]", rows["StepPO"][3])
    assert rows["GRPO"][3] == "50.0 (40.0 to 70.0)"


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([3, 4], "Mean (lowest to highest run)"),
        ([5, 9], "Mean [95 % t interval over seeds]"),
        ([3, 5], "Mean (lowest to highest run) of fewer than 5 runs, [95 % t interval over seeds] of more"),
    ],
)
def test_what_stands_in_brackets_is_said(counts, said):
    assert bounds(counts) == said


def test_under_the_table_stands_what_it_takes_to_repeat_it():
    other = LINES[-1] | {"commit": "def5678+"}
    text = table(PROTOCOL, [*LINES[:-1], other], CONTROLS)
    for said in (
        "on 40 test tasks after 64 episodes and 16 updates",
        "learning rates 0.001, 0.01 and clip ranges 0.1, 0.2 for every algorithm",
        "with 2 other seeds",
        "`python baselines/run.py small --grid` and then `python baselines/run.py small`",
        f"protocol {PROTOCOL.hash}",
        "commit abc1234; def5678+",
        "2 x86_64 cores, 1 thread a run",
        "python 3.11.7, torch 2.13.0",
    ):
        assert said in text
    tuned = replace(PROTOCOL, grid=(POINT,), grid_seeds=())
    text = table(tuned, [matrix_line(STEPPO, 0, 0.5, protocol=tuned)], [])
    assert "nothing is tuned" in text and "--grid" not in text


def test_under_the_table_stands_what_was_the_default_when_it_was_played():
    older = replace(PROTOCOL, defaults=("--bootstrap_truncated", "True"))
    assert "with `--bootstrap_truncated True`, then the default, unless a row says otherwise" in table(older, LINES, [])
    assert "then the default" not in table(PROTOCOL, LINES, [])


def test_options_are_told_apart_and_named():
    chosen = [line | {"option": ["--gae_lambda", "1.0"]} for line in LINES if line["algorithm"] == "steppo"]
    others = [line for line in LINES if line["algorithm"] != "steppo"]
    rows = {row[0] for row in cells(table(PROTOCOL, [*chosen, *others], []))}
    assert "StepPO --gae_lambda 1.0" in rows and "GRPO" in rows
    with pytest.raises(MixedProtocolsError, match="The runs of steppo differ in 'option'"):
        table(PROTOCOL, [*chosen[1:], *LINES], [])


def test_lines_of_other_code_are_not_mixed_where_all_is_of_one():
    lines = [line | {"code": "a"} for line in LINES]
    strict = replace(PROTOCOL, one_code=True)
    table(strict, lines, [])
    lines[-1]["code"] = "b"
    table(PROTOCOL, lines, [])
    with pytest.raises(MixedProtocolsError, match="The runs of small differ in 'code': a, b"):
        table(strict, lines, [])


def spent_line(algorithm: Algorithm, seed: int, *heights: float) -> dict:
    """A run of four iterations of 16 episodes: each has 100, 200, ... steps, half with credit, and takes 5 seconds."""
    curve = [[float(i), height, height] for i, height in enumerate(heights)]
    by_iteration = {
        "environment_steps": [100.0, 200.0, 300.0, 400.0],
        "credited_steps": [50.0, 100.0, 150.0, 200.0],
        "seconds": [5.0] * 4,
    }
    return matrix_line(algorithm, seed, heights[-1]) | {
        "curve": curve, "by_iteration": by_iteration, "environment_steps": 1000,
    }  # fmt: skip


def test_what_it_took_to_the_score():
    lines = [
        # After 2, 3 and 4 iterations; once it falls below the score again.
        spent_line(STEPPO, 0, 0.0, 0.1, 0.5, 0.4, 0.6),
        spent_line(STEPPO, 1, 0.0, 0.1, 0.2, 0.7, 0.7),
        spent_line(STEPPO, 2, 0.0, 0.1, 0.2, 0.3, 0.5),
        # One of three: there is no median.
        spent_line(GRPO, 0, 0.0, 0.5, 0.2, 0.3, 0.6),
        spent_line(GRPO, 1, 0.0, 0.1, 0.2, 0.3, 0.4),
        spent_line(GRPO, 2, 0.0, 0.1, 0.2, 0.3, 0.4),
    ]
    rows = {row[0]: row for row in cells(effort_table(replace(PROTOCOL, score=0.5), lines))}
    assert rows["StepPO"] == ["StepPO", "-", "1,000", "50.0", "3 of 3", "48", "600", "15", "20"]
    # 0.6 against 0.6, 0.7, 0.5, and twice 0.4 below all.
    assert rows["GRPO"] == ["GRPO", f"{1.5 / 9:.2f}", "1,000", "50.0", "1 of 3", "-", "-", "-", "20"]
    text = table(replace(PROTOCOL, score=0.5), lines, [])
    assert "What it took to that score on the test tasks:" in text and "reached 50.0 %" in text
    # Two of three: the third counts as the longest.
    assert cells(effort_table(replace(PROTOCOL, score=0.6), lines))[1][4:6] == ["2 of 3", "64"]


def started_line(algorithm: Algorithm, seed: int, success: float, protocol: Protocol) -> dict:
    """A run from the start whose turn it is."""
    place = seed % len(protocol.starts)
    start = {"name": protocol.starts[place], "sha256": f"{place}"}
    same = {"success_before": 0.1 * place, "sampled_success_before": 0.2}
    return matrix_line(algorithm, seed, success, protocol=protocol) | same | {"start": start}


def test_runs_from_few_starts_are_compared_by_start_as_well():
    protocol = replace(PROTOCOL, starts=("a", "b", "c"))
    ours = [started_line(STEPPO, seed, 0.5, protocol) for seed in range(6)]
    theirs = [started_line(GRPO, seed, 0.5 + (0.1, 0.2, 0.3, 0.1, 0.2, 0.6)[seed], protocol) for seed in range(6)]
    text = table(protocol, [*ours, *theirs], [])
    (row,) = (row for row in cells(text.partition("by the start of the runs:")[2])[1:] if row[0] == "GRPO")
    # Means .1, .2, .45 over their two seeds each: t = .25 / (.1803 / sqrt(3)) = 2.4019, df 2.
    assert row == ["GRPO", "+10.0", "+20.0", "+45.0", f"{1 - 2.4019 / (2 + 2.4019**2) ** 0.5:.3f}"]
    # Three policies, not six.
    (start,) = (row for row in cells(text) if row[0] == "start")
    assert (start[3], start[-1]) == ("10.0 (0.0 to 20.0)", "3")
    other = theirs[-1] | {"start": {"name": "c", "sha256": "9"}}
    with pytest.raises(
        MixedProtocolsError, match="The runs of seed 5, which should start from the same policy, differ"
    ):
        table(protocol, [*ours, *theirs[:-1], other], [])


PARTS = tuple(
    replace(PROTOCOL, name=name, title=f"{name}, small", comparison="small ones", env=name)
    for name in ("one", "two", "three")
)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """Two complete tasks of a comparison, and a third that lacks a run; the second has a rule of its own."""
    heights = {STEPPO: (0.9, 0.5, 0.8, 0.6), GRPO: (0.7, 0.4, 0.9, 0.4), OTHER: (0.1, 0.1, 0.1, 0.1)}
    for protocol in PARTS:
        rules = (STEPPO, GRPO, OTHER) if protocol.name == "two" else (STEPPO, GRPO)
        for rule in rules:
            for seed, height in enumerate(heights[rule]):
                if (protocol.name, rule, seed) != ("three", GRPO, 3):
                    line = matrix_line(rule, seed, height * (0.5 if protocol.name == "two" else 1), protocol=protocol)
                    append_line(results_file(tmp_path, protocol, "matrix"), line)
    return tmp_path


OTHER = replace(GRPO, key="other", title="Other")


def test_a_comparison_has_a_table_over_its_complete_tasks(tasks: Path):
    one, two, three = PARTS
    two = replace(two, algorithms=(STEPPO, OTHER, GRPO))
    (text,) = over_tasks(tasks, [two, one, three])
    header, ours, theirs = cells(text)
    assert header == ["", "two", "one", "mean", "IQM", "greedy - StepPO", "P(above StepPO)"]
    assert ours[:3] == ["StepPO", "35.0", "70.0"] and ours[3].startswith("52.5 [") and ours[5:] == ["-", "-"]
    assert theirs[0] == "GRPO" and theirs[5].startswith("-7.5 [")
    assert "**Small ones, over 2 tasks**" in text and "Not complete and left out: three." in text
    assert text in summary(tasks, [two, one, three])
    # One complete task is no aggregate, nor are protocols of no comparison.
    assert over_tasks(tasks, [one, three]) == []
    assert over_tasks(tasks, [replace(part, comparison="") for part in PARTS]) == []


def test_another_recomputation_over_tasks_comes_to_the_same_numbers(tasks: Path):
    lines = [read_results(tasks, protocol, "matrix") for protocol in PARTS[:2]]
    other = recompute_over_tasks(lines)
    runs = {
        key: [[line["success_after"] for line in own if line["algorithm"] == key] for own in lines] for key in other
    }
    found = aggregate(runs)
    assert set(found) == {"steppo", "grpo"}
    for key, row in found.items():
        for name in ("mean", "iqm", "difference", "above"):
            estimate = getattr(row, name)
            if key != "steppo" or name in ("mean", "iqm"):
                assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(other[key][name], abs=1e-12)


def test_lines_without_a_curve_leave_gaps():
    lines = [line | {"curve": None, "seconds_per_update": None} for line in LINES]
    row = next(row for row in cells(table(PROTOCOL, lines, [])) if row[0] == "GRPO")
    assert (row[6], row[10]) == ("-", "-")
    assert "Learning curves" not in table(PROTOCOL, lines, [])


def with_scores(line: dict, before: float, after: float) -> dict:
    """A line whose environment has two splits, with scores 0.2 below and above these."""
    scores = {
        when: {
            "greedy": {
                split: {"success": 0.5, "recall": mean + offset} for split, offset in (("seen", -0.2), ("unseen", 0.2))
            }
        }
        for when, mean in (("before", before), ("after", after))
    }
    return line | scores


def test_scores_of_the_environment_stand_beside_success(results: Path):
    protocol = replace(PROTOCOL, metrics=("recall",))
    lines = [
        with_scores(matrix_line(STEPPO, 0, 0.5, protocol=protocol), 0.25, 0.5),
        with_scores(matrix_line(STEPPO, 1, 0.5, protocol=protocol), 0.75, 0.5),
        with_scores(matrix_line(GRPO, 0, 0.5, protocol=protocol), 0.25, 0.375),
    ]
    scores = [row for row in cells(table(protocol, lines, [])) if len(row) == 2]
    assert scores == [
        ["", "recall"],
        ["start", "0.500 (0.250 to 0.750)"],
        ["StepPO", "0.500 (0.500 to 0.500)"],
        ["GRPO", "0.375"],
    ]
    for stage in ("matrix", "grid", "control"):
        (results / f"small{'' if stage == 'matrix' else f'-{stage}'}.jsonl").unlink()
    write_lines(results, "matrix", lines)
    assert [row for row in cells(listing(results, [protocol])) if len(row) == 4] == [
        ["run", "seed", "recall before", "recall"],
        ["StepPO", "0", "0.250", "0.500"],
        ["StepPO", "1", "0.750", "0.500"],
        ["GRPO", "0", "0.250", "0.375"],
    ]


def every_run(results: Path) -> list[list[str]]:
    """The cells below the summary."""
    head, _, tail = listing(results, [PROTOCOL]).partition("## Every run")
    assert "## Summary" in head and cells(head)
    return cells(tail)


def test_every_run_is_listed(results: Path):
    rows = every_run(results)
    matrix = [row for row in rows if len(row) == 14 and row[0] in ("StepPO", "GRPO")]
    assert [(row[0], row[3]) for row in matrix] == [
        *(("StepPO", str(seed)) for seed in OURS),
        *(("GRPO", str(seed)) for seed in THEIRS),
    ]
    assert [row[5] for row in matrix] == [percent(share) for share in (*OURS.values(), *THEIRS.values())]
    grid = [row for row in rows if len(row) == 9 and row[0] in ("StepPO", "GRPO")]
    assert len(grid) == len(read_lines(results / "small-grid.jsonl")) == 9
    controls = [row[:3] for row in rows if len(row) == 5]
    assert controls[1:] == [["random", "0", "2.0"], ["random", "1", "4.0"], ["expert", "0", "100.0"]]


def test_the_list_says_what_the_grid_chose_and_where_it_is_not_complete(results: Path):
    rows = {row[0]: row[1:] for row in every_run(results) if len(row) == 6}
    assert rows["StepPO"] == ["80.0 (area 45.0)"] * 4 + ["0.001, 0.1"]
    assert rows["GRPO"] == ["-"] * 4 + ["not complete"]


def test_a_resumed_run_is_marked(results: Path):
    write_lines(results, "matrix", [matrix_line(GRPO, 2, 0.3, resumed=True)])
    assert "| 12 (resumed) |" in listing(results, [PROTOCOL])


def test_a_page_is_rewritten_between_the_markers_only(tmp_path: Path):
    page, markers = tmp_path / "README.md", ("<!-- here -->", "<!-- there -->")
    page.write_text("before\n<!-- here -->\nold\n<!-- there -->\nafter\n")
    for _ in range(2):
        write_between(page, markers, "new\n")
        assert page.read_text() == "before\n<!-- here -->\nnew\n<!-- there -->\nafter\n"
    for text in ("no markers", "<!-- here -->", "<!-- there -->"):
        page.write_text(text)
        with pytest.raises(SystemExit, match="must contain the lines"):
            write_between(page, markers, "new\n")
        assert page.read_text() == text


def test_the_short_block_says_what_the_seeds_can_carry(results: Path, tmp_path: Path):
    block = short_block(results, [PROTOCOL])
    assert cells(block) == [
        ["greedy success, %", "A small comparison"],
        ["StepPO", "70.0 (50.0 to 90.0)"],
        ["GRPO", "50.0 (40.0 to 70.0)"],
        ["p below 0.05 against StepPO", "GRPO (50.0)"],
        ["smallest p", "0.038 of 1"],
        ["seeds, test tasks", "3 to 4, 40"],
    ]
    write_lines(tmp_path, "matrix", [*LINES[:2], *LINES[3:5]])
    different, smallest = cells(short_block(tmp_path, [PROTOCOL]))[3:5]
    assert different[1] == "none" and smallest[1].startswith("0.")


def test_runs_from_a_start_stand_beside_its_ceiling(results: Path, tmp_path: Path):
    splits = {"seen": {"success": 0.9}, "unseen": {"success": 0.7}}
    (tmp_path / "reader").mkdir()
    (tmp_path / "reader" / "card.json").write_text(json.dumps({"figures": {"ceiling, greedy": splits}}))
    rates = {seed: {"greedy": {"test": {"success": end, "invalid_rate": end / 10}}} for seed, end in OURS.items()}
    lines = [matrix_line(STEPPO, seed, end, success_before=0.2, after=rates[seed]) for seed, end in OURS.items()]
    (results / "small.jsonl").unlink()
    write_lines(results, "matrix", lines[::-1])
    (row,) = cells(starts_block(results, tmp_path, {"reader": PROTOCOL}))[1:]
    assert row == [
        *("A small comparison", "80.0", "3.0", "20.0", "90.0, 50.0, 80.0, 60.0", "70.0 (50.0 to 90.0)", "0.875"),
        # The mean of the seeds' curves, which begin at 0.1 to 0.13.
        *("12, 41, 70", "5.0 to 9.0", "0.2 to 0.2", "100.0"),
    ]
    assert len(cells(starts_block(tmp_path, tmp_path, {"reader": PROTOCOL}))) == 1


def test_invalid_actions_stand_beside_those_of_the_start(tmp_path: Path):
    def rates(greedy, sampled):
        return {"greedy": {"a": {"invalid_rate": greedy}, "b": {"invalid_rate": 0.0}}, "sampled": {"a": sampled}}

    write_lines(
        tmp_path,
        "matrix",
        [
            matrix_line(STEPPO, seed, 0.5, before=rates(0.2, {"invalid_rate": 0.3}), after=rates(*after))
            for seed, after in enumerate(
                [(0.04, {"invalid_rate": 0.06}), (0.02, {"invalid_rate": 0.5}), (0.08, {"invalid_rate": 0.1})]
            )
        ],
    )
    assert cells(invalid_block(tmp_path, [PROTOCOL]))[1:] == [
        ["A small comparison", "10.0", "1.0 to 4.0", "30.0", "6.0 to 50.0"]
    ]
    assert len(cells(invalid_block(tmp_path / "none", [PROTOCOL]))) == 1


def test_the_command_writes_only_where_it_is_told(tmp_path: Path, repository: Path, capsys: pytest.CaptureFixture[str]):
    kept = [
        "README.md",
        "docs/starts.md",
        "baselines/RESULTS.md",
        *(f"baselines/figures/{name}.svg" for name in PROTOCOLS),
    ]
    before = {name: (repository / name).stat().st_mtime_ns for name in kept if (repository / name).exists()}
    with pytest.raises(SystemExit) as done:
        main(["--help"])
    assert done.value.code == 0 and "--write" in capsys.readouterr().out
    main(["key_door_limit"])
    assert "**KeyDoor, critics with and without" in capsys.readouterr().out
    main(["key_door", "--figures", str(tmp_path / "figures")])
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["key_door.svg"]
    for refused in (["nothing"], ["--write", "alfworld"]):
        with pytest.raises(SystemExit, match=r"No protocol named nothing|name no protocols"):
            main(refused)
    assert {name: (repository / name).stat().st_mtime_ns for name in before} == before


def test_a_figure_shows_every_curve_and_depends_on_nothing_but_the_lines(tmp_path: Path):
    first, second, other = (tmp_path / f"{name}.svg" for name in ("first", "second", "other"))
    draw_curves(PROTOCOL, LINES, first)
    draw_curves(PROTOCOL, LINES[::-1], second)
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text()
    assert "<dc:date>" not in text
    for said in ("StepPO", "GRPO", "A small comparison", "one run", "range of the runs", "mean of StepPO"):
        assert f"<!-- {said} -->" in text
    numbers = re.findall(r"<!-- (-?[\d.]+) -->", text)
    assert {"0", "2", "4"} <= set(numbers) and not {"0.5", "2.5"} & set(numbers)
    changed = LINES[0] | {"curve": [[0.0, 0.1, 0.0], [2.0, 0.2, 0.0], [4.0, 0.21, 0.0]]}
    draw_curves(PROTOCOL, [changed, *LINES[1:]], other)
    assert other.read_bytes() != first.read_bytes()


def test_a_figure_has_a_panel_for_each_algorithm(tmp_path: Path):
    algorithms = [replace(GRPO, key=f"rule{number}") for number in range(5)]
    lines = [matrix_line(algorithm, seed, 0.5) for algorithm in algorithms for seed in (0, 1)]
    draw_curves(PROTOCOL, lines, tmp_path / "five.svg")
    assert (tmp_path / "five.svg").read_text().count('<g id="axes_') == 5


def test_a_long_title_takes_two_lines_above_its_panel(tmp_path: Path):
    long = replace(GRPO, title="credit of each token, ratio of the step")
    draw_curves(PROTOCOL, [matrix_line(long, seed, 0.5) for seed in (0, 1)], tmp_path / "long.svg")
    text = (tmp_path / "long.svg").read_text()
    assert "<!-- credit of each token, ratio of -->" in text and "<!-- the step -->" in text


def test_a_rule_that_plays_more_than_its_episodes_has_a_budget_of_its_own():
    branching = replace(GRPO, key="vine", title="Vine", arguments=("--episodes_per_iteration", "2"))
    protocol = replace(PROTOCOL, algorithms=(STEPPO, branching))
    lines = [
        matrix_line(rule, seed, 0.5, protocol=protocol, environment_steps=steps + seed, **own)
        for rule, steps, own in ((STEPPO, 1000, {}), (branching, 2000, {"episodes": 8}))
        for seed in range(4)
    ]
    text = table(protocol, lines, [])
    assert "after 64 episodes and 16 updates" in text
    assert "| StepPO | 64 | 16 | 1,002 |" in text and "| Vine | 8 | 16 | 2,002 |" in text
    with pytest.raises(MixedProtocolsError, match="The runs of vine differ in 'episodes': 8, 9"):
        table(protocol, [*lines[:-1], lines[-1] | {"episodes": 9}], [])


def test_a_line_pools_splits_and_has_null_for_a_mean_over_nothing(tmp_path: Path):
    line = matrix_line(STEPPO, 0, 0.5)
    summary = {name: line[name] for name in SUMMARISED} | {"success_after": float("nan")}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    shared = dict.fromkeys(SETTINGS, 1)
    config = {
        "run": {"env": "key_door", "start": "/somewhere/a"},
        "start": {"name": "a", "sha256": "1"},
        "config": shared | {"x": 1},
        "rule": {"gamma": 0.9},
        "critic": {"value_clip_range": None},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    evaluation = {"eval_a_success": 0.2, "eval_a_return": 2.0, "eval_b_success": 0.4, "eval_b_return": 1.0}
    # A metric of the task's own that ends like success is none.
    evaluation |= {"eval_b_door_success": 1.0}
    training = {"update_seconds": 0.2, "rollout_seconds": 3.0, "failed_rate": 0.0, "success": None}
    entries = [
        {"iteration": 0.0, **evaluation},
        {"iteration": 1.0, **training},
        {
            "iteration": 2.0,
            **training,
            "update_seconds": 0.4,
            "failed_rate": 0.5,
            "success": 0.7,
            "episode_steps": 5.0,
            "branch_steps": 100.0,
            "replayed_steps": 7.0,
            "explained_variance": 0.4,
        },
        {"iteration": 2.0, **evaluation, "eval_b_success": 0.8},
        {"iteration": 2.0, "train_runtime": 9.0},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    recorded = record(Job(PROTOCOL, "matrix", STEPPO, POINT, 0), tmp_path, "abc1234")
    assert recorded["success_after"] is None
    assert recorded["curve"] == [[0.0, pytest.approx(0.3), 1.5], [2.0, pytest.approx(0.5), 1.5]]
    assert recorded["curve_by_split"]["b"] == [[0.0, 0.4, 1.0], [2.0, 0.8, 1.0]]
    assert recorded["training_curve"] == [[1.0, None], [2.0, 0.7]]
    assert (recorded["seconds_per_update"], recorded["rollout_seconds"]) == (pytest.approx(0.3), 6.0)
    assert recorded["failed_rate"] == 0.25
    # The line's 64 episodes over two iterations.
    assert recorded["environment_steps"] == 32 * 5 + 100 + 7
    assert recorded["explained_variance"] == [None, 0.4]
    assert recorded["start"] == {"name": "a", "sha256": "1"}
    # Not where it lay.
    assert recorded["config"] == {
        "env": "key_door", "start": "warm", **shared, "gamma": 0.9, "value_clip_range": None
    }  # fmt: skip


def test_lines_are_json_without_nan(tmp_path: Path):
    path = tmp_path / "deep" / "lines.jsonl"
    append_line(path, {"value": 1})
    append_line(path, {"value": None})
    assert path.read_text() == '{"value": 1}\n{"value": null}\n'
    assert read_lines(path) == [{"value": 1}, {"value": None}]
    with pytest.raises(ValueError, match="not JSON compliant"):
        append_line(path, {"value": float("nan")})
    assert len(read_lines(path)) == 2


def test_percent_has_no_negative_zero():
    assert [percent(share, signed=True) for share in (-1e-9, 0.1234, -0.5)] == ["+0.0", "+12.3", "-50.0"]


def test_the_readme_and_the_list_show_the_recorded_lines(repository: Path):
    def block(page: str, markers: tuple[str, str]) -> str:
        begin, end = markers
        return (repository / page).read_text(encoding="utf-8").partition(f"{begin}\n")[2].partition(end)[0]

    assert block("README.md", README_MARKERS) == short_block(RESULTS, IN_THE_README), (
        "run python baselines/table.py --write"
    )
    starts = starts_block(RESULTS, repository / "trainers" / "starts", FROM_SHIPPED_STARTS)
    assert block("docs/starts.md", STARTS_MARKERS) == starts, "run python baselines/table.py --write"
    invalid = invalid_block(RESULTS, FROM_SHIPPED_STARTS.values())
    assert block("baselines/README.md", INVALID_MARKERS) == invalid, "run python baselines/table.py --write"
    page = (repository / "baselines" / "RESULTS.md").read_text(encoding="utf-8")
    assert page == listing(RESULTS, PROTOCOLS.values()), "run python baselines/table.py --write"


def test_every_file_of_results_belongs_to_a_protocol():
    protocols = [*PROTOCOLS.values(), *(cell.protocol() for cell in CELLS)]
    known = {results_file(RESULTS, p, stage) for p in protocols for stage in ("matrix", "grid", "control")}
    assert set(RESULTS.glob("*")) <= known | {RESULTS / "audits"}
    for protocol in protocols:
        for stage in ("matrix", "grid", "control"):
            assert all(json.dumps(line) for line in read_results(RESULTS, protocol, stage))
