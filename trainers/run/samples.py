"""Some episodes of every iteration as text, where the metrics go: TensorBoard, trackio and wandb.

Numbers say that success falls; what the policy writes says why. Texts are the policy's: in TensorBoard they stand in a
block of code that nothing in them can end, in the tables of the others they are cells.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, Trainer, TrainerCallback, TrainerState
from transformers.integrations.integration_utils import TensorBoardCallback

from steppo_gym.rollouts.episode import Episode, read_episodes

NUM_SAMPLES = 3
"""Episodes of an iteration."""
MAX_CHARACTERS = 20_000
"""Of an episode; what is over is cut, and said to be."""
COLUMNS = ("iteration", "task", "ended", "success", "return", "text")
NAME = "episodes/samples"
TABLES = ("wandb", "trackio")
"""Packages with `log` and `Table`, by the name that `report_to` has for them."""


def report_samples(trainer: Trainer, tokenizer: PreTrainedTokenizerBase) -> None:
    """Let a run's reporters have samples, if any of them takes text."""
    known: Sequence[TrainerCallback] = trainer.callback_handler.callbacks
    tensorboard = next((callback for callback in known if isinstance(callback, TensorBoardCallback)), None)
    if tensorboard is not None or set(TABLES) & set(trainer.args.report_to or ()):
        folder, updates = Path(str(trainer.args.output_dir)), int(trainer.args.updates_in_iteration)  # type: ignore[attr-defined]
        trainer.add_callback(SampleReporter(folder, updates, tokenizer, tensorboard))


class SampleReporter(TrainerCallback):
    """Sends the first episodes of each iteration, whose tasks were drawn at random, to the reporters of a run.

    Args:
        folder: of the run, where the iteration's episodes are; without them nothing is sent.
        updates_in_iteration: optimizer steps of one iteration.
        tokenizer: of the policy.
        tensorboard: the run's own reporter, if there is one.
    """

    def __init__(
        self,
        folder: Path,
        updates_in_iteration: int,
        tokenizer: PreTrainedTokenizerBase,
        tensorboard: TensorBoardCallback | None,
    ) -> None:
        self.folder, self.updates_in_iteration = folder, updates_in_iteration
        self.tokenizer, self.tensorboard = tokenizer, tensorboard

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """After the last update of an iteration."""
        if not state.is_world_process_zero or state.global_step % self.updates_in_iteration:
            return
        iteration = state.global_step // self.updates_in_iteration
        found = sorted((self.folder / "episodes").glob(f"iteration-{iteration:04d}*.jsonl"))
        if not found:
            return
        episodes = list(islice(read_episodes(found[0]), NUM_SAMPLES))
        rows = [sample_row(episode, iteration, self.tokenizer) for episode in episodes]
        if self.tensorboard is not None and self.tensorboard.tb_writer is not None:
            for place, row in enumerate(rows):
                self.tensorboard.tb_writer.add_text(f"{NAME}/{place}", as_markdown(row), state.global_step)
        for name in TABLES:
            if name in (args.report_to or ()):
                package = importlib.import_module(name)
                package.log({NAME: package.Table(columns=list(COLUMNS), data=[list(row) for row in rows])})


def sample_row(
    episode: Episode, iteration: int, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, str, str, bool, float, str]:
    """An episode as `COLUMNS`."""
    text = transcript(episode, tokenizer)
    return iteration, episode.task_id, episode.ended, episode.success, episode.total_reward, text


def transcript(episode: Episode, tokenizer: PreTrainedTokenizerBase) -> str:
    """What was new in each prompt, and each response with its reward; of a failed episode what became of it."""
    parts, before = [], ()
    for number, step in enumerate(episode.steps, 1):
        grown = step.prompt_ids[: len(before)] == before
        shown = step.prompt_ids[len(before) :] if grown else step.prompt_ids
        parts += [str(tokenizer.decode(list(shown))), f"--- step {number}, reward {step.reward:g}", step.response]
        before = step.prompt_ids + step.response_ids
    if episode.failure is not None:
        parts.append(f"--- failed: {episode.failure.boundary}: {episode.failure.message}")
    text = "\n".join(parts)
    cut = len(text) - MAX_CHARACTERS
    return text if cut <= 0 else f"{text[:MAX_CHARACTERS]}\n--- {cut} more characters"


def as_markdown(row: tuple[int, str, str, bool, float, str]) -> str:
    """A row as a heading, and its text as an indented block of code: no line of it can end that."""
    _, task, ended, success, total, text = row
    heading = re.sub(r"([^\w .-])", r"\\\1", " ".join(task.split()))
    lines = "\n".join(f"    {line}" for line in text.splitlines())
    return f"{heading}: {ended}, success {success}, return {total:g}\n\n{lines}"
