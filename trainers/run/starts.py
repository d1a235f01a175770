"""The policy a run begins with: shipped with the package, or from a folder that `make_start` made.

A start's card says what it is, for which environments it was made and how. A run of these begins with it, so that every
machine begins with the same bytes. Where there is none, the default policy is warm-started.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from steppo_gym.env import TextEnv
from steppo_gym.errors import CheckpointError, DataError
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.reading import reading
from steppo_gym.trainers.results.adapters import has_adapters, is_missing_folder, load_merged
from steppo_gym.trainers.run.checks import refuse
from steppo_gym.trainers.run.settings import RunSettings, Start
from steppo_gym.trainers.warm_start.start import start_hash
from steppo_gym.trainers.warm_start.warm_start import warm_started_policy

SHIPPED = Path(__file__).parents[1] / "starts"
CARD = "card.json"
TOKENIZER_FILES = ("tokenizer_config.json", "tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""One of which every tokenizer leaves."""
MARKED_BYTES = 2**20
"""At the end of each file of weights."""


def starting_policy(settings: RunSettings) -> tuple[Any, PreTrainedTokenizerBase]:
    """The model (or its name, for TRL to load) and its tokenizer."""
    config, model_config = settings.config, settings.model
    if model_config.model_name_or_path is not None:
        name: Any = model_config.model_name_or_path
        check_model(name, model_config.model_revision, trust_remote_code=config.trust_remote_code)
        flags = {"revision": model_config.model_revision, "dtype": model_config.dtype or "float32"}
        if model_config.attn_implementation:
            flags["attn_implementation"] = model_config.attn_implementation
        given: Any = config.model_init_kwargs or {}
        config.model_init_kwargs = flags | given
        tokenizer = _tokenizer_of(name, model_config.model_revision, trust_remote_code=config.trust_remote_code)
        return _merged(settings, name) if has_adapters(name) else name, tokenizer
    folder = _warm_started(settings) if settings.start is None else settings.start.folder
    # By name, because AutoTokenizer would replace its pre-tokenizer by that of the model type.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    config.model_init_kwargs = {"dtype": "float32"}
    return str(folder), tokenizer


