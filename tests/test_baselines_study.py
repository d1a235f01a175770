"""The study of when step credit pays: its design, its statistics and its page."""

from __future__ import annotations

import itertools
import json
import math
import statistics

import numpy as np
import pytest
from baseline_lines import cells

from steppo_gym.baselines.jobs import matrix_jobs, stage_folder
from steppo_gym.baselines.records import RESULTS, append_line, results_file
from steppo_gym.baselines.running.processes import exclusive
from steppo_gym.baselines.study import CELLS, FACTORS, PAGE, main
from steppo_gym.baselines.tables.effects import effects
from steppo_gym.baselines.tables.estimates import student_quantile, two_sided_p
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.arguments import parse_arguments

SIGNS = np.array([[1 if level else -1 for level in cell.levels] for cell in CELLS])


def test_no_main_effect_is_mixed_with_another_or_with_an_interaction_of_two():
    columns = {(i,): SIGNS[:, i] for i in range(len(FACTORS))}
    columns |= {(i, j): SIGNS[:, i] * SIGNS[:, j] for i, j in itertools.combinations(range(len(FACTORS)), 2)}
    for i in range(len(FACTORS)):
        assert SIGNS[:, i].sum() == 0
        assert all(SIGNS[:, i] @ column == 0 for key, column in columns.items() if key != (i,))


def test_the_two_rules_of_a_cell_differ_in_nothing_but_the_script():
    for cell in CELLS:
        protocol = cell.protocol()
        steppo, ppo = matrix_jobs(protocol, {rule: protocol.grid[0] for rule in protocol.algorithms}, (0,))
        assert steppo.arguments == ppo.arguments
        assert (steppo.algorithm.script, ppo.algorithm.script) == ("steppo", "ppo")
    assert len({cell.protocol().hash for cell in CELLS}) == len({cell.name for cell in CELLS}) == 8


def test_the_scripts_read_the_flags_of_every_cell():
    for cell in CELLS:
        protocol = cell.protocol()
        (job,) = matrix_jobs(protocol, {protocol.algorithms[0]: protocol.grid[0]}, (0,))
        settings = parse_arguments(ALGORITHMS["steppo"], job.arguments)
        passages, deciding = cell.passages
        wanted = {"decisive_steps": deciding, "routine_steps": passages - deciding, "thought_words": cell.words}
        assert {name: settings.env_kwargs[name] for name in wanted} == wanted
        assert settings.critic.critic_learning_rate == float(cell.critic_learning_rate)


def slow_effect(differences, levels, factor):
    """Mean, standard error and degrees of freedom, number by number."""
    high = [d for cell, level in zip(differences, levels, strict=True) if level[factor] for d in cell]
    low = [d for cell, level in zip(differences, levels, strict=True) if not level[factor] for d in cell]
    squares = sum((d - statistics.fmean(cell)) ** 2 for cell in differences for d in cell)
    freedom = sum(len(cell) - 1 for cell in differences)
    return (
        statistics.fmean(high) - statistics.fmean(low),
        math.sqrt(squares / freedom * (1 / len(high) + 1 / len(low))),
        freedom,
    )


def test_effects_equal_sums_by_hand():
    rng = np.random.default_rng(3)
    levels = [cell.levels for cell in CELLS]
    for _ in range(20):
        differences = rng.normal(size=(8, 5)) + SIGNS @ rng.normal(size=(4, 1))
        for factor, effect in enumerate(effects(differences, levels)):
            mean, error, freedom = slow_effect(differences.tolist(), levels, factor)
            assert effect.mean == pytest.approx(mean)
            assert (effect.high - effect.low) / 2 == pytest.approx(student_quantile(0.95, freedom) * error)
            assert effect.p_value == pytest.approx(two_sided_p(mean / error, freedom))


def test_intervals_cover_the_true_effect_as_often_as_they_say():
    rng = np.random.default_rng(5)
    levels = [cell.levels for cell in CELLS]
    covered = [
        effect.low <= 2 * slope <= effect.high
        for _ in range(500)
        for effect, slope in zip(
            effects(rng.normal(size=(8, 5)) + SIGNS @ [[0.3], [0.0], [-0.1], [1.0]], levels),
            (0.3, 0.0, -0.1, 1.0),
            strict=True,
        )
    ]
    assert 0.935 < np.mean(covered) < 0.965


