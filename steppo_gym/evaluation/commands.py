"""What `steppo-gym evaluate` and `steppo-gym panel` do."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

from tqdm import tqdm

from steppo_gym.env_arguments import env_argument, placed
from steppo_gym.errors import DataError
from steppo_gym.evaluation.chat_codec import ROLES
from steppo_gym.evaluation.panels import (
    Panel,
    check_panel,
    make_panel,
    open_panel,
    read_panel,
    shipped_panels,
    write_panel,
)
from steppo_gym.evaluation.players import Player, open_player
from steppo_gym.evaluation.playing import Playing
from steppo_gym.evaluation.results import SUMMARY_FILE, print_results, results, settle_folder
from steppo_gym.quoting import terminal_text
from steppo_gym.registration import env_id_of, find_modules_here
from steppo_gym.rollouts.codec import byte_tokenizer
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import require_played
from steppo_gym.storage.json_lines import alone_in, write_whole


def evaluate(options: argparse.Namespace) -> int:
    """Play a panel, and say and write how it went."""
    _check(options)
    given = _given(options)
    saved = None
    if options.server is None:
        saved = resolve_name("steppo_gym.trainers.results.saved_policy:SavedPolicy").open(Path(options.model))
    panel, spec = _panel_and_env(options, given, saved)
    temperature = options.temperature if options.temperature is not None else float(options.tries > 1)
    slots = options.slots or (saved and saved.num_slots) or 16
    with (
        EnvPool(spec, num_slots=min(slots, options.tries * len(panel.tasks)), num_workers=options.workers) as pool,
        open_player(options, saved, pool, temperature) as player,
    ):
        settings = _settings(options, panel, spec, player, temperature)
        folder = options.out or _default_folder(panel, options, temperature)
        settle_folder(folder, settings)
        with alone_in(folder):
            playing = Playing(panel, tries=options.tries, file=folder / "episodes" / f"{_file_name(panel.name)}.jsonl")
            left, total = len(playing.missing), options.tries * len(panel.tasks)
            if left < total:
                print(f"Going on in {folder}: {left} of {total} episodes are left to play.", flush=True)
            episodes = playing.run(
                player.policy, pool, player.codec, max_prompt_tokens=player.max_prompt_tokens, show=not options.quiet
            )
    _keep_tokenizer(saved.folder if saved is not None else options.tokenizer, folder)
    require_played(episodes)
    summary = results(settings, episodes, tries=options.tries)
    write_whole(folder / SUMMARY_FILE, json.dumps(summary, indent=2) + "\n")
    print_results(summary)
    if cut := player.num_cut():
        print(
            f"  cut           {cut} responses at --max_tokens {player.max_tokens}; a model that thinks first needs more"
        )
    print(f"Episodes and summary are in {folder}. Look at them with: steppo-gym view {folder}")
    return 0


def make(options: argparse.Namespace) -> int:
    """Write the panel of a split."""
    if options.tasks is not None and options.tasks < 1:
        raise ValueError(f"--tasks must be at least 1, got {options.tasks}.")
    env_id = env_id_of(options.env)
    find_modules_here(env_id)
    spec = EnvFactory(env_id, {"split": options.split or "test", **_given(options)})
    with _bar(options.tasks, options.quiet) as bar, _asking_for_split(options):
        panel = make_panel(options.name or options.out.stem, spec, number=options.tasks, on_task=bar.update)
    write_panel(panel, options.out)
    print(f"{options.out}: {len(panel.tasks)} tasks of {env_id}, hash {panel.hash}.")
    return 0


def check(options: argparse.Namespace) -> int:
    """Print what is different in one's own data, a line for each difference; 1 if there is any."""
    panel = _asked_panel(options)
    spec = _panel_spec(panel, _given(options))
    problems = _differences(panel, spec, options.quiet)
    for problem in problems:
        print(terminal_text(problem))
    if not problems:
        print(f"{terminal_text(panel.name)}: {len(panel.tasks)} tasks, all as they should be; hash {panel.hash}.")
    return 1 if problems else 0


def list_panels(options: argparse.Namespace) -> int:
    """Print the panels of this package."""
    del options
    for name, path in shipped_panels().items():
        panel = read_panel(path)
        print(f"{name:40} {len(panel.tasks):5} tasks  {panel.source.data:8}  {panel.environment:27} {panel.hash[:12]}")
    return 0


