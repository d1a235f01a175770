"""What the converters share: rows of papers in, JSON lines out.

A row has paper_id and title, and where they are known abstract, date, authors, references and num_citations; see
`steppo_gym.envs.paper_search.corpus.formats`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from steppo_gym.envs.paper_search.semantic_scholar.records import author_names
from steppo_gym.errors import DataError

Row = dict[str, Any]

_BETWEEN_AUTHORS = re.compile(r"\s*,\s*(?:and\s+)?|\s+and\s+")


def convert(description: str | None, read: Callable[[Path], Iterator[Row]], arguments: list[str] | None = None) -> int:
    """The command of a converter: write the rows of one file or folder to another.

    Args:
        description: what it does, for the help.
        read: gives the rows of a file or folder.
        arguments: of the command line; None takes those of the process.

    Returns:
        Exit status: 0, or 1 after an error that was explained; then nothing is left at the target.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path, help="JSON lines; overwritten")
    options = parser.parse_args(arguments)
    unfinished = options.target.with_name(f"{options.target.name}.unfinished")
    try:
        with unfinished.open("w", encoding="ascii") as file:
            count = sum(file.write(json.dumps(row) + "\n") > 0 for row in read(options.source))
        unfinished.replace(options.target)
    except (DataError, OSError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    finally:
        unfinished.unlink(missing_ok=True)
    print(f"{count} papers written to {options.target}.")
    return 0


def paper_row(paper_id: str, title: str, **known: Any) -> Row:
    """A row without what is empty."""
    return {"paper_id": paper_id, "title": title} | {name: value for name, value in known.items() if value}


def abstract_text(abstract: object) -> str:
    """An abstract without blanks around it, "" for what is no text."""
    return abstract.strip() if isinstance(abstract, str) else ""


def names(authors: object) -> list[str]:
    """Names of authors given as a list or in one text."""
    return list(author_names(_BETWEEN_AUTHORS.split(authors) if isinstance(authors, str) else authors))
