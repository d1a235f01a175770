"""Dense retrieval: passages by the inner product of embeddings, exactly, over a memory-mapped matrix.

    encoder = load_encoder("intfloat/e5-base-v2")  # needs the extra: pip install 'steppo-gym[dense]'
    retriever = open_dense(passages, encoder, "intfloat/e5-base-v2", query_prompt="query: ", passage_prompt="passage: ")

A search reads the whole matrix, 0.15 GB for 100,000 passages with 384 dimensions. Approximate search is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from steppo_gym.retrieval.corpus import Passages, hash_passages, write_passages
from steppo_gym.retrieval.index_folder import Description, damaged, load_array
from steppo_gym.retrieval.opening import check_passages, index_cached
from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS, Hit, Passage, check_k
from steppo_gym.retrieval.top_k import top_k

_EMBEDDINGS = "embeddings.npy"  # (N, D) float32, rows of length 1
_BATCH = 256


class Encoder(Protocol):
    """Anything that turns texts into vectors, such as a `sentence_transformers.SentenceTransformer`."""

    def encode(self, texts: list[str], /) -> Any:
        """One vector per text: (len(texts), D) float."""
        ...


def load_encoder(model: str) -> Encoder:
    """The sentence-transformers model of this name or in this folder.

    Raises:
        ImportError: the package is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ImportError("Dense retrieval needs more packages. Run: pip install 'steppo-gym[dense]'") from error
    return SentenceTransformer(model)


def open_dense(
    passages: Sequence[Passage],
    encoder: Encoder,
    encoder_name: str,
    *,
    query_prompt: str = "",
    passage_prompt: str = "",
    rebuild: bool = False,
    progress: bool = True,
) -> DenseRetriever:
    """A dense retriever over passages in memory; their embeddings are cached by content.

    Args:
        passages: what to search; ids are unique.
        encoder: makes the embeddings of passages and queries.
        encoder_name: names the encoder in the cache: another encoder needs another name.
        query_prompt: put before every query, as some encoders want it.
        passage_prompt: put before every passage, of which title and text are encoded, with a line break between.
        rebuild: make the embeddings again.
        progress: show a progress bar, on a terminal.

    Raises:
        DataError: there is no passage, or the cached embeddings are damaged.
        ValueError: an id appears twice, or the encoder gave something other than one finite vector per text.
    """
    check_passages(passages)
    engine = f"dense {encoder_name} {passage_prompt!r}"
    corpus = hash_passages(passages)

    def fill(folder: Path) -> Description:
        num_passages = write_passages(folder, passages)
        texts = [f"{passage_prompt}{passage.title}\n{passage.text}" for passage in passages]
        _write_embeddings(folder, encoder, texts, progress)
        return Description(engine, corpus, num_passages)

    return DenseRetriever(index_cached(engine, corpus, fill, rebuild=rebuild), encoder, query_prompt)


class DenseRetriever:
    """Searches the embeddings in a folder that `open_dense` filled.

    Args:
        folder: the index.
        encoder: the one that made the embeddings.
        query_prompt: put before every query.

    Raises:
        DataError: the files do not belong together.
    """

    def __init__(self, folder: Path, encoder: Encoder, query_prompt: str = "") -> None:
        self._passages = Passages(folder)
        self._embeddings = load_array(folder, _EMBEDDINGS, np.float32, num_dimensions=2)
        self._encoder, self._query_prompt = encoder, query_prompt
        if len(self._embeddings) != len(self._passages):
            raise damaged(folder, "its files do not belong together")

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, queries: Sequence[str], k: int) -> list[list[Hit]]:
        """See `Retriever`. The scores are cosines, -1 to 1; every passage has one, so every query has hits.

        Queries are encoded together, and an encoder may round a little differently in batches of another size.
        """
        check_k(k)
        if not queries:
            return []
        vectors = _encode(self._encoder, [self._query_prompt + query[:MAX_QUERY_CHARACTERS] for query in queries])
        if vectors.shape[1] != self._embeddings.shape[1]:
            raise ValueError(
                f"The embeddings have {self._embeddings.shape[1]} dimensions, the encoder gave {vectors.shape[1]} for "
                "a query: it is not the one the index was made with."
            )
        # One product per query: that of a whole batch may round differently.
        return [self._best(self._embeddings @ vector, k) for vector in vectors]

    def close(self) -> None:
        """Does nothing: the memory maps are released with the last one who uses them."""

    def _best(self, scores: np.ndarray, k: int) -> list[Hit]:
        return [Hit(self._passages[int(position)], float(scores[position])) for position in top_k(scores, k)]


def _write_embeddings(folder: Path, encoder: Encoder, texts: Sequence[str], progress: bool) -> None:
    embeddings: np.ndarray | None = None
    for start in _batches(len(texts), progress):
        vectors = _encode(encoder, list(texts[start : start + _BATCH]))
        if embeddings is None:
            shape = (len(texts), vectors.shape[1])
            embeddings = np.lib.format.open_memmap(folder / _EMBEDDINGS, mode="w+", dtype=np.float32, shape=shape)
        embeddings[start : start + _BATCH] = vectors


def _batches(size: int, progress: bool) -> Iterator[int]:
    return iter(tqdm(range(0, size, _BATCH), desc="Embeddings", unit="batch", disable=None if progress else True))


def _encode(encoder: Encoder, texts: list[str]) -> np.ndarray:
    """(len(texts), D) float32, rows of length 1, or of length 0 where the encoder gave zeros."""
    vectors = np.asarray(encoder.encode(texts), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
        raise ValueError(f"Expected {len(texts)} finite vectors from the encoder, found shape {vectors.shape}.")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)
