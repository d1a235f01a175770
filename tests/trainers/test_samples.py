"""Sample episodes in TensorBoard, wandb and trackio, by the packages themselves."""

from __future__ import annotations

import importlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import TrainerState
from transformers.integrations.integration_utils import TensorBoardCallback

from steppo_gym.rollouts.episode import Episode, Failure, Step, write_episodes
from steppo_gym.trainers.run.console import settle_callbacks
from steppo_gym.trainers.run.report import curve_title
from steppo_gym.trainers.run.samples import (
    COLUMNS,
    MAX_CHARACTERS,
    NAME,
    SampleReporter,
    as_markdown,
    report_samples,
    transcript,
)

pytestmark = pytest.mark.filterwarnings("ignore")
HOSTILE = "</pre><script>alert(1)</script>\n```\n# heading\r\n    ````"


def episode(tokenizer, *responses, **changes):
    steps, prompt = [], tuple(tokenizer("Goal: open the red door.")["input_ids"])
    for response in responses:
        ids = tuple(tokenizer(response)["input_ids"])
        steps.append(Step(prompt, ids, None, response, 0.5, "state"))
        prompt = (*prompt, *ids, *tokenizer(" You see a note.")["input_ids"])
    return replace(Episode("train-1", tuple(steps), "terminated", success=True), **changes)


@pytest.fixture
def run(tmp_path, tokenizer):
    """A reporter of a run of two updates an iteration, after its first iteration."""
    played = [episode(tokenizer, "<action>read note</action>", HOSTILE), episode(tokenizer, "<action>look</action>")]
    failed = replace(played[0], ended="failed", success=False, failure=Failure("worker", "it died"))
    write_episodes(tmp_path / "episodes" / "iteration-0001.jsonl", [*played, failed, *played])

    def report(tensorboard=None, report_to=()):
        reporter = SampleReporter(tmp_path, 2, tokenizer, tensorboard)
        args = SimpleNamespace(report_to=list(report_to))
        for update in (1, 2, 3, 4):
            state = TrainerState(global_step=update, is_world_process_zero=True)
            reporter.on_step_end(args, state, None)
        other = TrainerState(global_step=2, is_world_process_zero=False)
        reporter.on_step_end(args, other, None)

    return report


def test_tensorboard_has_the_text_of_three_episodes_once(run, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "tensorboard") as writer:
        run(TensorBoardCallback(writer))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    tags = events.Tags()["tensors"]
    assert sorted(tags) == [f"{NAME}/{place}/text_summary" for place in range(3)]
    for tag in tags:
        (shown,) = events.Tensors(tag)
        assert shown.step == 2
    text = events.Tensors(f"{NAME}/0/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text.startswith("train-1: terminated, success True, return 1\n\n")
    assert "    --- step 1, reward 0.5\n    <action>read note</action>" in text
    assert "failed: worker: it died" in events.Tensors(f"{NAME}/2/text_summary")[0].tensor_proto.string_val[0].decode()


def test_no_line_of_a_hostile_text_leaves_the_block_of_code(tokenizer):
    _, _, body = as_markdown((1, "a <b>", "terminated", True, 1.0, HOSTILE)).partition("\n\n")
    assert all(line.startswith("    ") for line in body.splitlines())
    assert "\\<b\\>" in as_markdown((1, "a <b>", "terminated", True, 1.0, HOSTILE)).splitlines()[0]


def test_each_prompt_shows_what_is_new_in_it(tokenizer):
    text = transcript(episode(tokenizer, "<action>read note</action>", "<action>look</action>"), tokenizer)
    assert text.count("Goal: open the red door.") == 1
    assert text.count("You see a note.") == 1


def test_a_long_episode_is_cut_and_says_so(tokenizer):
    text = transcript(episode(tokenizer, "x" * (MAX_CHARACTERS + 50)), tokenizer)
    assert len(text) < MAX_CHARACTERS + 40 and text.endswith("more characters")


def test_a_run_without_episodes_on_disk_reports_none(tmp_path, tokenizer):
    state = TrainerState(global_step=2, is_world_process_zero=True)
    SampleReporter(tmp_path, 2, tokenizer, None).on_step_end(SimpleNamespace(report_to=["wandb"]), state, None)


def test_wandb_has_a_table(run, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    with wandb.init(mode="offline", dir=tmp_path, project="test") as kept:
        run(report_to=["wandb"])
        folder = kept.dir
    (table,) = (tmp_path / "wandb").rglob("media/table/episodes/*.json")
    read = json.loads(table.read_text())
    assert folder and tuple(read["columns"]) == COLUMNS
    assert [row[1:5] for row in read["data"]][::2] == [
        ["train-1", "terminated", True, 1.0],
        ["train-1", "failed", False, 1.0],
    ]


def test_trackio_has_a_table(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    trackio = pytest.importorskip("trackio", reason="trackio is not installed")
    importlib.reload(trackio)
    trackio.init(project="test", name="run", embed=False)
    run(report_to=["trackio"])
    trackio.finish()
    from trackio.sqlite_storage import SQLiteStorage

    logged = [entry for entry in SQLiteStorage.get_logs("test", "run") if NAME in entry]
    assert len(logged) == 1
    assert "<action>read note</action>" in json.dumps(logged[0])


def test_a_run_has_samples_where_its_metrics_go_and_a_curve_of_its_task(make_trainer):
    trainer = make_trainer(report_to="none", episodes_per_iteration=4)
    report_samples(trainer, trainer.processing_class)
    assert not any(isinstance(c, SampleReporter) for c in trainer.callback_handler.callbacks)
    trainer = make_trainer(report_to="tensorboard", episodes_per_iteration=4)
    report_samples(trainer, trainer.processing_class)
    settle_callbacks(trainer, Path(trainer.args.output_dir))
    trainer.train()
    events = EventAccumulator(str(Path(trainer.args.output_dir, "tensorboard"))).Reload()
    assert sum(tag.startswith(NAME) for tag in events.Tags()["tensors"]) == 3


def test_the_title_of_a_curve_names_the_task(tmp_path):
    assert curve_title(tmp_path) == tmp_path.name
    (tmp_path / "config.json").write_text(json.dumps({"preset": {"env_id": "steppo/KeyDoor-v0"}}))
    assert curve_title(tmp_path) == f"steppo/KeyDoor-v0: {tmp_path.name}"
