"""The folder of a run: which one it is, who works in it, and under which settings."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from filelock import FileLock, Timeout

from steppo_gym.storage.json_lines import LOCK_FILE, write_whole
from steppo_gym.trainers.checkpoints import newest_complete
from steppo_gym.trainers.run.arguments import script_name
from steppo_gym.trainers.run.report import BEFORE_FILE, METRICS_FILE, SUMMARY_FILE
from steppo_gym.trainers.run.settings import RunSettings
from steppo_gym.trainers.without_effect import WITHOUT_EFFECT

CONFIG_FILE = "config.json"

COMPARED = ("algorithm", "run", "config", "rule", "critic", "model", "preset", "start", "marks")
"""Parts of `config.json` that a resumed run must have in common with what it goes on with."""

COMPUTED = ("max_steps", "eval_steps", "per_device_train_batch_size")
"""These follow from others, the last one from the number of processes too."""

OF_ITERATIONS = ("iterations", "max_steps")
"""May grow where the learning rate does not depend on them."""


@contextlib.contextmanager
def run_folder(settings: RunSettings) -> Iterator[Path | None]:
    """Settle the run's folder, keep everybody else out of it, and give the checkpoint to go on from, if any.

    The folder's name is in `settings.config.output_dir` from then on. A folder that a run has died in is free again: it
    can be gone on with, or used anew if nothing but its settings is there.

    Raises:
        SystemExit: the folder holds a run, or another process works in it; 2 if the settings are not those it has.
    """
    config = settings.config
    with contextlib.ExitStack() as stack:
        chosen: list[Any] = [None]
        if config.process_index == 0:
            folder = _resumed(settings, stack) if settings.run.resume else _claimed(settings, stack)
            checkpoint = _checkpoint(folder) if settings.run.resume else None
            chosen = [(folder, checkpoint)]
        if config.world_size > 1:
            broadcast_object_list(chosen, from_process=0)
        folder, checkpoint = chosen[0]
        config.output_dir = str(folder)
        if config.process_index == 0 and not settings.run.resume:
            write_whole(folder / CONFIG_FILE, json.dumps(_record(settings), indent=2))
        yield checkpoint


def named_folder(settings: RunSettings) -> tuple[Path, bool]:
    """The folder by its name, and whether that was given."""
    config = settings.config
    if config.output_dir not in (None, "trainer_output"):
        return Path(str(config.output_dir)), True
    name = f"{_file_name(settings.run.env)}-{script_name(settings.rule.title())}-seed{config.seed}"
    return Path("runs", name), False


def command_to_go_on(settings: RunSettings, given: Sequence[str], first: Path) -> str:
    """The same command with `--resume`; the folder is named where the `first` name, by these arguments, was taken."""
    folder = Path(str(settings.config.output_dir))
    named = [] if folder == first else ["--output_dir", str(folder)]
    return shlex.join(["python", sys.argv[0], *given, *named, *([] if settings.run.resume else ["--resume"])])


def _claimed(settings: RunSettings, stack: contextlib.ExitStack) -> Path:
    """A folder without a run, locked: the one that was named, or the first of its name that is free."""
    folder, given = named_folder(settings)
    for number in itertools.count(1):
        candidate = folder if number == 1 else Path(f"{folder}-{number}")
        if _holds_something_else(candidate):
            if given:
                sys.exit(f"{folder} holds something else than a run, such as a model. Name another --output_dir.")
            continue
        lock = _lock(candidate)
        if lock is not None and not _holds_a_run(candidate):
            stack.callback(lock.release)
            return candidate
        if lock is not None:
            lock.release()
        if given and lock is None:
            sys.exit(f"Another process works in {folder}. Wait for it, or name another --output_dir.")
        if given:
            sys.exit(f"{folder} holds a run already. Continue it with --resume, or name another --output_dir.")
    raise AssertionError


def _resumed(settings: RunSettings, stack: contextlib.ExitStack) -> Path:
    """The folder of a run to go on with, locked, its settings compared."""
    folder, _ = named_folder(settings)
    if not (folder / CONFIG_FILE).exists():
        sys.exit(f"--resume: no checkpoint in {folder}. Name the run's folder with --output_dir.")
    if "model_type" in _read_json(folder / CONFIG_FILE):
        sys.exit(f"--resume: {folder} holds a model, such as a checkpoint of a run, and no run. Name the run's folder.")
    lock = _lock(folder)
    if lock is None:
        sys.exit(f"--resume: another process works in {folder}. Wait for it, or stop it.")
    stack.callback(lock.release)
    settings.config.output_dir = str(folder)
    known = _read_json(folder / CONFIG_FILE)
    if not isinstance(known.get("config"), dict) or not isinstance(known["config"].get("iterations"), int):
        sys.exit(f"--resume: {folder / CONFIG_FILE} is damaged. Start anew in another --output_dir.")
    if settings.config.save_only_model:
        sys.exit("--resume: --save_only_model keeps no state of the optimizer, without which no run goes on as it was.")
    now = _record(settings)
    different = differences(known, now)
    if different:
        lines = "\n".join(f"  {line}" for line in different)
        said = f"--resume: the run in {folder} has other settings. Give it its own, or start anew."
        print(f"{said}\n{lines}", file=sys.stderr)
        sys.exit(2)
    then, here = _processes(known["config"]), _processes(now["config"])
    if then != here:
        counted = f"{here} process{'' if here == 1 else 'es'}"
        said = "Other episodes are played from here on than there would have been."
        print(f"--resume: {counted} now, {then} then. {said}", file=sys.stderr)
    grown = {name: now["config"][name] for name in OF_ITERATIONS if now["config"][name] != known["config"][name]}
    if grown:
        # Its scores are not those of a longer run.
        (folder / SUMMARY_FILE).unlink(missing_ok=True)
        known["config"] |= grown
        write_whole(folder / CONFIG_FILE, json.dumps(known, indent=2))
    return folder


def _processes(config: Mapping[str, Any]) -> int:
    """Whose shares make up the episodes of an iteration."""
    share = config["per_device_train_batch_size"] * config["steps_per_generation"]
    return config["episodes_per_iteration"] // share


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a file, an empty one if the file is not there or holds something else."""
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def differences(known: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What a resumed run would do otherwise than the run it goes on with, whose `config.json` is known; a line each."""
    found = []
    for part in COMPARED:
        old, new = known.get(part), now.get(part)
        if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
            old, new = {part: old}, {part: new}
        for name in sorted(old.keys() | new.keys()):
            was, is_now = old.get(name), new.get(name)
            if was == is_now or name in WITHOUT_EFFECT.get(part, ()):
                continue
            if part == "marks" and None in (was, is_now):
                continue  # of an earlier version
            if part == "config" and name in OF_ITERATIONS and _may_grow(known, now):
                continue
            if part != "config" or name not in COMPUTED:
                found.append(f"{name}: {was!r} then, {is_now!r} now")
    return found


def _may_grow(known: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    schedule = str(now["config"]["lr_scheduler_type"]).rpartition(".")[2].lower()
    # Below 1 it is a share of all updates.
    is_fixed = schedule.startswith("constant") and not 0 < now["config"]["warmup_steps"] < 1
    return is_fixed and now["config"]["iterations"] > known["config"]["iterations"]


def _checkpoint(folder: Path) -> Path | None:
    """The newest complete one; says which newer ones are none, and if there is none at all."""
    checkpoint, faults = newest_complete(folder)
    for name, reason in faults.items():
        print(f"{name} is passed over: {reason}.", file=sys.stderr)
    if checkpoint is not None and "greedy" not in _read_json(folder / BEFORE_FILE):
        # Without the scores before training there is no summary at its end.
        sys.exit(f"--resume: {folder / BEFORE_FILE} is missing or damaged. Start anew in another --output_dir.")
    if checkpoint is None:
        print(f"No complete checkpoint in {folder}: the run begins again.", file=sys.stderr)
        for name in (METRICS_FILE, BEFORE_FILE, SUMMARY_FILE):
            (folder / name).unlink(missing_ok=True)
    return checkpoint


def _holds_a_run(folder: Path) -> bool:
    """Whether something was done in it, apart from claiming it."""
    names = (METRICS_FILE, BEFORE_FILE, SUMMARY_FILE)
    return any((folder / name).exists() for name in names) or any(folder.glob("checkpoint-*"))


def _holds_something_else(folder: Path) -> bool:
    """Whether there is a `config.json` that no run has written, such as that of a model."""
    return (folder / CONFIG_FILE).exists() and "algorithm" not in _read_json(folder / CONFIG_FILE)


def _lock(folder: Path) -> FileLock | None:
    """The folder's lock, None if another process has it; it ends with the process that holds it."""
    lock = FileLock(folder / LOCK_FILE, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        sys.exit(f"--output_dir: {folder} cannot be written in ({error.strerror}). Name another.")
    return lock


def _file_name(env: str) -> str:
    """The name of a task without what separates folders: "module:mine/Env-v0" becomes "module-mine-Env-v0"."""
    return re.sub(r"[^\w.-]", "-", env)


def _record(settings: RunSettings) -> dict[str, Any]:
    """Every setting, as JSON reads it back."""
    start = settings.start
    record = {
        "algorithm": settings.rule.title(),
        "run": asdict(settings.run),
        "config": settings.config.to_dict(),
        "rule": asdict(settings.rule),
        "critic": None if settings.critic is None else asdict(settings.critic),
        "model": asdict(settings.model),
        "preset": asdict(settings.preset),
        "env_kwargs": dict(settings.env_kwargs),
        "start": None if start is None else {"name": start.name, "sha256": start.sha256},
        "marks": dict(settings.marks),
    }
    return json.loads(json.dumps(record, default=str))
