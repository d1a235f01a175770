"""From files of papers to a corpus in the cache; see `steppo_gym.envs.paper_search.corpus.formats` for the files.

folder = index_papers([Path("papers.jsonl")])
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from steppo_gym.envs.paper_search.corpus.build import Citation, Edges, build_corpus, corpus_folder
from steppo_gym.envs.paper_search.corpus.formats import DESCRIPTIONS, format_of, read_records
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.keywords import path_of
from steppo_gym.storage.file_stamps import FileStamp, file_stamps, require_unchanged


def index_papers(
    paths: Sequence[str | Path], *, generated: bool = False, rebuild: bool = False, progress: bool = True
) -> Path:
    """Build the corpus of some files, if it is not in the cache.

    Args:
        paths: files in either format. Papers may cite papers of other files; a paper in several files is taken once.
        generated: whether citations in our own format, of which there must be a file, were made up.
        rebuild: build it again.
        progress: show progress bars, on a terminal.

    Returns:
        Its folder, for `open_corpus`.

    Raises:
        DataError: a file is missing, damaged, or in neither format.
        ValueError: `generated`, and no file is in our own format.
    """
    files = [path_of(path) for path in paths]
    described, digests, stamps = [], [], []
    edges: Edges = "real"
    for path in files:
        kind = format_of(path)
        text = DESCRIPTIONS[kind]
        if kind == "own" and generated:
            text, edges = "papers with references that were made up", "generated"
        described.append(f"{path.name}: {text}")
        stamps += file_stamps([path])
        digests.append(_digest(*stamps[-1]))
    if generated and edges == "real":
        raise ValueError(
            "generated is about references in our own format, which none of these files has. Leave it out."
        )
    source = "; ".join(described)
    return build_corpus(
        _records(stamps),
        corpus_folder("\n".join([source, *digests])),
        edges=edges,
        source=source,
        rebuild=rebuild,
        progress=progress,
    )


def _records(stamps: Sequence[FileStamp]) -> Iterator[Paper | Citation]:
    for path, _, _ in stamps:
        yield from read_records(path)
    # The corpus lies under the hash of what was there before.
    require_unchanged(stamps)


@lru_cache(maxsize=64)
def _digest(path: Path, size: int, changed: int) -> str:
    """SHA-256 of a file, read again when its size or time of change differ."""
    del size, changed
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
