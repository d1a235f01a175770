"""The matrix from the command line to the recorded lines, with real runs of seconds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from baseline_lines import GRPO, POINT, PROTOCOL, STEPPO, grid_line
from filelock import FileLock
from forked import fork

from steppo_gym.baselines.compared.protocol import Algorithm
from steppo_gym.baselines.jobs import Job, matrix_jobs, stage_folder
from steppo_gym.baselines.protocols import PROTOCOLS
from steppo_gym.baselines.records import (
    MixedProtocolsError,
    append_line,
    checked_out_commit,
    code_of,
    read_results,
    require_one_code,
    results_file,
)
from steppo_gym.baselines.run import ending_in_one_line, main, run
from steppo_gym.baselines.running.processes import (
    INTERRUPTED,
    BusyError,
    exclusive,
    job_record,
    may_resume,
    next_job,
    run_jobs,
)
from steppo_gym.trainers.checkpoints import begin_checkpoint, complete_checkpoint

BROKEN = Algorithm("broken", "Broken", "steppo", ("--no_such_flag", "1"))
TINY = replace(
    PROTOCOL,
    name="tiny",
    arguments=(
        "--demonstrations", "24", "--warm_start_updates", "4", "--iterations", "2", "--episodes_per_iteration", "8",
        "--updates_per_iteration", "2", "--max_completion_length", "6", "--num_slots", "8", "--test_tasks", "4",
        # An expert needs four steps or six.
        "--evaluate_every", "1", "--env_args", "max_steps=6",
    ),
    grid=(POINT,),
    grid_seeds=(),
    seeds=(0, 1),
    algorithms=(STEPPO, BROKEN),
    machine_arguments=(
        "--num_env_workers", "0", "--save_every", "1", "--save_episodes", "False", "--report_to", "none",
    ),
)  # fmt: skip
TIMED = ("wall_seconds", "seconds_per_update", "rollout_seconds")


def run_tiny(folder: Path, algorithms=(STEPPO,), seeds=TINY.seeds):
    return run(
        TINY, "matrix", algorithms, seeds, runs=folder / "runs", results=folder / "results", num_processes=2
    )  # fmt: skip


def lines_of(folder: Path) -> dict[int, dict]:
    return {line["seed"]: line for line in read_results(folder / "results", TINY, "matrix")}


def keep_lines(folder: Path, seeds: set[int]) -> None:
    """Delete the lines of all other seeds."""
    path = results_file(folder / "results", TINY, "matrix")
    kept = [line for line in path.read_text().splitlines(keepends=True) if json.loads(line)["seed"] in seeds]
    path.write_text("".join(kept))


def untimed(line: dict) -> dict:
    kept = {name: value for name, value in line.items() if name not in TIMED}
    return kept | {"by_iteration": {name: spent for name, spent in line["by_iteration"].items() if name != "seconds"}}


def folder_of(folder: Path, seed: int) -> Path:
    return folder / "runs" / Job(TINY, "matrix", STEPPO, POINT, seed).folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with two runs of one algorithm, and what failed."""
    folder = tmp_path_factory.mktemp("matrix")
    with pytest.MonkeyPatch.context() as patch:
        # As where no variable says it and there are two cores.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "2")
        failures = run_tiny(folder, seeds=(0,), algorithms=(STEPPO, BROKEN))
        failures += run_tiny(folder)
    return folder, failures


def test_a_run_that_fails_does_not_stop_the_others(finished):
    folder, failures = finished
    assert [(failure.job.algorithm.key, failure.job.seed) for failure in failures] == [("broken", 0)]
    assert "--no_such_flag" in failures[0].log.read_text()
    assert set(lines_of(folder)) == {0, 1}


