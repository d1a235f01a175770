"""Checkpoints that are complete or not there.

A checkpoint is written in the folder `unfinished`, brought to the disk, marked with the names and sizes of its files
(`complete.json`), and only then moved beside the others; older ones are removed last. So whatever stops a run, at
whatever file, the checkpoint before is still there, and a folder without a mark, or with a file that does not have the
size in the mark, is none.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from accelerate import Accelerator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import TrainerState, TrainingArguments

from steppo_gym.errors import CheckpointError, SteppoGymError
from steppo_gym.trainers.policy.critic import Critic
from steppo_gym.trainers.reading import in_one_line

UNFINISHED, MARK = "unfinished", "complete.json"
CRITIC_FILE, REFERENCE_FILE = "critic.safetensors", "reference.safetensors"
STATE_FILE = "trainer_state.json"


@contextlib.contextmanager
def writing_checkpoint(
    folder: Path, accelerator: Accelerator, args: TrainingArguments, state: TrainerState
) -> Iterator[Path]:
    """All processes write `checkpoint-<update>` into the folder this gives; at the end it becomes one of the run's.

    Raises:
        CheckpointError: it could not be written; the run's checkpoints are as they were.
    """
    unfinished, name = folder / UNFINISHED, f"checkpoint-{state.global_step}"
    try:
        if args.should_save:
            begin_checkpoint(folder)
        accelerator.wait_for_everyone()
        yield unfinished
        accelerator.wait_for_everyone()
        if args.should_save:
            best = f"checkpoint-{state.best_global_step}" if state.best_global_step else None
            if best:
                # Transformers looks for it where this one is being written.
                state.best_model_checkpoint = str(folder / best)
                state.save_to_json(str(unfinished / name / STATE_FILE))
            complete_checkpoint(unfinished, args.save_total_limit, best)
        accelerator.wait_for_everyone()
    except (OSError, RuntimeError, SafetensorError) as error:
        # Serializers say in their own words, some over many lines, that a disk is full.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        newest, _ = newest_complete(folder)
        left = "There is none before it" if newest is None else f"The newest complete one is {newest.name}"
        free = shutil.disk_usage(folder).free // 2**20
        raise CheckpointError(
            f"{name} could not be written in {folder}, with {free} MB free: {reason}. {left}."
        ) from error


@contextlib.contextmanager
def reading_checkpoint(checkpoint: Path, file: str = "") -> Iterator[None]:
    """What is in a file of the right size may still be damaged.

    Args:
        checkpoint: its folder.
        file: in it, where one alone is read.

    Raises:
        CheckpointError: in place of what the readers of its files raise.
    """
    try:
        yield
    except (SteppoGymError, OSError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        # PyTorch's own text would have pickles from anywhere be trusted.
        own = "UnpicklingError: this is no file of PyTorch"
        said = own if isinstance(error, UnpicklingError) else in_one_line(error).rstrip(".")
        raise CheckpointError(
            f"{checkpoint / file} cannot be read: {said}. If damaged, remove {checkpoint.name}: --resume goes on from "
            "the one before."
        ) from error


def save_critic(critic: Critic, checkpoint: Path) -> None:
    """Write what the critic has learned into a checkpoint."""
    save_file(critic.trained_state(), checkpoint / CRITIC_FILE)


def load_critic(critic: Critic, checkpoint: Path) -> None:
    """Read what the critic had learned from a checkpoint."""
    critic.load_trained_state(load_file(checkpoint / CRITIC_FILE))


def has_other_names(model: Any, checkpoint: Path) -> bool:
    """Whether weights have other names in a checkpoint than in memory, as the experts of a mixture have."""
    index, single = checkpoint / "model.safetensors.index.json", checkpoint / "model.safetensors"
    if index.is_file():
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    elif single.is_file():
        with safe_open(single, "pt") as file:
            names = {*file.keys()}
    else:
        return False
    return not names <= model.state_dict().keys()


def load_renamed(model: Any, checkpoint: Path) -> None:
    """Read the weights of a checkpoint in which they have other names than in memory.

    Trainer of transformers reads by name and passes over what it does not find, so that such a model would go on with
    the weights it began with.

    Raises:
        CheckpointError: some weights are not there.
    """
    wide = any(parameter.dtype == torch.float32 for parameter in model.parameters())
    dtype = torch.float32 if wide else model.dtype
    saved, found = type(model).from_pretrained(checkpoint, dtype=dtype, output_loading_info=True)
    missing = sorted({*found["missing_keys"], *(entry[0] for entry in found["mismatched_keys"])})
    if missing:
        raise CheckpointError(
            f"{checkpoint} has no weights for {len(missing)} parts of the model, such as {missing[0]}."
        )
    model.load_state_dict(saved.state_dict())


def begin_checkpoint(folder: Path) -> Path:
    """The empty folder in which the next checkpoint of a run is written; what was left there is removed."""
    unfinished = folder / UNFINISHED
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    return unfinished


def complete_checkpoint(unfinished: Path, limit: int | None = None, keep: str | None = None) -> Path:
    """Mark the checkpoint that was written in `unfinished`, move it into the run's folder, and remove older ones.

    Args:
        unfinished: a folder with one checkpoint, `checkpoint-<update>`.
        limit: checkpoints to keep; None for all.
        keep: the name of one that is kept in any case.

    Returns:
        Where it lies.
    """
    (written,) = unfinished.glob("checkpoint-*")
    files = [path for path in written.rglob("*") if path.is_file()]
    sizes = {str(path.relative_to(written)): path.stat().st_size for path in sorted(files)}
    (written / MARK).write_text(json.dumps(sizes, indent=1) + "\n", encoding="utf-8")
    for path in (*files, written / MARK, *(path for path in written.rglob("*") if path.is_dir()), written):
        _to_disk(path)
    place = unfinished.parent / written.name
    if place.exists():
        # Of an earlier try at the same update. Renaming cannot replace a folder that is not empty.
        shutil.rmtree(place)
    written.rename(place)
    _to_disk(unfinished.parent)
    unfinished.rmdir()
    if limit:
        _remove_older(unfinished.parent, limit, {place.name, keep})
    return place


def fault(checkpoint: Path) -> str | None:
    """Why a folder is no complete checkpoint; None if it is one."""
    try:
        sizes = json.loads((checkpoint / MARK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it has no {MARK}"
    except ValueError:
        return f"its {MARK} is damaged"
    if not isinstance(sizes, Mapping) or STATE_FILE not in sizes:
        return f"its {MARK} is damaged"
    for name, size in sizes.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes instead of {size}"
    return None


def checkpoints(folder: Path) -> list[Path]:
    """What is called a checkpoint in a run's folder, complete or not, the newest first."""
    found = [path for path in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted((path for path in found if path.is_dir()), key=update_of, reverse=True)


def newest_complete(folder: Path) -> tuple[Path | None, dict[str, str]]:
    """The newest complete checkpoint of a run, None if there is none; and why each newer one is none, by name."""
    faults: dict[str, str] = {}
    for path in checkpoints(folder):
        reason = fault(path)
        if reason is None:
            return path, faults
        faults[path.name] = reason
    return None, faults


def update_of(checkpoint: Path) -> int:
    """After how many updates a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def _remove_older(folder: Path, limit: int, kept: set[str | None]) -> None:
    """Remove the oldest until `limit` complete ones are left; what is damaged goes too, and counts for nothing."""
    complete = []
    for path in checkpoints(folder):
        if path.name not in kept and fault(path) is not None:
            shutil.rmtree(path)
        else:
            complete.append(path)
    for path in [path for path in complete[limit:] if path.name not in kept]:
        # The mark goes first, so that what is left of an interrupted removal is no checkpoint.
        (path / MARK).unlink()
        shutil.rmtree(path)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
