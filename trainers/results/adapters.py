"""Policies that are adapters on another model: folders with `adapter_config.json`, as `--use_peft` leaves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError

ADAPTER_CONFIG = "adapter_config.json"


def has_adapters(folder: str | Path) -> bool:
    """Whether a folder holds adapters and not a whole model."""
    return Path(folder, ADAPTER_CONFIG).is_file()


def base_of(folder: str | Path) -> str:
    """Folder or Hub name of the model that the adapters belong to.

    Raises:
        DataError: the folder does not say, or says a folder that is not there.
    """
    base = json.loads(Path(folder, ADAPTER_CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise DataError(f"{Path(folder, ADAPTER_CONFIG)} does not say to which model the adapters belong.")
    # A name on the Hub has one slash and no folder.
    if not Path(base).is_dir() and (Path(base).is_absolute() or base.startswith(".") or base.count("/") > 1):
        raise DataError(
            f"The adapters in {folder} belong to the model in {base}, which is not there. Run this where it is, or "
            f"correct base_model_name_or_path in {ADAPTER_CONFIG}."
        )
    return base


def load_with_adapters(folder: str | Path, **given: Any) -> Any:
    """The base model with the adapters in place, as it was trained.

    Raises:
        DataError: there is no base model, or PEFT is missing.
    """
    base_of(folder)
    try:
        from peft import AutoPeftModelForCausalLM
    except ImportError as error:
        raise DataError(f"{folder} holds adapters, which need PEFT. Run `pip install 'steppo-gym[peft]'`.") from error
    return AutoPeftModelForCausalLM.from_pretrained(str(folder), **given)


def load_merged(folder: str | Path, **given: Any) -> Any:
    """The base model with the adapters added to its weights: an ordinary model of transformers."""
    return load_with_adapters(folder, **given).merge_and_unload()