def test_a_line_says_what_was_run_and_how_it_went(finished):
    folder, _ = finished
    line = lines_of(folder)[1]
    summary = json.loads((folder_of(folder, 1) / "summary.json").read_text())
    assert line.items() >= Job(TINY, "matrix", STEPPO, POINT, 1).identity.items()
    for name in ("success_before", "success_after", "sampled_success_after", "tokens", "wall_seconds", "versions"):
        assert line[name] == summary[name]
    assert (line["iterations"], line["episodes"], line["updates"], line["evaluation_tasks"]) == (2, 16, 4, 4)
    assert line["commit"] == checked_out_commit()
    spent = line["by_iteration"]
    assert [len(values) for values in spent.values()] == [2, 2, 2]
    assert line["environment_steps"] == round(sum(spent["environment_steps"])) >= 16
    for credited, steps in zip(spent["credited_steps"], spent["environment_steps"], strict=True):
        assert 0 <= credited <= steps
    assert 0 < sum(spent["seconds"]) < line["wall_seconds"]
    assert [point[0] for point in line["curve"]] == [0.0, 1.0, 2.0]
    # The curve is that of the test tasks: it begins and ends with the scores before and after.
    assert (line["curve"][0][1], line["curve"][-1][1]) == (line["success_before"], line["success_after"])
    assert line["curve_by_split"] == {"test": line["curve"]}
    assert [point[0] for point in line["training_curve"]] == [1.0, 2.0]
    # With more, sums are added up in another order.
    assert line["hardware"]["torch_threads"] == 1
    assert line["seconds_per_update"] > 0 and line["rollout_seconds"] > 0 and line["failed_rate"] == 0.0
    assert line["config"].items() >= {
        "learning_rate": 1e-3, "epsilon": 0.2, "num_generations": 1, "seed": 1, "watch": "test", "demonstrations": 24,
    }.items()  # fmt: skip


def test_the_rows_without_training_are_played_on_the_same_tasks(finished):
    folder, _ = finished
    controls = read_results(folder / "results", TINY, "control")
    assert [(line["algorithm"], line["seed"]) for line in controls] == [("random", 0), ("random", 1), ("expert", 0)]
    assert all(line["evaluation_tasks"] == 4 and list(line["after"]) == ["test"] for line in controls)
    assert controls[-1]["success_after"] == 1.0


def test_only_the_run_whose_line_was_deleted_is_repeated(finished, capsys):
    folder, _ = finished
    before, logs = lines_of(folder), {seed: folder_of(folder, seed) / "log.txt" for seed in TINY.seeds}
    written = {seed: log.stat().st_mtime_ns for seed, log in logs.items()}
    keep_lines(folder, {1})
    assert run_tiny(folder) == []
    after = lines_of(folder)
    assert list(after) == [1, 0]
    assert after[1] == before[1] and logs[1].stat().st_mtime_ns == written[1]
    # It was played again, and gave the same.
    assert logs[0].stat().st_mtime_ns > written[0]
    assert untimed(after[0]) == untimed(before[0])
    assert "1 of 2 recorded" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_from_its_checkpoint(finished):
    folder, _ = finished
    before, own = lines_of(folder), folder_of(folder, 1)
    # As if it had been stopped in its second iteration.
    (own / "summary.json").unlink()
    (own / "checkpoint-4").rename(folder / "checkpoint-4")
    job = Job(TINY, "matrix", STEPPO, POINT, 1)
    record = job_record(job, checked_out_commit())
    (own / "job.json").write_text(json.dumps(record))
    keep_lines(folder, {0})
    assert run_tiny(folder) == []
    line = lines_of(folder)[1]
    assert line["resumed"] is True
    assert untimed(line) | {"resumed": False} | {"config": None} == untimed(before[1]) | {"config": None}
    # Recorded, it is done with: without a line it would be repeated from its start.
    assert not (own / "job.json").exists()


def test_a_run_that_ended_unrecorded_is_recorded(finished):
    folder, _ = finished
    before, own = lines_of(folder), folder_of(folder, 0)
    job = Job(TINY, "matrix", STEPPO, POINT, 0)
    record = job_record(job, "1234567")
    (own / "job.json").write_text(json.dumps(record))
    keep_lines(folder, {1})
    started = (own / "log.txt").stat().st_mtime_ns
    assert run_tiny(folder) == []
    assert lines_of(folder)[0] == before[0] | {"commit": "1234567", "code": "1234567"}
    assert (own / "log.txt").stat().st_mtime_ns == started


