"""Dense retrieval: passages by the inner product of embeddings, exactly, over a memory-mapped matrix.

    retriever = open_retriever_for(passages, engine="dense:sentence-transformers/all-MiniLM-L6-v2")

The encoder is a sentence-transformers model (`pip install 'steppo-gym[dense]'`), with the prompts for queries and for
documents that it was saved with. Every process that searches loads it: for many environments let
`steppo-gym serve-search` have it alone. A search reads the whole matrix, 0.15 GB for 100,000 passages with 384
dimensions. Approximate search is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from steppo_gym.errors import DataError, UnsupportedVersionError
from steppo_gym.keywords import path_of
from steppo_gym.quoting import valid_text
from steppo_gym.retrieval.corpus import Passages, write_passages
from steppo_gym.retrieval.engine import NEEDS_PACKAGES
from steppo_gym.retrieval.index_folder import check_folder, damaged, load_array, reading
from steppo_gym.retrieval.local_index import LocalIndex
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS, Hit, Passage, check_search
from steppo_gym.retrieval.top_k import top_k

_EMBEDDINGS = "embeddings.npy"  # (N, D) float32, rows of length 1
_BATCH = 256


class Encoder(Protocol):
    """What turns texts into vectors, such as a `sentence_transformers.SentenceTransformer`."""

    def encode_query(self, texts: list[str], /) -> Any:
        """One vector per query: (len(texts), D) float."""
        ...

    def encode_document(self, texts: list[str], /) -> Any:
        """One vector per passage: (len(texts), D) float."""
        ...


@lru_cache(maxsize=2)
def load_encoder(model: str) -> tuple[Encoder, str]:
    """The sentence-transformers model of this name or in this folder, and a hash of all that its vectors depend on.

    Raises:
        ImportError: the package is not installed.
        UnsupportedVersionError: it is too old.
        DataError: there is no such model.
    """
    try:
        import sentence_transformers  # pyright: ignore[reportMissingImports]
        import torch
    except ImportError as error:
        raise ImportError(NEEDS_PACKAGES) from error
    if not hasattr(sentence_transformers.SentenceTransformer, "encode_query"):
        raise UnsupportedVersionError(
            "Dense retrieval needs a sentence-transformers that tells queries from documents, found "
            f"{sentence_transformers.__version__}. Run: pip install -U 'steppo-gym[dense]'"
        )
    try:
        folder = path_of(model)
        encoder = sentence_transformers.SentenceTransformer(str(folder) if folder.is_dir() else model)
    except (OSError, ValueError) as error:
        raise DataError(
            f"The encoder {model} cannot be loaded ({str(error).strip().splitlines()[0]:.200}). Pass the folder of a "
            "sentence-transformers model, or its name on the hub where the network is reached."
        ) from error
    digest = hashlib.sha256(repr((encoder, encoder.prompts, encoder.max_seq_length)).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return encoder, digest.hexdigest()[:16]


def describe(model: str) -> str:
    """What a manifest calls the dense index of a model."""
    return f"dense {load_encoder(model)[1]} {model}"


def build_dense(passages: Iterable[Passage], folder: Path, encoder: Encoder, *, progress: bool) -> int:
    """Write the index of the passages into the folder and return how many there were.

    Of a passage title and text are encoded, with a line break between.

    Raises:
        ValueError: the encoder gave something other than one finite vector per text.
    """
    num_passages = write_passages(folder, passages)
    written = Passages(folder)
    embeddings: np.ndarray | None = None
    starts = range(0, num_passages, _BATCH)
    for start in tqdm(starts, desc="Embeddings", unit="batch", disable=None if progress else True):
        batch = [written[position] for position in range(start, min(start + _BATCH, num_passages))]
        vectors = _encode(encoder.encode_document, [f"{passage.title}\n{passage.text}" for passage in batch])
        if embeddings is None:
            shape = (num_passages, vectors.shape[1])
            embeddings = np.lib.format.open_memmap(folder / _EMBEDDINGS, mode="w+", dtype=np.float32, shape=shape)
        embeddings[start : start + _BATCH] = vectors
    return num_passages


def open_dense(folder: Path) -> DenseRetriever:
    """The index in a folder, searched with the model that its manifest names.

    Raises:
        DataError: the index is damaged, or the model is gone or has changed.
    """
    engine = check_folder(folder).engine
    model = engine.split(maxsplit=2)[2]
    if describe(model) != engine:
        raise DataError(f"The index in {folder} was made with another state of the model {model}. Build it again.")
    return DenseRetriever(folder, load_encoder(model)[0])


class DenseRetriever(LocalIndex):
    """Searches the embeddings in a folder that `build_dense` filled.

    Args:
        folder: the index.
        encoder: the one that made the embeddings.

    Raises:
        DataError: the files do not belong together.
    """

    def __init__(self, folder: Path, encoder: Encoder) -> None:
        super().__init__(folder)
        self._embeddings = load_array(folder, _EMBEDDINGS, np.float32, num_dimensions=2)
        self._encoder = encoder
        if len(self._embeddings) != len(self._passages):
            raise damaged(folder, "its files do not belong together")

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and another process, opens the same folder and loads the model."""
        return open_dense, (self._folder,)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. The scores are cosines, -1 to 1; every passage has one, so every query has hits.

        Queries are encoded together, and an encoder may round a little differently in batches of another size.
        """
        check_search(queries, k)
        if not queries:
            return []
        vectors = _encode(self._encoder.encode_query, [query[:MAX_QUERY_CHARACTERS] for query in queries])
        if vectors.shape[1] != self._embeddings.shape[1]:
            raise ValueError(
                f"The embeddings have {self._embeddings.shape[1]} dimensions, the encoder gave {vectors.shape[1]} for "
                "a query: it is not the one the index was made with."
            )
        # One product per query: that of a whole batch may round differently.
        with reading(self._folder):
            return [self._best(self._embeddings @ vector, k) for vector in vectors]

    def _best(self, scores: np.ndarray, k: int) -> list[Hit]:
        return [Hit(self._passages[int(position)], float(scores[position])) for position in top_k(scores, k)]


def _encode(encode: Callable[[list[str]], Any], texts: list[str]) -> np.ndarray:
    """(len(texts), D) float32, rows of length 1, or of length 0 where the encoder gave zeros."""
    # Tokenizers take no halves of surrogate pairs.
    valid = list(map(valid_text, texts))
    vectors = np.asarray(encode(valid), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ValueError(f"Expected {len(texts)} finite vectors from the encoder, found shape {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