def require_tokenizer_of(checkpoint: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise a CheckpointError unless the default policy's tokenizer is that of a checkpoint.

    Where the code has changed since, it was made again, of the texts that the environment has now.
    """
    then, now = (
        json.loads(one.backend_tokenizer.to_str())["model"]  # type: ignore[union-attr]
        for one in (PreTrainedTokenizerFast.from_pretrained(checkpoint), tokenizer)
    )
    if then != now:
        raise CheckpointError(
            f"{checkpoint} is of another tokenizer than the one that was made now: what the environment or its expert "
            "says has changed since. Undo the change, or start anew in another --output_dir."
        )


def check_model(name: str, revision: str, *, trust_remote_code: bool) -> None:
    """Raise a DataError unless there is a model of a name, a tokenizer beside it, and it writes text.

    Transformers asks the Hub for a folder that is not there, makes an empty tokenizer where none was saved, and TRL
    takes a model without an output layer for a language model.
    """
    _check_folder(name)
    if has_adapters(name):
        return
    read = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    kind = getattr(transformers, (read.architectures or [""])[0], None)
    if kind is not None and not kind.can_generate():
        raise DataError(f"--model_name_or_path: {name} is a {kind.__name__}, expected a causal language model.")


def files_mark(folder: str) -> str:
    """Few characters that differ where the files of a model do, "" for what is no folder.

    They may change under a run. Sizes and ends are looked at alone, as reading all would take minutes.
    """
    read = sha256()
    paths = [path for pattern in ("*.safetensors", "*.bin", "*config.json") for path in Path(folder).glob(pattern)]
    for path in sorted(paths):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - MARKED_BYTES))
            read.update(f"{path.name} {size} ".encode() + file.read())
    return read.hexdigest()[:16] if paths else ""


def _check_folder(name: str) -> None:
    folder = Path(name)
    if is_missing_folder(name):
        raise DataError(f"--model_name_or_path: there is no folder {name}.")
    if not folder.exists():
        return
    has_model = has_adapters(folder) or (folder / "config.json").is_file()
    if not has_model or not any((folder / file).is_file() for file in TOKENIZER_FILES):
        raise DataError(
            f"--model_name_or_path: expected the folder of a model, with config.json and its tokenizer, got {name}."
        )


def _tokenizer_of(name: str, revision: str, *, trust_remote_code: bool) -> PreTrainedTokenizerBase:
    with reading(f"The tokenizer of {name}"):
        return AutoTokenizer.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code, padding_side="left"
        )


def _merged(settings: RunSettings, name: str) -> Any:
    """The model that adapters and their base are together.

    It lies in no folder, from which a reference could be loaded or to which new adapters could refer.
    """
    if settings.model.use_peft or settings.config.beta:
        flag = "--use_peft" if settings.model.use_peft else "--beta"
        raise ValueError(f"{name} holds adapters, and {flag} needs a whole model. Run `steppo-gym merge {name}` first.")
    given: Any = settings.config.model_init_kwargs or {}
    settings.config.model_init_kwargs = None
    return load_merged(name, **given)


def start_of(settings: RunSettings, shipped: Path = SHIPPED) -> Start | None:
    """What a run begins with, None for a model of another kind or a warm start; exits if the flags contradict.

    Raises:
        DataError: the files are not those that the card speaks of.
    """
    run, usual = settings.run, settings.preset.warm_start
    if settings.model.model_name_or_path is not None or run.start == "warm":
        return None
    warm = (run.demonstrations, run.warm_start_updates) != (usual.num_demonstrations, usual.num_updates)
    environment = {"id": settings.preset.env_id, "kwargs": dict(settings.env_kwargs)}
    if run.start == "shipped":
        return None if warm else _shipped(settings, environment, shipped)
    if warm:
        sys.exit("--demonstrations and --warm_start_updates are of a warm start; --start names one that is made.")
    start = read_start(Path(run.start))
    if _without_limit(start.environment) != _without_limit(environment):
        sys.exit(
            f"--start: {run.start} was made for {_described(start.environment)}, "
            f"but this run is of {_described(environment)}."
        )
    return start


def _shipped(settings: RunSettings, environment: dict[str, Any], shipped: Path) -> Start | None:
    for name in settings.preset.starts:
        if (shipped / name / CARD).exists():
            start = read_start(shipped / name)
            if start.environment == environment:
                return start
    return None


def read_start(folder: Path) -> Start:
    """The start in a folder.

    Raises:
        DataError: its card cannot be read, or its files are not those that the card speaks of.
    """
    path = folder / CARD
    try:
        card = json.loads(path.read_text())
        name, expected, environment = card["name"], card["sha256"], card["environment"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} is not the card of a start ({type(error).__name__}: {error}). "
            "Make one by `python -m steppo_gym.trainers.make_start`, or begin without by --start warm."
        ) from error
    found = start_hash(folder)
    if found != expected:
        raise DataError(
            f"The files in {folder} are not those of its card: SHA-256 {found}, expected {expected}. "
            "Make it again by `make_start --remake`, or begin without by --start warm."
        )
    return Start(name, folder, found, environment)


def _without_limit(environment: dict[str, Any]) -> dict[str, Any]:
    """How many steps an episode may take is no matter of what a policy reads and writes."""
    kwargs = {name: value for name, value in environment["kwargs"].items() if name != "max_steps"}
    return {**environment, "kwargs": kwargs}


def _described(environment: dict[str, Any]) -> str:
    return " ".join([environment["id"], *(f"{name}={value}" for name, value in environment["kwargs"].items())])


def _warm_started(settings: RunSettings) -> Path:
    """The folder of the warm-started policy."""
    run, config, preset = settings.run, settings.config, settings.preset
    spec = preset.spec(preset.train_split, {**settings.env_kwargs, **preset.demonstration_kwargs})
    warm_start = replace(
        preset.warm_start,
        num_demonstrations=run.demonstrations or preset.warm_start.num_demonstrations,
        num_updates=run.warm_start_updates or preset.warm_start.num_updates,
    )
    task_ids = task_ids_of(spec, with_expert=True)
    chosen = warm_start.num_demonstrations != preset.warm_start.num_demonstrations
    if chosen and warm_start.num_demonstrations > len(task_ids):
        refuse(
            f"--demonstrations must be at most {len(task_ids)}, the tasks to demonstrate, got "
            f"{warm_start.num_demonstrations}: each is of another task."
        )
    if warm_start.num_demonstrations > len(task_ids) and config.process_index == 0:
        print(
            f"The default policy gets {len(task_ids)} demonstrations, one of each task that there is, instead of "
            f"{warm_start.num_demonstrations}.",
            flush=True,
        )
    if run.data is not None:
        task_ids = spread(task_ids, warm_start.num_demonstrations)
    with config.distributed_state.main_process_first():  # type: ignore[union-attr]
        return warm_started_policy(
            spec,
            task_ids,
            warm_start,
            seed=config.seed,
            num_workers=config.num_env_workers,
            progress=not config.disable_tqdm,
        )


def spread(task_ids: Sequence[str], number: int) -> list[str]:
    """So many tasks at even distances, all if they are fewer: files may be sorted by kind, as ALFWorld's are."""
    number = min(number, len(task_ids))
    return [task_ids[i * len(task_ids) // number] for i in range(number)]


def task_ids_of(spec: EnvFactory, *, with_expert: bool = False) -> list[str]:
    """All tasks of an environment; exits if there should be an expert and is none."""
    env = spec.make()
    try:
        if with_expert and type(env).expert_response is TextEnv.expert_response:
            sys.exit(
                f"{spec.env_id} has no expert_response, on which the default policy is warm-started. "
                "Write one, or name a model with --model_name_or_path."
            )
        return list(env.task_ids)
    finally:
        env.close()