@pytest.mark.parametrize("name", ["script", "arguments", "commit"])
def test_a_run_is_never_gone_on_with_under_other_settings(name, tmp_path: Path):
    wanted = job_record(Job(TINY, "matrix", STEPPO, POINT, 0), "abc1234")
    (tmp_path / "job.json").write_text(json.dumps(wanted))
    assert not may_resume(tmp_path, wanted), "there is no checkpoint"
    (tmp_path / "checkpoint-2").mkdir()
    assert not may_resume(tmp_path, wanted), "it is not complete"
    unfinished = begin_checkpoint(tmp_path)
    (unfinished / "checkpoint-2").mkdir()
    (unfinished / "checkpoint-2" / "trainer_state.json").write_text("{}")
    complete_checkpoint(unfinished)
    assert may_resume(tmp_path, wanted)
    assert not may_resume(tmp_path, wanted | {name: "other"})
    (tmp_path / "job.json").unlink()
    assert not may_resume(tmp_path, wanted)


def test_the_policy_of_a_seed_is_made_once():
    jobs = matrix_jobs(TINY, {STEPPO: POINT, GRPO: POINT}, (0, 1))
    assert [(job.seed, job.algorithm.key) for job in jobs] == [(0, "steppo"), (0, "grpo"), (1, "steppo"), (1, "grpo")]
    assert next_job(jobs[1:], cold_seeds={0}) == jobs[2]
    assert next_job(jobs[1:], cold_seeds=set()) == jobs[1]
    assert next_job(jobs[3:], cold_seeds={0, 1}) is None


def test_two_cannot_work_in_one_folder(tmp_path: Path):
    with (
        exclusive(tmp_path / "runs"),
        pytest.raises(BusyError, match=r"Another process works in .*runs"),
        exclusive(tmp_path / "runs"),
    ):
        pass
    with exclusive(tmp_path / "runs"):
        pass


def test_a_run_that_an_ended_session_left_behind_keeps_its_folder(tmp_path: Path):
    job = Job(TINY, "matrix", STEPPO, POINT, 0)
    folder = tmp_path / job.folder
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("")
    with (
        FileLock(folder / "lock"),
        pytest.raises(BusyError, match=f"A run of an earlier session still works in {folder}. Wait for it, or stop it"),
    ):
        run_jobs([job], tmp_path, num_processes=1, on_end=lambda *_: "")
    assert (folder / "metrics.jsonl").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_end_of_the_terminal_stops_as_ctrl_c_does(number):
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        signal.signal(number, lambda *_: None)
        with pytest.raises(SystemExit, match=r"Stopped\. The same command goes on"), ending_in_one_line():
            os.kill(os.getpid(), number)
            time.sleep(5)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test_a_run_that_the_end_of_its_terminal_has_ended_can_be_gone_on_with():
    assert {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)} == set(INTERRUPTED)


def test_a_stopped_matrix_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    protocol = replace(TINY, grid_seeds=(100,))
    monkeypatch.setitem(PROTOCOLS, "tiny", protocol)
    folders = ["--runs", str(tmp_path), "--results", str(tmp_path)]
    parent = fork(lambda: main(["tiny", "--grid", "--algorithms", "steppo", *folders]))
    log = tmp_path / Job(protocol, "grid", STEPPO, POINT, 100).folder / "log.txt"
    deadline = time.monotonic() + 300
    while not log.exists():
        assert parent.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert children
    parent.kill(signal.SIGTERM)
    assert parent.returncode == 1
    assert "Stopped. The same command goes on where it was." in parent.stderr
    assert not any(child.is_running() for child in children)


