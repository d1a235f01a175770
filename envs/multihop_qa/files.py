"""Official files on disk: which one is meant, and the rows in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from steppo_gym.envs.multihop_qa.questions import texts
from steppo_gym.envs.multihop_qa.scoring import Dataset
from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of
from steppo_gym.storage.data_lines import json_lines, read_json

OFFICIAL_FILES: dict[Dataset, dict[str, str]] = {
    "hotpotqa": {"train": "hotpot_train_v1.1.json", "validation": "hotpot_dev_distractor_v1.json"},
    "2wikimultihopqa": {"train": "train.json", "validation": "dev.json", "test": "test.json"},
    "musique": {"train": "musique_ans_v1.0_train.jsonl", "validation": "musique_ans_v1.0_dev.jsonl"},
}
"""Names by split. The answers of the official test sets are not public."""
ALIAS_FILE = "id_aliases.json"
"""Lies beside the files of 2WikiMultihopQA v1.1."""

_SPLIT_WORDS = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test",)}
_SUFFIXES = (".json", ".jsonl", ".parquet")
_SHARD = re.compile(r"-\d{5}-of-(\d{5})$")


def find_files(dataset: Dataset, data: str | Path, split: str) -> list[Path]:
    """The files of a split.

    Args:
        dataset: whose names to look for.
        data: a file, which is taken as it is; or a folder. The official file is looked for first, in the folder and
            then in those right below, then the only one there whose name says the split ("train", "dev" or "valid",
            "test"); several are taken only if they are the numbered parts of one.
        split: "train", "validation" or "test".

    Raises:
        DataError: there is none, or more than one that could be meant.
    """
    path = path_of(data)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"Expected a file or folder with {dataset} in {path}, found nothing. {_advice(dataset)}")
    files = sorted(
        file for pattern in ("*", "*/*") for file in path.glob(pattern) if file.is_file() and file.suffix in _SUFFIXES
    )
    official = [file for file in files if file.name == OFFICIAL_FILES[dataset].get(split)]
    official = [file for file in official if file.parent == path] or official
    named = official or [file for file in files if any(word in file.name for word in _SPLIT_WORDS[split])]
    if len({(file.parent, _SHARD.sub("", file.stem), file.suffix) for file in named}) == 1:
        return _all_parts(named)
    found = ", ".join(str(file.relative_to(path)) for file in named or files) or "nothing"
    raise DataError(
        f"Expected one file of the split {split!r} in {path}, found {found}. Pass the file itself as data=. "
        f"{_advice(dataset)}"
    )


def _all_parts(files: list[Path]) -> list[Path]:
    """The files, unless they are numbered parts of which some are missing."""
    numbered = _SHARD.search(files[0].stem)
    if numbered and int(numbered[1]) != len(files):
        raise DataError(
            f"Expected {int(numbered[1])} parts as {files[0]} says, found {len(files)}. Fetch the missing ones."
        )
    return files


def read_rows(path: Path) -> Iterator[Any]:
    """The rows of a JSON list, of JSON lines (`.jsonl`) or of a parquet file.

    Raises:
        DataError: the file cannot be read.
    """
    if path.suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    if path.suffix == ".jsonl":
        yield from (row for _, row in json_lines(path))
        return
    try:
        rows = read_json(path)
    except DataError as error:
        if getattr(error.__cause__, "msg", "") != "Extra data":
            raise
        # Several values one after the other are JSON lines, whatever the name says.
        yield from (row for _, row in json_lines(path))
        return
    if not isinstance(rows, list):
        raise DataError(f"{path} must hold a list of questions, found {type(rows).__name__}. Is it the right file?")
    yield from rows


def read_aliases(folder: Path) -> Mapping[str, Sequence[str]]:
    """Further names of answers by their id, from `id_aliases.json` in the folder; empty if it is not there.

    Raises:
        DataError: the file is damaged.
    """
    path = folder / ALIAS_FILE
    if not path.is_file():
        return {}
    aliases: dict[str, list[str]] = {}
    for number, line in json_lines(path):
        try:
            # The official evaluation counts demonyms ("French") as names as well.
            aliases[line["Q_id"]] = [*texts(line.get("aliases", [])), *texts(line.get("demonyms", []))]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"Line {number} of {path} does not read like one of the official file ({error!r}). Download it again."
            ) from error
    return aliases


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        # Only these files need it.
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(f"Reading {path} needs another package. Run `pip install pyarrow`.") from None
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (OSError, ValueError, ArrowException) as error:
        raise DataError(f"{path} is not a readable parquet file ({error}). Download it again.") from error


def _advice(dataset: Dataset) -> str:
    return (
        f"`steppo-gym download {dataset}` fetches the official files; leave data out to play built-in questions, which "
        "need no download."
    )
