"""Policies that are adapters on another model: folders with `adapter_config.json`, as `--use_peft` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import transformers
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, AutoModelForCausalLM

from steppo_gym.errors import DataError

ADAPTER_CONFIG = "adapter_config.json"


def has_adapters(folder: str | Path) -> bool:
    """Whether a folder holds adapters and not a whole model."""
    return Path(folder, ADAPTER_CONFIG).is_file()


def is_missing_folder(name: str) -> bool:
    """Whether a name of a model can only be that of a folder, as those on the Hub have one slash, and there is none."""
    of_a_folder = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1
    return of_a_folder and not Path(name).is_dir()


def base_of(folder: str | Path) -> str:
    """Folder or Hub name of the model that the adapters belong to.

    Raises:
        DataError: the folder does not say, or says a folder that is not there.
    """
    try:
        base = json.loads(Path(folder, ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError):
        base = None
    if not base or not isinstance(base, str):
        raise DataError(f"{Path(folder, ADAPTER_CONFIG)} does not say to which model the adapters belong.")
    if is_missing_folder(base):
        raise DataError(
            f"The adapters in {folder} belong to the model in {base}, which is not there. Run this where it is, or "
            f"correct base_model_name_or_path in {ADAPTER_CONFIG}."
        )
    return base


def load_whole(folder: str | Path, **given: Any) -> Any:
    """The model in a folder, of the class that training loads it as, which for those that also see is one of their own.

    Args:
        folder: of a model of transformers.
        **given: of its `from_pretrained`.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=bool(given.get("local_files_only")))
    kind: Any = AutoModelForCausalLM
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        kind = getattr(transformers, (config.architectures or [""])[0], AutoModelForCausalLM)
    return kind.from_pretrained(folder, **given)


def load_with_adapters(folder: str | Path, **given: Any) -> Any:
    """The base model with the adapters in place, as it was trained; `given` is for transformers' `from_pretrained`.

    Raises:
        DataError: there is no base model, or PEFT is missing.
    """
    base = base_of(folder)
    try:
        from peft import AutoPeftModelForCausalLM, PeftModel
    except ImportError as error:
        raise DataError(f"{folder} holds adapters, which need PEFT. Run `pip install 'steppo-gym[peft]'`.") from error
    local = bool(given.get("local_files_only"))
    if type(AutoConfig.from_pretrained(base, local_files_only=local)) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        return PeftModel.from_pretrained(load_whole(base, **given), str(folder))
    return AutoPeftModelForCausalLM.from_pretrained(str(folder), **given)


def load_merged(folder: str | Path, **given: Any) -> Any:
    """The base model with the adapters added to its weights: an ordinary model of transformers."""
    return load_with_adapters(folder, **given).merge_and_unload()