def _check(options: argparse.Namespace) -> None:
    for name, least in {"tasks": 1, "tries": 1, "slots": 1, "max_tokens": 1, "workers": 0, "seed": 0}.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} must be at least {least}, got {value}.")
    if options.temperature is not None and not 0 <= options.temperature < math.inf:
        raise ValueError(f"--temperature must be 0 or a higher number, got {options.temperature}.")
    if options.panel is not None and options.split is not None:
        raise ValueError("--panel says what is played, and so does --split. Give one of them.")
    if options.tries > 1 and options.temperature == 0:
        raise ValueError("At temperature 0 all tries of a task are the same. Give a higher --temperature.")
    if options.server is None and (options.chat or options.tokenizer is not None):
        raise ValueError("--chat and --tokenizer are about a server. Give its address as --server.")
    if options.server is not None and options.chat == (options.tokenizer is not None):
        raise ValueError("--server needs either --chat, for messages, or --tokenizer FOLDER, for token ids.")


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The keywords of the environment on the command line."""
    given = dict(map(env_argument, options.env_args))
    # A panel is named by its split, which may not be another one than it says.
    if twice := [name for name in ("data", "split") if name in given and hasattr(options, name)]:
        raise ValueError(f"--env_args: {twice[0]} has a flag of its own. Give it as --{twice[0]}.")
    return given if options.data is None else {**given, "data": placed("data", options.data)}


def _asked_panel(options: argparse.Namespace, saved: Any = None) -> Panel:
    """The panel that was asked for, unless it alone says which code is run here: it may be from elsewhere."""
    panel = open_panel(options.panel)
    if options.env is not None and env_id_of(options.env) != panel.environment:
        raise ValueError(f"The panel {panel.name} is of {panel.environment}, --env says {options.env}.")
    module, colon, _ = panel.environment.partition(":")
    if colon and options.env is None and (saved is None or saved.environment != panel.environment):
        raise DataError(
            f"The panel {panel.name} is of {panel.environment}, which imports the module {module}. If you know it, "
            "give it as --env."
        )
    return panel


def _panel_and_env(options: argparse.Namespace, given: dict[str, Any], saved: Any) -> tuple[Panel, EnvFactory]:
    """What is played and in which environment; a panel's tasks have been compared with those that are there."""
    if options.panel is not None:
        panel = _asked_panel(options, saved).first(options.tasks)
        spec = _panel_spec(panel, {**_run_keywords(saved, panel.environment), **panel.source.arguments, **given})
        problems = _differences(panel, spec, options.quiet)
        if problems:
            raise DataError(
                f"The data differ from the panel {panel.name} in {len(problems)} places, first: {problems[0]} "
                "steppo-gym panel check lists all."
            )
        return panel, spec
    env_id = env_id_of(options.env) if options.env is not None else saved and saved.environment
    if not env_id:
        raise ValueError("Nothing says what to play. Give --panel or --env.")
    find_modules_here(env_id)
    split = options.split or _test_split(saved, env_id)
    spec = EnvFactory(env_id, {"split": split, **_run_keywords(saved, env_id), **given})
    name = _file_name(f"{env_id.rpartition('/')[2]}-{split}")
    with _bar(options.tasks, options.quiet) as bar, _asking_for_split(options):
        whole = make_panel(name, spec, number=options.tasks, on_task=bar.update)
    if options.tasks:
        whole = dataclasses.replace(whole, name=f"{name}-first-{len(whole.tasks)}")
    return whole, spec


@contextlib.contextmanager
def _asking_for_split(options: argparse.Namespace) -> Iterator[None]:
    """Say which flag is missing where an environment has no split of the name "test", which is the default."""
    try:
        yield
    except ValueError as error:
        if options.split is None and str(error).startswith("split must be one of"):
            raise ValueError(f"Give --split: {error}") from error
        raise


def _run_keywords(saved: Any, env_id: str) -> dict[str, Any]:
    """The keywords that a run made its environments with; none of another environment than the one that is played."""
    return saved.env_kwargs if saved is not None and saved.environment == env_id else {}


def _test_split(saved: Any, env_id: str) -> str:
    """What is played where nothing says so: the first split that the run was tested on."""
    splits = saved.test_splits if saved is not None and saved.environment == env_id else ()
    if len(splits) > 1:
        print(f"Playing {splits[0]}; the run was also tested on {', '.join(splits[1:])} (--split).", flush=True)
    return splits[0] if splits else "test"


def _panel_spec(panel: Panel, kwargs: dict[str, Any]) -> EnvFactory:
    """The environment that plays a panel."""
    find_modules_here(panel.environment)
    if panel.source.data == "files" and kwargs.get("data") is None:
        raise DataError(f"The panel {panel.name} is of official files. Say where yours are: --data PATH.")
    return EnvFactory(panel.environment, {**panel.source.arguments, **kwargs})


def _differences(panel: Panel, spec: EnvFactory, quiet: bool) -> list[str]:
    env = spec.make()
    try:
        with _bar(len(panel.tasks), quiet) as bar:
            return check_panel(panel, env, on_task=bar.update)
    finally:
        env.close()


def _settings(
    options: argparse.Namespace, panel: Panel, spec: EnvFactory, player: Player, temperature: float
) -> dict[str, Any]:
    """All that decides the episodes; an evaluation goes on where these are the same."""
    return {
        "panel": panel.name,
        "panel_hash": panel.hash,
        "environment": panel.environment,
        "env_kwargs": dict(spec.kwargs),
        "policy": player.description,
        "temperature": temperature,
        "seed": options.seed,
        "max_tokens": player.max_tokens,
    }


def _default_folder(panel: Panel, options: argparse.Namespace, temperature: float) -> Path:
    model = Path(options.model)
    name = "-".join(model.parts[-2:] if model.name == "final" or model.name.startswith("checkpoint-") else [model.name])
    return Path("evaluations", _file_name(f"{panel.name}-{name}-temperature{temperature:g}"))


def _keep_tokenizer(source: Path | None, folder: Path) -> None:
    """Keep a tokenizer beside the episodes, whose ids only it can read.

    Args:
        source: the tokenizer's folder; None where ids are the bytes of messages.
        folder: of the evaluation.
    """
    kept = folder / "tokenizer" / "tokenizer.json"
    if source is None:
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(byte_tokenizer([f"<{role}>" for role in ROLES.values()]), encoding="utf-8")
    elif (source / kept.name).is_file():
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(source / kept.name, kept)


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "-", text)


def _bar(total: int | None, quiet: bool) -> tqdm[Any]:
    return tqdm(total=total, desc="comparing tasks", unit="task", disable=True if quiet else None, leave=False)
