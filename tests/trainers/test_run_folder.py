"""Whose a run's folder is, what it may be gone on with under, and what is left of a run that was ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from killed_runs import MOMENTS, STATUS, difference, killed_and_resumed, run
from safetensors import SafetensorError

from steppo_gym.errors import CheckpointError, DataError
from steppo_gym.trainers.checkpoints import begin_checkpoint, complete_checkpoint
from steppo_gym.trainers.policy.small_policy import train_tokenizer
from steppo_gym.trainers.rules import RLOO, StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.environments import open_environments
from steppo_gym.trainers.run.interruption import WAITING, Interruption, ending_in_one_line
from steppo_gym.trainers.run.launch import _build_trainer
from steppo_gym.trainers.run.run_folder import command_to_go_on, differences, named_folder, run_folder
from steppo_gym.trainers.run.starts import files_mark, require_tokenizer_of


def settings(*flags, rule=StepPO):
    return parse_arguments(rule, ["--env=key_door", "--report_to=none", *map(str, flags)])


def used(folder: Path) -> None:
    """As if a run had done something in it."""
    (folder / "metrics.jsonl").write_text('{"update": 0}\n')


def test_two_runs_started_together_do_not_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = settings("--seed=3", "--learning_rate=0.1"), settings("--seed=3", "--learning_rate=0.2")
    with run_folder(first), run_folder(second):
        assert first.config.output_dir == "runs/key_door-steppo-seed3"
        assert second.config.output_dir == "runs/key_door-steppo-seed3-2"
        rates = [json.loads(Path(s.config.output_dir, "config.json").read_text())["config"] for s in (first, second)]
        assert [rate["learning_rate"] for rate in rates] == [0.1, 0.2]
        named = settings(f"--output_dir={first.config.output_dir}")
        with pytest.raises(SystemExit, match=r"Another process works in .*seed3\. Wait for it"), run_folder(named):
            pass


def test_who_ends_a_run_is_told_its_folder_where_its_name_was_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--env=key_door", "--seed=7"]
    for ending in ("--seed=7 --resume", "--seed=7 --output_dir runs/key_door-steppo-seed7-2 --resume"):
        mine = settings("--seed=7")
        first = named_folder(mine)[0]
        with run_folder(mine):
            used(Path(str(mine.config.output_dir)))
            assert command_to_go_on(mine, flags, first).endswith(ending)
    again = settings("--seed=7", "--output_dir=runs/key_door-steppo-seed7-2", "--resume")
    assert command_to_go_on(again, ["--resume"], named_folder(again)[0]).endswith(" --resume")


def test_two_do_not_go_on_with_the_same_run(tmp_path):
    with run_folder(settings(f"--output_dir={tmp_path}")):
        used(tmp_path)
    resume = f"--output_dir={tmp_path}", "--resume"
    refused = pytest.raises(SystemExit, match="--resume: another process works in")
    with run_folder(settings(*resume)), refused, run_folder(settings(*resume)):
        pass
    with run_folder(settings(*resume)):
        pass


def test_the_folder_of_a_process_that_died_is_free(tmp_path):
    pid = os.fork()
    if pid == 0:
        with run_folder(settings(f"--output_dir={tmp_path}")):
            os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "config.json").exists()
    # Nothing was done in it, so that it can be had with other settings too.
    other = run_folder(settings(f"--output_dir={tmp_path}", "--learning_rate=0.5"))
    with pytest.raises(ZeroDivisionError), other:
        assert json.loads((tmp_path / "config.json").read_text())["config"]["learning_rate"] == 0.5
        raise ZeroDivisionError
    # As it can after an error; or be gone on with, from the beginning.
    with run_folder(settings(f"--output_dir={tmp_path}", "--learning_rate=0.5", "--resume")) as checkpoint:
        assert checkpoint is None


def test_a_folder_with_a_run_is_left_alone(tmp_path):
    with run_folder(settings(f"--output_dir={tmp_path}")):
        used(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    other = run_folder(settings(f"--output_dir={tmp_path}", "--seed=9"))
    with pytest.raises(SystemExit, match="holds a run already"), other:
        pass
    assert (tmp_path / "config.json").read_bytes() == before


def test_the_folder_of_a_model_is_left_alone(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(SystemExit, match=r"holds something else than a run, such as a model\. Name another"):
        run_folder(settings(f"--output_dir={tmp_path}")).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    monkeypatch.chdir(tmp_path)
    taken = Path("runs/key_door-steppo-seed3")
    taken.mkdir(parents=True)
    (taken / "config.json").write_text("[]")
    with run_folder(own := settings("--seed=3")):
        assert own.config.output_dir == "runs/key_door-steppo-seed3-2"


@pytest.mark.parametrize("place", ["file", "dangling", "/proc/none/run"])
def test_a_folder_that_cannot_be_made_is_one_line(place, tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere" / "run")
    with pytest.raises(SystemExit, match=r"--output_dir: .* cannot be written in \(.*\)\. Name another"):
        run_folder(settings(f"--output_dir={tmp_path / place}")).__enter__()


@pytest.mark.parametrize("text", ["null", "[1]", "{}", '{"config": {}}', '{"config"'])
def test_a_damaged_record_of_settings_is_one_line(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(SystemExit, match=r"config\.json is damaged\. Start anew"):
        run_folder(settings(f"--output_dir={tmp_path}", "--resume")).__enter__()


@pytest.mark.parametrize(
    ("rule", "flags", "said"),
    [
        (StepPO, ["--learning_rate=0.25"], ["learning_rate: 0.0005 then, 0.25 now"]),
        (StepPO, ["--gamma=0.5"], ["gamma: 0.99 then, 0.5 now"]),
        (StepPO, ["--critic_learning_rate=0.5"], ["critic_learning_rate: 0.002 then, 0.5 now"]),
        (StepPO, ["--protocol=verl-agent"], ["protocol: None then, 'verl-agent' now"]),
        (StepPO, ["--seed=1"], ["seed: 42 then, 1 now"]),
        (StepPO, ["--use_peft"], ["use_peft: False then, True now"]),
        (StepPO, ["--iterations=7"], ["iterations: 8 then, 7 now"]),
        (StepPO, ["--test_tasks=1"], ["test_tasks: 100 then, 1 now"]),
        (RLOO, ["--num_generations=2"], ["algorithm: 'StepPO' then, 'RLOO' now", "num_generations: 1 then, 2 now"]),
    ],
)  # fmt: skip
def test_a_run_is_gone_on_with_under_its_own_settings(rule, flags, said, tmp_path, capsys):
    with run_folder(settings(f"--output_dir={tmp_path}")):
        used(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    with (
        pytest.raises(SystemExit) as ended,
        run_folder(settings(f"--output_dir={tmp_path}", "--resume", *flags, rule=rule)),
    ):
        pass
    assert ended.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"--resume: the run in {tmp_path} has other settings. Give it its own, or start anew."
    assert {f"  {line}" for line in said} <= set(lines[1:])
    if rule is StepPO:
        assert len(lines) == 1 + len(said)
    assert (tmp_path / "config.json").read_bytes() == before


def test_what_has_changed_under_a_run_is_named(tmp_path, capsys):
    model, data, folder = tmp_path / "model", tmp_path / "data.jsonl", tmp_path / "run"
    model.mkdir()
    (model / "config.json").write_text("{}")

    def marked(*flags, weights=b"1", question="Who?"):
        (model / "model.safetensors").write_bytes(weights)
        row = {"_id": "a", "question": question, "answer": "x", "context": [["Title", ["Text."]]]}
        data.write_text(json.dumps(row) + "\n")
        one_file = settings("--env=hotpotqa", f"--data={data}", "--test_tasks=0", "--validation_tasks=0")
        marks = {"tasks": open_environments(one_file).mark, "model": files_mark(str(model))}
        return replace(settings(f"--output_dir={folder}", *flags), marks=marks)

    with run_folder(marked()):
        used(folder)
    with run_folder(marked("--resume")):
        pass
    for changed, name in (({"weights": b"2"}, "model"), ({"question": "What?"}, "tasks")):
        with pytest.raises(SystemExit), run_folder(marked("--resume", **changed)):
            pass
        assert re.search(rf"\n  {name}: '\w+' then, '\w+' now\n$", capsys.readouterr().err)
    assert files_mark("Qwen/Qwen3-1.7B") == ""
    # Runs of earlier versions have no marks.
    assert differences({}, {"marks": {"model": "1"}}) == []


def test_a_run_does_not_go_on_with_another_tokenizer(tokenizer, tmp_path, monkeypatch):
    """What the environment says may have changed since: its default policy is made again then."""
    given, checkpoint = settings(), tmp_path / "checkpoint-2"
    tokenizer.save_pretrained(checkpoint)
    require_tokenizer_of(checkpoint, tokenizer)
    other = train_tokenizer(["Another text. "] * 9, vocab_size=270)
    monkeypatch.setattr("steppo_gym.trainers.run.launch.starting_policy", lambda _: ("", other))
    nothing: Any = None
    with pytest.raises(CheckpointError, match="checkpoint-2 is of another tokenizer than the one that was made now"):
        _build_trainer(given, nothing, nothing, nothing, checkpoint)


def test_a_checkpoint_is_no_folder_to_go_on_in(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(
        SystemExit, match=f"--resume: {tmp_path} holds a model, such as a checkpoint of a run, and no run"
    ):
        run_folder(settings(f"--output_dir={tmp_path}", "--resume")).__enter__()


def test_what_changes_no_number_may_differ_and_iterations_may_grow(tmp_path):
    own = tmp_path / "own"
    with run_folder(settings(f"--output_dir={own}", "--iterations=2")):
        used(own)
    moved = own.rename(tmp_path / "moved")
    flags = (f"--output_dir={moved}", "--resume", "--save_every=1", "--num_env_workers=5", "--num_slots=3")
    with run_folder(settings(*flags, "--iterations=4")):
        config = json.loads((moved / "config.json").read_text())["config"]
        assert (config["iterations"], config["max_steps"]) == (4, 32)
        assert config["num_env_workers"] == 2, "settings that held for the first half are kept"
    with pytest.raises(SystemExit), run_folder(settings(*flags, "--iterations=3")):
        pass


def test_a_run_is_gone_on_with_by_another_number_of_processes(tmp_path, capsys):
    with run_folder(settings(f"--output_dir={tmp_path}")):
        used(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    # 128 episodes for each of 8 updates are 16 for one process and 4 for each of four.
    assert config["config"]["per_device_train_batch_size"] == 16
    config["config"]["per_device_train_batch_size"] = 4
    (tmp_path / "config.json").write_text(json.dumps(config))
    with run_folder(settings(f"--output_dir={tmp_path}", "--resume")):
        said = capsys.readouterr().err
    assert "--resume: 1 process now, 4 then. Other episodes are played from here on than there would have been." in said


def test_the_scores_of_a_run_are_not_those_of_a_longer_one(tmp_path):
    with run_folder(settings(f"--output_dir={tmp_path}", "--iterations=2")):
        used(tmp_path)
    written = begin_checkpoint(tmp_path) / "checkpoint-16"
    written.mkdir()
    (written / "trainer_state.json").write_text("{}")
    complete_checkpoint(written.parent)
    (tmp_path / "evaluation_before.json").write_text('{"greedy": {}}')
    for iterations, kept in ((2, True), (4, False)):
        (tmp_path / "summary.json").write_text("{}")
        with run_folder(settings(f"--output_dir={tmp_path}", "--resume", f"--iterations={iterations}")) as checkpoint:
            assert checkpoint == tmp_path / "checkpoint-16"
            assert (tmp_path / "summary.json").exists() == kept


@pytest.mark.parametrize("schedule", [["linear"], ["constant_with_warmup", "--warmup_steps=0.1"]])
def test_iterations_may_not_grow_under_a_schedule_that_depends_on_them(schedule, tmp_path):
    flags = (f"--output_dir={tmp_path}", "--lr_scheduler_type", *schedule)
    with run_folder(settings(*flags, "--iterations=2")):
        used(tmp_path)
    with pytest.raises(SystemExit) as ended, run_folder(settings(*flags, "--iterations=4", "--resume")):
        pass
    assert ended.value.code == 2


def test_a_setting_that_the_run_did_not_have_is_named():
    now = {"algorithm": "GRPO", "run": {}, "config": {"new": 1}, "rule": {}, "critic": None, "model": {}, "preset": {}}
    assert differences(now | {"config": {}}, now) == ["new: None then, 1 now"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not ended."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    status, said = run(folder)
    assert status == 0, said
    return folder


@pytest.mark.parametrize(
    ("moment", "ending"),
    [
        ("checkpoint: critic", "SIGKILL"),
        ("second rollout", "SIGTERM"),
        ("checkpoint: optimizer and schedule", "full disk"),
        ("evaluation in training", "SIGINT"),
        ("first update", "SIGHUP"),
    ],
)
def test_a_run_that_was_ended_goes_on_as_if_it_had_not_been(moment, ending, whole):
    folder = whole.parent / re.sub(r"\W", "-", f"{moment} {ending}")
    cell = killed_and_resumed(folder, whole, moment, ending)
    assert moment in MOMENTS
    assert (cell["status"], cell["resumed_status"], cell["traceback"]) == (STATUS[ending], 0, False), cell
    assert cell["differs_in"] == "", cell
    if ending in ("SIGTERM", "SIGINT"):
        assert cell["last_words"].startswith(f"Ended by {ending}. Go on with: python ")
        assert cell["last_words"].endswith(" --resume")
    assert difference(folder, whole) == ""


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (
            "checkpoint-4/optimizer.pt",
            None,
            "checkpoint-4 cannot be read: UnpicklingError: .*--resume goes on from",
        ),
        ("checkpoint-4/critic.safetensors", None, "checkpoint-4/critic.safetensors cannot be read: SafetensorError"),
        (
            "checkpoint-4/rng_state.pth",
            None,
            "checkpoint-4/rng_state.pth cannot be read: UnpicklingError: .* remove checkpoint-4: --resume goes on from",
        ),
        ("metrics.jsonl", "{bad}\n", "metrics.jsonl, line 1: this is no JSON .* Remove the line"),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl, line 1: this is no entry of a run's metrics"),
        ("evaluation_before.json", '{"greedy"', "evaluation_before.json is missing or damaged. Start anew"),
    ],
)
def test_what_is_damaged_in_a_run_is_named(file, text, said, whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    path = folder / file
    path.write_text("x" * path.stat().st_size if text is None else text)
    status, printed = run(folder, "--resume", iterations=3)
    assert status == 1 and "Traceback" not in printed
    assert re.search(said, printed.strip().splitlines()[-1]), printed


def test_a_run_without_the_state_of_its_optimizer_is_not_gone_on_with(tmp_path):
    with run_folder(settings(f"--output_dir={tmp_path}", "--save_only_model")):
        used(tmp_path)
    with pytest.raises(SystemExit, match="--save_only_model keeps no state of the optimizer"):
        run_folder(settings(f"--output_dir={tmp_path}", "--save_only_model", "--resume")).__enter__()


def test_a_half_written_newest_checkpoint_is_passed_over(whole, tmp_path):
    folder = tmp_path / "run"
    status, said = run(folder, save_total_limit=2)
    assert status == 0, said
    (folder / "summary.json").unlink()
    (folder / "checkpoint-4" / "critic.safetensors").unlink()
    status, said = run(folder, "--resume", save_total_limit=2)
    assert status == 0
    assert "checkpoint-4 is passed over: critic.safetensors is missing." in said
    assert f"resuming from {folder / 'checkpoint-2'}" in said
    assert difference(folder, whole) == ""


def test_a_model_that_a_full_disk_does_not_take_is_one_line():
    said = "Error while serializing: I/O error: No space left on device (os error 28)"
    with pytest.raises(SystemExit, match=re.escape(said)), ending_in_one_line(Interruption(updates_in_iteration=4)):
        raise SafetensorError(said)


def test_the_end_of_a_run_does_nothing_to_the_terminal():
    with pytest.raises(SystemExit) as ended, ending_in_one_line(Interruption(updates_in_iteration=4)):
        raise DataError("row 3 says \x1b[2J")
    assert ended.value.code == "The run has ended: row 3 says  [2J"


def test_who_ends_a_run_in_training_is_told_what_happens(capfd):
    interruption = Interruption(updates_in_iteration=4)
    with interruption.listening(), interruption.training():
        os.kill(os.getpid(), signal.SIGINT)
    assert interruption.received == signal.SIGINT
    assert capfd.readouterr().err.strip() == WAITING.strip()