def test_bad_input_ends_with_a_message(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PROTOCOLS, "small", PROTOCOL)
    for flags, message in (
        (["--algorithms", "steppo", "sarsa"], "small has no algorithm sarsa; it has steppo, grpo."),
        (["--jobs", "0"], "--jobs must be at least 1, got 0."),
        (["--seeds", "100"], r"--seeds of this stage are 0 1 2 3, got \[100\]."),
        (["--grid", "--seeds", "0"], r"--seeds of this stage are 100 101, got \[0\]."),
    ):
        with pytest.raises(SystemExit):
            main(["small", *flags])
        assert re.search(message, capsys.readouterr().err)


def test_the_matrix_waits_for_the_whole_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(PROTOCOLS, "small", PROTOCOL)
    # Lines of any commit may stand in it, so git is not asked, and need not be there, before a run begins.
    monkeypatch.setenv("PATH", "")
    for point in PROTOCOL.grid:
        for seed in PROTOCOL.grid_seeds:
            append_line(results_file(tmp_path, PROTOCOL, "grid"), grid_line(GRPO, point, seed, 0.1, 0.2))
    with pytest.raises(SystemExit) as ended:
        main(["small", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    said = str(ended.value)
    assert said.startswith("The grid of steppo lacks 8 of 8 runs: steppo, learning rate 0.001, clip 0.1, seed 100; ")
    assert said.endswith("Run `python baselines/run.py small --grid` first.")
    assert "grpo" not in said
    assert not list((tmp_path / "runs" / stage_folder(PROTOCOL, "matrix")).glob("*seed*"))


def test_the_commit_is_marked_if_code_differs_from_it(tmp_path: Path):
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init")
    (tmp_path / "trainers").mkdir()
    (tmp_path / "trainers" / "ppo.py").write_text("1")
    git("add", ".")
    git("commit", "-m", "first")
    clean = checked_out_commit(tmp_path)
    assert re.fullmatch(r"[0-9a-f]{7,}", clean)
    (tmp_path / "README.md").write_text("text changes nothing")
    assert checked_out_commit(tmp_path) == clean
    (tmp_path / "trainers" / "new.py").write_text("1")
    assert checked_out_commit(tmp_path) == f"{clean}+"


def test_the_code_of_a_commit_changes_with_nothing_else(tmp_path: Path):
    def commit(path: str) -> str:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        for arguments in (("add", "."), ("commit", "-m", path)):
            subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)
        return code_of(checked_out_commit(tmp_path), tmp_path)

    subprocess.run(["git", "init"], cwd=tmp_path, check=True, capture_output=True)
    commit("envs/a.py")
    commit("trainers/a.py")
    first = commit("steppo_gym/a.py")
    assert re.fullmatch("[0-9a-f]{12}", first)
    assert commit("baselines/results.jsonl") == first
    assert commit("envs/b.py") != first
    assert code_of("1234567+", tmp_path) == "1234567+"


def test_nothing_runs_beside_lines_of_other_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    strict = replace(PROTOCOL, name="strict", one_code=True)
    path = results_file(tmp_path, strict, "grid")
    append_line(path, grid_line(GRPO, POINT, 100, 0.1, protocol=strict) | {"code": code_of("HEAD")})
    require_one_code(strict, tmp_path, "HEAD")
    with pytest.raises(
        MixedProtocolsError, match=r"All runs of strict come from one commit, but .* differ from HEAD\."
    ):
        require_one_code(strict, tmp_path, "HEAD+")
    append_line(path, grid_line(GRPO, POINT, 101, 0.1, protocol=strict) | {"code": "0" * 12})
    monkeypatch.setitem(PROTOCOLS, "strict", strict)
    monkeypatch.setattr("steppo_gym.baselines.run.checked_out_commit", lambda: "HEAD")
    with pytest.raises(SystemExit, match=r"strict-grid\.jsonl was recorded with the code of commit abc1234"):
        main(["strict", "--grid", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)])
    assert not (tmp_path / "runs").exists()
    assert checked_out_commit(tmp_path / "nowhere") == "unknown"
