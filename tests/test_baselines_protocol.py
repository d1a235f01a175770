"""Protocols, their runs, and the choice of a grid point."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from baseline_lines import GRPO, POINT, PROTOCOL, STEPPO, grid_line

from steppo_gym.baselines.compared.default_jobs import DEFAULT_JOBS
from steppo_gym.baselines.compared.head_to_head import HEAD_TO_HEAD, HEAD_TO_HEAD_WEBSHOP
from steppo_gym.baselines.compared.protocol import Algorithm, GridPoint, Protocol, grid
from steppo_gym.baselines.jobs import Job, grid_jobs, matrix_jobs, missing
from steppo_gym.baselines.protocols import PROTOCOLS
from steppo_gym.baselines.records import RESULTS, read_results
from steppo_gym.baselines.selection import IncompleteGridError, choose
from steppo_gym.baselines.starts import commands
from steppo_gym.baselines.starts import main as make_starts
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.rules import ALGORITHMS, StepPO
from steppo_gym.trainers.run.arguments import parse_arguments


def test_the_hash_is_that_of_what_all_runs_share():
    # Written out, because it must not change when the code does: nothing could be added to recorded results.
    text = (
        '{"arguments": ["--iterations", "4"], "env": "key_door", "grid": [[0.001, 0.1], [0.001, 0.2], [0.01, 0.1], '
        '[0.01, 0.2]], "grid_arguments": [], "grid_seeds": [100, 101]}'
    )
    assert PROTOCOL.hash == hashlib.sha256(text.encode()).hexdigest()[:12] == "606abf3803c6"
    changed = [
        replace(PROTOCOL, env="alfworld"),
        replace(PROTOCOL, arguments=("--iterations", "5")),
        replace(PROTOCOL, grid=PROTOCOL.grid[1:]),
        replace(PROTOCOL, grid_seeds=(100,)),
        replace(PROTOCOL, grid_arguments=("--iterations", "2")),
    ]
    assert len({PROTOCOL.hash, *(protocol.hash for protocol in changed)}) == 6


def test_rows_seeds_and_speed_can_be_changed_without_another_hash():
    more = replace(PROTOCOL, algorithms=(STEPPO,), seeds=(0, 9), title="Other", machine_arguments=("--num_slots", "2"))
    assert more.hash == PROTOCOL.hash


def test_a_protocol_must_not_tune_on_the_seeds_it_reports():
    with pytest.raises(ValueError, match=r"small: seeds \[1\] are both tuned on and reported"):
        replace(PROTOCOL, grid_seeds=(1, 100))


def test_a_protocol_needs_different_keys_and_a_grid():
    with pytest.raises(ValueError, match="two algorithms have the same key, got steppo, steppo"):
        replace(PROTOCOL, algorithms=(STEPPO, replace(GRPO, key="steppo")))
    for change in ({"grid": ()}, {"grid_seeds": ()}):
        with pytest.raises(ValueError, match="needs a grid of one point, or of more points and grid_seeds"):
            replace(PROTOCOL, **change)


def flags_of(arguments: list[str]) -> dict[str, str]:
    """The last value of every flag, which is the one that counts."""
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


def jobs_of(protocol: Protocol, stage: str) -> list[Job]:
    """One job of each algorithm."""
    return [Job(protocol, stage, algorithm, protocol.grid[0], 0) for algorithm in protocol.algorithms]


def test_the_default_jobs_have_the_learning_rates_of_their_tasks():
    for protocol in DEFAULT_JOBS:
        if not protocol.superseded:
            expected = parse_arguments(StepPO, [f"--env={protocol.env}", *protocol.arguments]).config.learning_rate
            assert [point.learning_rate for point in protocol.grid] == [expected], protocol.name


@pytest.mark.parametrize("stage", ["grid", "matrix"])
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_all_algorithms_of_a_protocol_get_the_same_budget(protocol: Protocol, stage, repository: Path):
    own = {"--num_generations", "--normalize_std", "--bootstrap_truncated", "--unbiased"}
    if protocol.name == "key_door_critics":
        own |= {"--critic", "--critic_learning_rate"}
    if protocol.name in ("key_door_ablations", "alfworld_ablations", "alfworld_10_steps", "alfworld_40_steps"):
        own |= {"--ratio", "--gae_lambda"}
    if protocol.name == "key_door_overlap":
        own |= {"--overlap_updates", "--off_policy_correction"}
    # What a rule branches off counts as well, so it plays fewer episodes.
    of_episodes = {"--episodes_per_iteration", "--updates_per_iteration"}
    of_critic = {f"--{field.name}" for field in fields(CriticConfig)}
    shared, with_critic = set(), set()
    for job in jobs_of(protocol, stage):
        assert (repository / "trainers" / f"{job.algorithm.script}.py").exists()
        branches = job.algorithm.script in ("vineppo", "bpo")
        assert set(job.algorithm.arguments[::2]) <= own | (of_episodes if branches else set())
        if branches:
            of_all = flags_of(job.protocol.arguments)
            assert all(int(flags_of(job.arguments)[name]) <= int(of_all[name]) for name in of_episodes)
            continue
        flags = {(name, value) for name, value in flags_of(job.arguments).items() if name not in own}
        shared.add(frozenset(flag for flag in flags if flag[0] not in of_critic))
        if ALGORITHMS[job.algorithm.script].critic:
            with_critic.add(frozenset(flags))
        else:
            assert not of_critic & {name for name, _ in flags}
    assert len(shared) == 1
    assert len(with_critic) == any(ALGORITHMS[algorithm.script].critic for algorithm in protocol.algorithms)
    if protocol.name == "key_door":
        assert ("--critic_learning_rate", "2e-3") in next(iter(with_critic))


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_scripts_know_every_flag_of_their_runs(protocol: Protocol):
    for job in jobs_of(protocol, "matrix") + jobs_of(protocol, "grid"):
        found = parse_arguments(ALGORITHMS[job.algorithm.script], job.arguments)
        assert (found.config.seed, found.config.epsilon) == (job.seed, job.point.epsilon)


def test_every_algorithm_is_compared():
    first, newer = (PROTOCOLS[name].algorithms for name in ("key_door", "key_door_newer_rules"))
    assert {algorithm.script for algorithm in (*first, *newer)} == set(ALGORITHMS)
    titles = [algorithm.title for algorithm in PROTOCOLS["alfworld"].algorithms]
    assert titles == [ALGORITHMS[algorithm.script].title() for algorithm in PROTOCOLS["alfworld"].algorithms]
    assert len(titles) == 9


@pytest.mark.parametrize("stage", ["grid", "matrix"])
@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_the_last_evaluation_is_after_the_last_update(protocol: Protocol, stage):
    job = jobs_of(protocol, stage)[0]
    config = parse_arguments(ALGORITHMS[job.algorithm.script], job.arguments).config
    assert config.iterations % config.evaluate_every == 0


def test_the_grid_may_have_flags_of_its_own():
    protocol = replace(PROTOCOL, grid_arguments=("--iterations", "2"))
    assert [flags_of(jobs_of(protocol, stage)[0].arguments)["--iterations"] for stage in ("grid", "matrix")] == [
        "2",
        "4",
    ]


def test_grid_runs_never_see_the_test_tasks():
    job = grid_jobs(PROTOCOL, [STEPPO], [100])[0]
    flags = flags_of(job.arguments)
    assert (flags["--watch"], flags["--test_tasks"]) == ("validation", "0")
    assert flags_of(matrix_jobs(PROTOCOL, {STEPPO: POINT}, [0])[0].arguments)["--watch"] == "test"


def test_a_protocol_may_watch_validation_tasks_instead_and_is_another_one():
    other = replace(PROTOCOL, watched="validation")
    assert flags_of(matrix_jobs(other, {STEPPO: POINT}, [0])[0].arguments)["--watch"] == "validation"
    assert other.hash != PROTOCOL.hash


def test_the_command_of_a_run(tmp_path: Path):
    job = Job(PROTOCOL, "matrix", GRPO, GridPoint(3e-4, 0.1), 7)
    _, script, *arguments = job.command(tmp_path)
    assert Path(script).parts[-2:] == ("trainers", "grpo.py")
    assert flags_of(arguments) == {
        "--env": "key_door",
        "--start": "warm",
        "--iterations": "4",
        "--num_generations": "8",
        "--learning_rate": "0.0003",
        "--epsilon": "0.1",
        "--seed": "7",
        "--watch": "test",
        "--output_dir": str(tmp_path),
    }


def test_another_start_is_another_protocol():
    shipped = replace(PROTOCOL, start="shipped")
    assert shipped.hash != PROTOCOL.hash
    (job,) = jobs_of(replace(shipped, algorithms=(STEPPO,)), "matrix")
    assert job.arguments[:4] == ["--env", "key_door", "--start", "shipped"]


def test_seeds_begin_with_the_starts_in_turn(repository: Path):
    shared = replace(PROTOCOL, starts=("trainers/starts/a", "baselines/starts/a-1"))
    assert [shared.start_of(seed) for seed in (0, 1, 2, 101)] == [shared.starts[seed % 2] for seed in (0, 1, 2, 101)]
    assert PROTOCOL.start_of(7) == "warm" and replace(PROTOCOL, start="shipped").start_of(7) == "shipped"
    jobs = matrix_jobs(shared, {STEPPO: POINT}, (2, 3))
    assert [flags_of(job.arguments)["--start"] for job in jobs] == [str(repository / start) for start in shared.starts]
    assert len({PROTOCOL.hash, shared.hash, replace(shared, starts=shared.starts[::-1]).hash}) == 3


@pytest.mark.parametrize("protocol", HEAD_TO_HEAD[1:], ids=lambda protocol: protocol.name)
def test_options_are_those_that_the_first_task_chose_for_every_rule(protocol: Protocol):
    first = HEAD_TO_HEAD[0]
    lines = read_results(RESULTS, first, "grid")
    for algorithm in protocol.algorithms:
        (option,) = algorithm.options
        chosen = flags_of(list(choose(first, first.algorithm(algorithm.key), lines).option))
        # What has become the default since.
        assert chosen.pop("--bootstrap_truncated", "False") == "False" and flags_of(list(option)) == chosen
    assert len(grid_jobs(protocol, protocol.algorithms, protocol.grid_seeds)) == 6 * len(protocol.algorithms)
    # Whichever seeds: each start begins as many runs of the table as any other.
    assert sorted(map(protocol.start_of, protocol.seeds)) == sorted(2 * protocol.starts)
    assert protocol.comparison == first.comparison and protocol.seeds == first.seeds
    # A run whose environments are not those of its start is refused.
    for job in jobs_of(protocol, "matrix"):
        settings = parse_arguments(ALGORITHMS[job.algorithm.script], job.arguments)
        recipe = next(iter(settings.preset.starts.values()))
        assert (settings.env_kwargs, settings.run.invalid_action_reward) == (recipe.env_kwargs, 0.0)


def test_no_other_protocol_slips_into_a_comparison():
    # One that is made of a task's by `replace` would inherit it.
    assert [protocol.name for protocol in PROTOCOLS.values() if protocol.comparison] == [p.name for p in HEAD_TO_HEAD]
    assert len({protocol.seeds for protocol in HEAD_TO_HEAD}) == 1


def test_the_starts_of_a_comparison_that_are_not_there_are_made_from_its_first(tmp_path: Path, monkeypatch):
    protocol = HEAD_TO_HEAD_WEBSHOP
    monkeypatch.setattr("steppo_gym.baselines.starts.REPOSITORY", tmp_path)
    (tmp_path / protocol.starts[2]).mkdir(parents=True)
    (tmp_path / protocol.starts[2] / "card.json").write_text("{}")
    made = [command[3:] for command in commands(protocol)]
    assert [flags_of(command) for command in made] == [
        {
            "--env": "webshop",
            "--seed": str(seed),
            "--from": "trainers/starts/webshop",
            "--updates": "400",
            "--out": f"baselines/starts/webshop-{seed}",
        }
        for seed in (1, 3, 4)
    ]
    with pytest.raises(SystemExit):
        make_starts(["key_door"])


OPTIONS = (("--gae_lambda", "0.9"), ("--gae_lambda", "1.0", "--whiten_advantages", "False"))
WITH_OPTIONS = replace(
    PROTOCOL, algorithms=(replace(STEPPO, options=OPTIONS), replace(GRPO, options=(("--num_generations", "4"), ())))
)


def test_every_point_of_the_grid_is_tried_with_every_option_of_the_algorithm():
    steppo, grpo = WITH_OPTIONS.algorithms
    jobs = grid_jobs(WITH_OPTIONS, WITH_OPTIONS.algorithms, [100])
    assert len(jobs) == 2 * 4 * 2 == len({job.folder for job in jobs}) == len({job.name for job in jobs})
    assert {job.point.option for job in jobs if job.algorithm == steppo} == set(OPTIONS)
    flags = [flags_of(job.arguments)["--num_generations"] for job in jobs if job.algorithm == grpo]
    # Of an option, or the algorithm's own.
    assert flags == ["4", "8"] * 4
    # A line of one option is not that of another, nor that of none; lines from before there were options are of none.
    lines = [grid_line(job.algorithm, job.point, job.seed, 0.1, protocol=WITH_OPTIONS) for job in jobs]
    assert list(missing(jobs, lines)) == []
    plain = [job for job in jobs if not job.point.option]
    assert list(missing(plain, [line for line in lines if line["option"]])) == plain
    old = [{name: value for name, value in line.items() if name != "option"} for line in lines if not line["option"]]
    assert list(missing(plain, old)) == []


def test_an_option_is_chosen_with_its_point():
    steppo, _ = WITH_OPTIONS.algorithms
    jobs = grid_jobs(WITH_OPTIONS, [steppo], WITH_OPTIONS.grid_seeds)
    best = GridPoint(1e-2, 0.1, OPTIONS[1])
    lines = [
        grid_line(steppo, job.point, job.seed, 0.2, 0.9 if job.point == best else 0.3, protocol=WITH_OPTIONS)
        for job in jobs
    ]
    assert choose(WITH_OPTIONS, steppo, lines) == best
    (job,) = matrix_jobs(WITH_OPTIONS, {steppo: best}, [0])
    assert flags_of(job.arguments).items() >= {"--gae_lambda": "1.0", "--whiten_advantages": "False"}.items()
    level = [grid_line(steppo, job.point, job.seed, 0.2, protocol=WITH_OPTIONS) for job in jobs]
    assert choose(WITH_OPTIONS, steppo, level) == GridPoint(1e-3, 0.1, OPTIONS[0])


def test_all_algorithms_have_equally_many_options():
    with pytest.raises(ValueError, match=r"different numbers of options, got \[1, 2\]"):
        replace(PROTOCOL, algorithms=(replace(STEPPO, options=OPTIONS), GRPO))
    with pytest.raises(ValueError, match="needs a grid of one point, or of more points and grid_seeds"):
        replace(WITH_OPTIONS, grid=(POINT,), grid_seeds=())


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_every_option_is_one_that_the_script_takes(protocol: Protocol):
    for algorithm in protocol.algorithms:
        for option in algorithm.options:
            job = Job(protocol, "matrix", algorithm, replace(protocol.grid[0], option=option), 0)
            parse_arguments(ALGORITHMS[algorithm.script], job.arguments)


def test_other_instructions_are_another_protocol_and_reach_the_run():
    held = replace(PROTOCOL, instructions="avx2")
    assert held.hash != PROTOCOL.hash
    (job,) = matrix_jobs(held, {STEPPO: POINT}, [0])
    code = "import torch; print(torch.backends.cpu.get_cpu_capability())"
    said = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | job.environment, capture_output=True, text=True, check=True
    )
    if platform.machine() == "x86_64":
        assert said.stdout.strip() == "AVX2"
    assert Job(PROTOCOL, "matrix", STEPPO, POINT, 0).environment == {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def test_no_two_runs_share_a_folder():
    jobs = [
        *grid_jobs(PROTOCOL, PROTOCOL.algorithms, PROTOCOL.grid_seeds),
        *matrix_jobs(PROTOCOL, dict.fromkeys(PROTOCOL.algorithms, POINT), PROTOCOL.seeds),
        *matrix_jobs(replace(PROTOCOL, env="alfworld"), {STEPPO: POINT}, [0]),
    ]
    assert len(jobs) == 2 * 4 * 2 + 2 * 4 + 1
    assert len({job.folder for job in jobs}) == len(jobs)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol_hash": "0"},
        {"stage": "matrix"},
        {"algorithm": "ppo"},
        {"arguments": []},
        {"learning_rate": 0.1},
        {"epsilon": 0.3},
        {"seed": 5},
    ],
)
def test_a_run_is_missing_unless_a_line_is_exactly_its_own(change):
    jobs = grid_jobs(PROTOCOL, [GRPO], [100])
    lines = [grid_line(GRPO, job.point, job.seed, 0.1, 0.2) for job in jobs]
    assert list(missing(jobs, lines)) == []
    lines[2] |= change
    assert list(missing(jobs, lines)) == [jobs[2]]


def grid_lines(algorithm: Algorithm, heights: dict[tuple[float, float], list[tuple[float, ...]]]) -> list[dict]:
    """Lines of all grid points; those that are not named have curves at 0."""
    lines = []
    for point in PROTOCOL.grid:
        curves = heights.get((point.learning_rate, point.epsilon), [(0.0, 0.0, 0.0)] * 2)
        lines += [grid_line(algorithm, point, seed, *curve) for seed, curve in zip((100, 101), curves, strict=True)]
    return lines


def test_the_best_end_on_validation_tasks_is_chosen_over_the_mean_of_the_seeds():
    lines = grid_lines(
        STEPPO,
        {(1e-3, 0.1): [(0.0, 1.0, 0.9), (0.0, 1.0, 0.1)], (1e-2, 0.2): [(0.0, 0.0, 0.5), (0.0, 0.0, 0.6)]},
    )
    assert choose(PROTOCOL, STEPPO, lines) == GridPoint(1e-2, 0.2)


def test_ties_go_to_the_larger_area_then_to_the_smaller_learning_rate_and_clip():
    same = [(0.0, 0.2, 0.5), (0.0, 0.2, 0.7)]
    lines = grid_lines(STEPPO, {(1e-2, 0.2): [(0.0, 0.3, 0.7), (0.0, 0.2, 0.5)], (1e-3, 0.1): same})
    assert choose(PROTOCOL, STEPPO, lines) == GridPoint(1e-2, 0.2)
    lines = grid_lines(STEPPO, {(1e-2, 0.1): same, (1e-3, 0.2): same[::-1]})
    assert choose(PROTOCOL, STEPPO, lines) == GridPoint(1e-3, 0.2)
    assert choose(PROTOCOL, STEPPO, grid_lines(STEPPO, {})) == GridPoint(1e-3, 0.1)


def test_the_choice_is_each_algorithms_own():
    best = [(0.0, 0.0, 1.0)] * 2
    lines = grid_lines(STEPPO, {(1e-2, 0.1): best}) + grid_lines(GRPO, {(1e-3, 0.2): best})
    assert choose(PROTOCOL, STEPPO, lines) == GridPoint(1e-2, 0.1)
    assert choose(PROTOCOL, GRPO, lines) == GridPoint(1e-3, 0.2)


def test_nothing_is_chosen_from_a_part_of_the_grid():
    lines = grid_lines(STEPPO, {})
    del lines[3]
    message = "The grid of steppo lacks 1 of 8 runs: steppo, learning rate 0.001, clip 0.2, seed 101."
    with pytest.raises(IncompleteGridError, match=f"^{re.escape(message)}$"):
        choose(PROTOCOL, STEPPO, lines)
    with pytest.raises(IncompleteGridError, match="lacks 8 of 8 runs"):
        choose(PROTOCOL, GRPO, lines)


def test_a_grid_of_one_point_needs_no_runs():
    assert choose(replace(PROTOCOL, grid=(POINT,)), STEPPO, []) == POINT
    assert grid((1.0, 2.0), (0.1,)) == (GridPoint(1.0, 0.1), GridPoint(2.0, 0.1))
