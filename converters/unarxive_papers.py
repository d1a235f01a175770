"""Papers of unarXive (https://github.com/IllDepence/unarXive), full ones or those of its samples.

    python converters/unarxive_papers.py unarxive.jsonl papers.jsonl

A row has bib_entries; title and abstract stand in it or in its metadata.
"""

from __future__ import annotations

import email.utils
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from paper_rows import Row, abstract_text, convert, names, paper_row

from steppo_gym.envs.paper_search.corpus.formats import json_rows
from steppo_gym.envs.paper_search.papers import arxiv_id_without_version
from steppo_gym.envs.paper_search.semantic_scholar.records import best_date, one_line
from steppo_gym.errors import DataError


def read_unarxive(path: Path) -> Iterator[Row]:
    """Papers with the references that have an arXiv id, in the order of a file of JSON lines.

    Raises:
        DataError: the file is missing or damaged, or holds something else.
    """
    for place, row in json_rows(path):
        if not isinstance(row, Mapping) or "bib_entries" not in row:
            raise DataError(f"Expected a paper of unarXive (bib_entries) in {place}, found {row!r:.80}.")
        yield _row(row, place)


def _row(row: Mapping[str, Any], place: str) -> Row:
    metadata = row.get("metadata") if isinstance(row.get("metadata"), dict) else row
    metadata = cast(Mapping[str, Any], metadata)
    paper_id, title = row.get("paper_id") or metadata.get("id"), one_line(metadata.get("title"))
    if not isinstance(paper_id, str) or not title:
        raise DataError(f"Expected paper_id and title of unarXive in {place}, found {row!r:.80}.")
    paper_id = arxiv_id_without_version(paper_id)
    entries = row["bib_entries"]
    listed = entries.values() if isinstance(entries, dict) else entries if isinstance(entries, list) else ()
    return paper_row(
        paper_id,
        title,
        abstract=abstract_text(metadata.get("abstract")),
        date=best_date(_first_version(metadata.get("versions")), paper_id, None),
        authors=names(metadata.get("authors")),
        references=[cited for entry in listed for cited in _cited_arxiv_ids(entry)],
    )


def _cited_arxiv_ids(entry: object) -> Iterator[str]:
    if not isinstance(entry, Mapping):
        return
    ids, contained = entry.get("ids"), entry.get("contained_arXiv_ids") or entry.get("arxiv_ids") or []
    found = [ids.get("arxiv_id")] if isinstance(ids, Mapping) else []
    # A text is no list of its letters.
    others = contained if isinstance(contained, list) else [contained]
    found += [other.get("id") if isinstance(other, Mapping) else other for other in others]
    yield from (arxiv_id_without_version(cited) for cited in found if isinstance(cited, str) and cited)


def _first_version(versions: object) -> str:
    """Day of the first version in arXiv's metadata, "" if there is none."""
    match versions:
        case [{"created": str(created)}, *_]:
            parsed = email.utils.parsedate(created)
            return "{:04}-{:02}-{:02}".format(*parsed[:3]) if parsed else ""
        case _:
            return ""


if __name__ == "__main__":
    sys.exit(convert(__doc__, read_unarxive))
