"""What a run shows in the terminal: a progress bar over all episodes and one line per iteration."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import transformers
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState
from transformers.integrations.integration_utils import TensorBoardCallback

from steppo_gym.evaluation.scores import evaluated_splits
from steppo_gym.rollouts.episode import Episode


class Console(TrainerCallback):
    """A live bar and readable lines instead of printed dictionaries.

    Args:
        iterations: of the run.
        episodes_per_iteration: of this process.
        updates_in_iteration: optimizer steps of one iteration.
        visible: False on all processes but the first.
        bars: False for lines alone.
    """

    def __init__(
        self,
        iterations: int,
        episodes_per_iteration: int,
        updates_in_iteration: int,
        visible: bool = True,
        bars: bool = True,
    ) -> None:
        self.iterations, self.updates_in_iteration = iterations, updates_in_iteration
        self.visible, self.bars = visible, bars
        self.episodes_per_iteration = episodes_per_iteration
        self._bar: tqdm[Any] | None = None

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self.visible:
            tqdm.write(text)

    def count(self, total: int, what: str) -> None:
        """Start a new bar of `total` episodes."""
        self.finish()
        self._bar = tqdm(
            total=total,
            desc=what,
            unit="episode",
            disable=None if self.visible and self.bars else True,
            leave=False,
            dynamic_ncols=True,
        )

    def on_episode(self, episode: Episode) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update()

    def finish(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def on_step_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Start the bar of an iteration's rollouts with its first update."""
        if state.global_step % self.updates_in_iteration == 0:
            number = state.global_step // self.updates_in_iteration + 1
            self.count(self.episodes_per_iteration, f"iteration {number}/{self.iterations}")

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        """Print the iteration that has ended, or the scores of an evaluation."""
        logs = logs or {}
        if logs.get("success") is not None:
            self.finish()
            self.say(iteration_line(logs, state.global_step, self.iterations, self.updates_in_iteration))
        scores = {split: logs[f"eval_{split}_success"] for split in evaluated_splits(logs)}
        if scores:
            self.finish()
            said = "  ".join(f"{split.replace('_', ' ')} {100 * value:.0f} %" for split, value in scores.items())
            self.say(f"      greedy on held-out tasks: {said}")


def iteration_line(logs: dict[str, Any], update: int, iterations: int, updates_in_iteration: int) -> str:
    """One iteration in one line."""
    number = update // updates_in_iteration
    shown = [
        f"iteration {number:>{len(str(iterations))}}/{iterations}",
        f"success {100 * logs['success']:5.1f} %",
        f"return {logs['return']:6.3f}",
        f"steps {logs['episode_steps']:4.1f}",
        f"invalid {100 * logs['invalid_rate']:4.1f} %",
        f"entropy {logs['entropy']:.2f}",
        f"clipped {100 * logs['clip_fraction']:4.1f} %",
    ]
    if logs.get("explained_variance") is not None:
        shown.append(f"critic {logs['explained_variance']:5.2f}")
    if logs["failed_rate"]:
        shown.append(f"failed {100 * logs['failed_rate']:.1f} %")
    shown.append(f"{logs['rollout_seconds']:.1f} + {logs['update_seconds'] * updates_in_iteration:.1f} s")
    return "  ".join(shown)


def settle_callbacks(trainer: Trainer, folder: Path) -> None:
    """Only our own lines in the terminal, and TensorBoard's files in the run's folder."""
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            # It learns the folder when training begins; what is evaluated before would go to the working directory.
            callback.logging_dir = callback.logging_dir or str(folder / "tensorboard")


def quiet_libraries() -> None:
    """The run's own lines and bars say what matters; warnings of libraries about their other uses do not.

    What transformers reports of weights that are missing, and random then, or do not fit is heard.
    """
    transformers.utils.logging.set_verbosity_error()
    logging.getLogger("transformers.modeling_utils").setLevel(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("trl").setLevel(logging.ERROR)
