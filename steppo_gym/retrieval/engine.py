"""Names of the ways to search a corpus.

"bm25"          an index in shared memory
"tantivy"       BM25 in an index on disk
"dense:MODEL"   embeddings of a sentence-transformers model, which is a folder or a name on the hub
"hybrid:MODEL"  bm25 and dense, fused by rank
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, cast

EngineName = Literal["bm25", "tantivy", "dense", "hybrid"]

_WITHOUT_MODEL, _WITH_MODEL = ("bm25", "tantivy"), ("dense", "hybrid")
_EXPECTED = "Expected the engine to be one of bm25, tantivy, dense:MODEL, hybrid:MODEL"
_PACKAGE = "sentence_transformers"
NEEDS_PACKAGES = "Dense retrieval needs more packages. Run: pip install 'steppo-gym[dense]'"


@dataclass(frozen=True)
class Engine:
    """An engine and the model it needs, "" for none."""

    name: EngineName
    model: str = ""


def read_engine(text: str) -> Engine:
    """The engine that a text names.

    Raises:
        ValueError: none.
        ImportError: one that needs a package which is not installed.
    """
    name, _, model = text.partition(":")
    if name in _WITH_MODEL and not model:
        raise ValueError(
            f"{_EXPECTED}, got {text!r}: {name} needs the folder or the hub's name of a sentence-transformers model."
        )
    if name not in _WITH_MODEL and text not in _WITHOUT_MODEL:
        raise ValueError(f"{_EXPECTED}, got {text!r:.80}.")
    if name in _WITH_MODEL and not (sys.modules.get(_PACKAGE) or find_spec(_PACKAGE)):
        raise ImportError(NEEDS_PACKAGES)
    return Engine(cast(EngineName, name), model)


def names_engine(source: str | Path) -> bool:
    """Whether a text is meant as an engine, well written or not, rather than as a path or an address."""
    return isinstance(source, str) and source.partition(":")[0] in (*_WITHOUT_MODEL, *_WITH_MODEL)