def test_student_quantiles_are_those_of_the_printed_tables():
    # Abramowitz and Stegun, table 26.10.
    for freedom, printed in ((1, 12.706), (4, 2.776), (32, 2.037), (120, 1.980)):
        assert student_quantile(0.95, freedom) == pytest.approx(printed, abs=6e-4)
        assert two_sided_p(printed, freedom) == pytest.approx(0.05, abs=1e-4)


def line(cell, rule, seed, successes):
    protocol = cell.protocol()
    algorithm = protocol.algorithm(rule)
    (job,) = matrix_jobs(protocol, {algorithm: protocol.grid[0]}, (seed,))
    return job.identity | {
        "title": algorithm.title,
        "commit": "abc1234",
        "versions": {"torch": "2.13.0"},
        **dict.fromkeys(("iterations", "episodes", "updates", "evaluation_tasks"), 1),
        **dict.fromkeys(("success_before", "sampled_success_before"), successes[0]),
        "curve": [[2 * i, success, success] for i, success in enumerate(successes)],
        "explained_variance": [None, 0.5],
    }


def test_the_page_has_effects_only_when_all_runs_are_there(tmp_path, capsys):
    for cell in CELLS:
        for seed in range(5):
            # StepPO is ahead by 0.1 where the horizon is long, and behind by 0.1 where thoughts are.
            ahead = 0.05 * (2 * cell.horizon - 2 * cell.thought) + 0.01 * (seed - 2)
            path = results_file(tmp_path, cell.protocol(), "matrix")
            append_line(path, line(cell, "steppo", seed, [0.2, 0.4 + ahead, 0.5 + ahead, 0.6 + ahead]))
            append_line(path, line(cell, "ppo", seed, [0.2, 0.4, 0.5, 0.6]))
    main(["report", "--results", str(tmp_path)])
    page = capsys.readouterr().out
    assert "80 of 80 runs are recorded." in page
    effect_lines = [
        row.split(" | ")[:2] for row in page.splitlines() if row.startswith(tuple(f"| {f} " for f in FACTORS))
    ]
    assert effect_lines[:4] == [
        ["| horizon", "+10.0"],
        ["| share", "+0.0"],
        ["| thought", "-10.0"],
        ["| critic", "+0.0"],
    ]
    assert page.count("| 20.0 40.0 50.0 60.0 | abc1234 | 2.13.0 |") == 44  # PPO, and StepPO where it is level

    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n")
    assert json.loads(lines[-1])["algorithm"] == "ppo"
    main(["report", "--results", str(tmp_path)])
    page = capsys.readouterr().out
    assert "79 of 80 runs are recorded." in page and "| horizon |" not in page


def test_the_written_page_is_made_from_the_recorded_lines(capsys):
    main(["report"])
    assert PAGE.read_text(encoding="utf-8") == capsys.readouterr().out


def test_a_study_that_runs_already_is_said_in_a_line(tmp_path):
    cell = CELLS[0]
    with (
        exclusive(tmp_path / stage_folder(cell.protocol(), "matrix")),
        pytest.raises(SystemExit, match="Another process works in "),
    ):
        main(["run", "--cells", cell.name, "--runs", str(tmp_path), "--results", str(tmp_path)])


def test_the_section_on_step_limits_equals_sums_by_hand():
    differences = {}
    for name in ("alfworld_10_steps", "alfworld_ablations", "alfworld_40_steps"):
        lines = [json.loads(line) for line in (RESULTS / f"{name}.jsonl").read_text().splitlines()]
        score = {(line["algorithm"], line["seed"]): 100 * line["success_after"] for line in lines}
        differences[name] = [score["steppo", seed] - score["token_both", seed] for seed in range(5)]
    low, middle, high = differences.values()
    growth = [b - a for a, b in zip(low, high, strict=True)]
    _, *shown = cells(PAGE.read_text(encoding="utf-8").partition("## Step limits")[2])
    assert [row[0] for row in shown] == [*(f"at most {steps} steps" for steps in (10, 20, 40)), "40 steps minus 10"]
    for row, values in zip(shown, (low, middle, high, growth), strict=True):
        mean, width = statistics.fmean(values), 2.776445 * statistics.stdev(values) / math.sqrt(5)
        assert row[3] == f"{mean:+.1f}"
        assert row[4] == f"[{mean - width:+.1f}, {mean + width:+.1f}]"
        assert (float(row[5]) < 0.05) == (abs(mean) > width)
