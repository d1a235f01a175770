"""Official files of queries: which one is meant, and the rows in it.

Rows are told apart by their keys: those of PaSa (AutoScholarQuery, RealScholarQuery), of SPAR's benchmark and of
ScholarGym's. All are JSON lines.
"""

from __future__ import annotations

import calendar
import datetime
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from steppo_gym.envs.paper_search.paper_ids import canonical_id
from steppo_gym.envs.paper_search.papers import Query
from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of
from steppo_gym.quoting import valid_text, written_id
from steppo_gym.storage.data_lines import json_lines

OFFICIAL_FILES = {
    "train": ("AutoScholarQuery_train.jsonl",),
    "validation": ("AutoScholarQuery_dev.jsonl",),
    "test": ("AutoScholarQuery_test.jsonl", "RealScholarQuery_test.jsonl"),
}
"""Names by split, the one to prefer first."""

_PASA_DAYS = 7
"""PaSa's `run_paper_agent.py` searches for papers from before this many days before the query's `published_time`.

That is the day of the paper that a query was made from, whose references are the answers.
"""
_SPLIT_WORDS = {"train": ("train",), "validation": ("dev", "valid"), "test": ("test", "bench")}
_TEST_NAME = re.compile(r"(?<![a-z])(?:test(?:set)?|bench(?:mark)?|spar|realscholarquery)(?![a-z])", re.IGNORECASE)
_TEST_ID = re.compile(r"AutoScholarQuery_test|RealScholarQuery")
_DATE = re.compile(r"(?P<year>\d{4})(?:-?(?P<month>\d{2})(?:-?(?P<day>\d{2}))?)?")


def find_file(data: str | Path, split: str) -> Path:
    """The file with the queries of a split.

    Args:
        data: a file, which is taken as it is; or a folder. The official files are looked for first, each in the folder
            and then in those right below, then the only one there whose name says the split ("train", "dev" or "valid",
            "test" or "bench"). `~` and variables are expanded.
        split: "train", "validation" or "test".

    Raises:
        DataError: there is none, or more than one that could be meant.
    """
    path = path_of(data)
    if path.is_file():
        return path
    if not path.is_dir():
        raise DataError(
            f"Expected a file or folder with queries in {path}, found nothing. Leave data out to play the built-in "
            "queries, which need no files."
        )
    files = sorted(file for pattern in ("*.jsonl", "*/*.jsonl") for file in path.glob(pattern) if file.is_file())
    for name in OFFICIAL_FILES[split]:
        if official := [file for file in files if file.name == name]:
            named = [file for file in official if file.parent == path] or official
            break
    else:
        named = [file for file in files if any(word in file.stem.lower() for word in _SPLIT_WORDS[split])]
    if len(named) == 1:
        return named[0]
    found = ", ".join(str(file.relative_to(path)) for file in named or files) or "nothing"
    raise DataError(
        f"Expected one .jsonl file of the split {split!r} in {path}, found {found}. Pass the file itself as data=."
    )


def read_queries(path: Path, split: str) -> dict[str, Query]:
    """The queries of a file by their ids, in its order. Rows without an answer are left out.

    Args:
        path: a file of JSON lines.
        split: what the queries are for; those of a test set are for "test" alone.

    Raises:
        DataError: the file is damaged, an id comes twice, there is no query, or a test set was asked for as another
            split.
    """
    queries: dict[str, Query] = {}
    for number, (_, row) in enumerate(json_lines(path)):
        try:
            query = read_row(row, default_id=f"{path.stem}_{number}")
        except DataError as error:
            raise DataError(f"Row {number} of {path}: {error}") from error
        if query is None:
            continue
        if query.query_id in queries:
            raise DataError(f"Expected every id once in {path}, found {query.query_id!r} again.")
        queries[query.query_id] = query
    if not queries:
        raise DataError(f"Expected queries in {path}, found none. Is it the right file?")
    if split != "test":
        _refuse_test_set(path, queries, split)
    return queries


def read_row(row: Any, *, default_id: str) -> Query | None:
    """One row, None if it has no answer.

    Args:
        row: as parsed from the file.
        default_id: for rows that have none, which are SPAR's.

    Raises:
        DataError: a key is missing or a value has another type.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"Expected every row to be an object, found {type(row).__name__}.")
    try:
        if "cited_paper" in row:
            query = _scholargym(row)
        elif "answer_arxiv_id" in row:
            query = _pasa(row)
        else:
            query = _spar(row, default_id)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"Expected a row as in the official files, found the keys {', '.join(map(str, row))} and could not read it "
            f"({type(error).__name__}: {error})."
        ) from error
    return query if query.answers else None


def last_day(date: str) -> str:
    """The last day of a date, "YYYY-MM-DD".

    Args:
        date: "YYYYMMDD", "YYYYMM" or "YYYY", with or without "-".

    Raises:
        ValueError: it is none.
    """
    match = _DATE.fullmatch(date)
    if not match:
        raise ValueError(f"expected a date YYYYMMDD or YYYY-MM, found {date!r}")
    year, month = int(match["year"]), int(match["month"] or 12)
    if not 1 <= month <= 12:
        raise ValueError(f"expected a month from 01 to 12, found {date!r}")
    return f"{year:04}-{month:02}-{int(match['day'] or calendar.monthrange(year, month)[1]):02}"


def _pasa(row: Mapping[str, Any]) -> Query:
    asked = datetime.date.fromisoformat(last_day(row["source_meta"]["published_time"]))
    until = asked - datetime.timedelta(days=_PASA_DAYS + 1)
    return _query(row["qid"], row["question"], row["answer_arxiv_id"], until.isoformat())


def _spar(row: Mapping[str, Any], default_id: str) -> Query:
    meta = row["source_meta"]
    ids = [answer["paperID"] for answer in meta["answers"]]
    return _query(row.get("qid") or default_id, row["question"], ids, last_day(meta["published_time"]))


def _scholargym(row: Mapping[str, Any]) -> Query:
    cited = zip(row["cited_paper"], row["gt_label"], strict=True)
    ids = [paper["arxiv_id"] for paper, is_answer in cited if is_answer and row.get("valid", True)]
    # The date is a month: that of the newest answer.
    return _query(row["qid"], row["query"], ids, last_day(row["date"]), kind=row["source"])


def _query(query_id: str, text: str, ids: list[str], until: str, kind: str = "") -> Query:
    if not isinstance(ids, list) or not all(isinstance(value, str) for value in (query_id, text, kind, *ids)):
        raise TypeError("ids, question and source must be texts, the answers a list of them")
    if not text.strip():
        raise ValueError("the question is empty")
    answers = tuple(dict.fromkeys(answer for answer in map(canonical_id, ids) if answer))
    return Query(written_id(query_id), " ".join(valid_text(text).split()), answers, until, valid_text(kind))


def _refuse_test_set(path: Path, queries: Mapping[str, Query], split: str) -> None:
    test_id = next((query_id for query_id in queries if _TEST_ID.match(query_id)), None)
    if test_id is None and not _TEST_NAME.search(path.name):
        return
    reason = "its name says so" if test_id is None else f"it has {test_id!r}"
    raise DataError(
        f"{path} is a test set ({reason}) and was asked for as the split {split!r}. What is trained on, or chooses "
        f"between checkpoints, must not be tested on: use AutoScholarQuery's train or dev file, or split='test'."
    )
