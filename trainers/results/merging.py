"""`steppo-gym merge`: adapters and the model they belong to, as one ordinary model."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
import transformers
from transformers import AutoConfig

from steppo_gym.errors import DataError
from steppo_gym.trainers.results.adapters import base_of, has_adapters, load_merged
from steppo_gym.trainers.results.saved_policy import SavedPolicy, load_codec

CARD = "README.md"


def run(options: argparse.Namespace) -> int:
    """The command."""
    folder = SavedPolicy.open(options.folder).folder
    # Beside `final`, where the settings of the run are found.
    out = options.out or folder.parent / "merged"
    merge(folder, out, options.dtype)
    print(f"{out} is a model of its own: --model_name_or_path {out}, or steppo-gym evaluate --model {out}.")
    return 0


def merge(folder: Path, out: Path, dtype: str | None = None) -> None:
    """Write the merged model and its tokenizer, whole or not at all.

    The sum is made in float32: in bfloat16 it would lose what small updates have changed.

    Args:
        folder: of the adapters.
        out: a folder that is not there yet, or empty.
        dtype: of what is written; None for that of the base model.

    Raises:
        DataError: there are no adapters, or something lies in `out`.
    """
    if not has_adapters(folder):
        raise DataError(f"{folder} has whole weights already. Only the result of --use_peft is merged.")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty. Name another --out.")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    kept = AutoConfig.from_pretrained(base_of(folder)).dtype or torch.float32
    model = load_merged(folder, dtype=torch.float32)
    unfinished = out.with_name(f".{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.to(getattr(torch, dtype) if dtype else kept).save_pretrained(unfinished)
    load_codec(folder).tokenizer.save_pretrained(unfinished)
    if (folder / CARD).is_file():
        shutil.copyfile(folder / CARD, unfinished / CARD)
    if out.exists():
        out.rmdir()
    unfinished.rename(out)
