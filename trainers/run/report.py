"""What a run leaves behind: metrics as JSON lines, a learning curve, and a summary."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerState

from steppo_gym.errors import DataError
from steppo_gym.evaluation.scores import evaluated_splits
from steppo_gym.storage.json_lines import append_text, read_lines, write_whole

METRICS_FILE, CURVE_FILE, SUMMARY_FILE = "metrics.jsonl", "learning_curve.png", "summary.json"
BEFORE_FILE = "evaluation_before.json"
VERSIONS = ("steppo-gym", "torch", "transformers", "trl", "gymnasium", "textworld", "alfworld", "numpy")


class RunRecorder(TrainerCallback):
    """Writes every log entry to `metrics.jsonl` and redraws the learning curve.

    Args:
        folder: of the run.
        updates_in_iteration: optimizer steps of one iteration.
    """

    def __init__(self, folder: Path, updates_in_iteration: int) -> None:
        self.folder, self.updates_in_iteration = folder, updates_in_iteration

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Forget what was logged after the checkpoint the run goes on from."""
        if state.is_world_process_zero:
            forget_after(self.folder, state.global_step)

    def on_log(self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any) -> None:
        """Append one entry."""
        if not state.is_world_process_zero or not logs:
            return
        entry = {"update": state.global_step, "iteration": state.global_step / self.updates_in_iteration, **logs}
        self.folder.mkdir(parents=True, exist_ok=True)
        append_text(self.folder / METRICS_FILE, _line(entry))
        if any(name.startswith("eval_") for name in logs):
            draw_learning_curve(self.folder)


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """All entries of a `metrics.jsonl`, without a last one that was not written to its end; none if there is no file.

    Raises:
        DataError: a line is no entry; the message names it.
    """
    try:
        entries = read_lines(Path(path))
    except ValueError as error:
        raise DataError(str(error)) from error
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict) or "update" not in entry:
            raise DataError(f"{path}, line {number}: this is no entry of a run's metrics. Remove the line.")
    return entries


def tokens_written(entries: Sequence[Mapping[str, Any]]) -> float:
    """Response tokens of the rollouts in a run's entries, those of episodes that a rule had played on among them."""
    return sum(entry.get("generated_tokens", 0) + entry.get("branch_tokens", 0) for entry in entries)


def forget_after(folder: Path, update: int) -> None:
    """Drop what was logged after an update, and a last entry that was not written to its end."""
    path = folder / METRICS_FILE
    if path.exists():
        kept = [entry for entry in read_metrics(path) if entry["update"] <= update]
        write_whole(path, "".join(_line(entry) for entry in kept))


def was_evaluated(folder: Path, update: int) -> bool:
    """Whether scores of held-out tasks after an update were logged."""
    entries = read_metrics(folder / METRICS_FILE)
    return any(entry["update"] == update and any(name.startswith("eval_") for name in entry) for entry in entries)


def draw_learning_curve(folder: Path) -> None:
    """Draw success over iterations from `metrics.jsonl`: sampled in training, greedy on held-out tasks."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    entries = read_metrics(folder / METRICS_FILE)
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    training = [(entry["iteration"], entry["success"]) for entry in entries if entry.get("success") is not None]
    if training:
        axes.plot(*zip(*training, strict=True), color="0.6", label="training, sampled")
    for split in sorted({split for entry in entries for split in evaluated_splits(entry)}):
        name = f"eval_{split}_success"
        points = [(entry["iteration"], entry[name]) for entry in entries if name in entry]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{split.replace('_', ' ')}, greedy")
    axes.set(xlabel="iteration", ylabel="success", ylim=(-0.02, 1.02), title=curve_title(folder))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(frameon=False)
    figure.savefig(folder / CURVE_FILE, dpi=150)


def curve_title(folder: Path) -> str:
    """The environment of the run and its folder's name."""
    config = folder / "config.json"
    known = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    env_id = known.get("preset", {}).get("env_id", "")
    return ": ".join(filter(None, [env_id, folder.name]))


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write `summary.json` with versions and hardware added; last, so that its presence says the run is complete."""
    hardware = {
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
    }
    versions = {"python": platform.python_version()} | {name: version(name) for name in VERSIONS}
    record = {**summary, "hardware": hardware, "versions": versions}
    write_whole(folder / SUMMARY_FILE, json.dumps(record, indent=2) + "\n")


def _line(entry: Mapping[str, Any]) -> str:
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in entry.items()
    }
    return json.dumps(plain) + "\n"
