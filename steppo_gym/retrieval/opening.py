"""Opening a retriever: whatever the corpus is, its index is built once and shared by all who use it.

Indexes lie in the cache, named by the content of their corpus; see `steppo_gym.storage.cache`. Within a process every
index is open once, and processes share its memory.
"""

from __future__ import annotations

import hashlib
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from tqdm import tqdm

from steppo_gym.errors import DataError
from steppo_gym.keywords import path_of
from steppo_gym.retrieval.bm25 import BM25Retriever, build_bm25
from steppo_gym.retrieval.corpus import hash_passages, read_corpus, scan_corpus
from steppo_gym.retrieval.engine import Engine, names_engine, read_engine
from steppo_gym.retrieval.index_folder import VERSION, Description, build_folder, check_folder
from steppo_gym.retrieval.retriever import Passage, Retriever
from steppo_gym.storage.cache import cache_dir
from steppo_gym.storage.file_stamps import file_stamps, require_unchanged

LARGE_CORPUS = 1_000_000
"""Passages above which tantivy is the default: BM25 in this process adds up a score for every passage."""

_NO_PASSAGES = "Expected at least one passage in the corpus, found none."

_OPEN: weakref.WeakValueDictionary[Path, Retriever] = weakref.WeakValueDictionary()
_LOCK = threading.RLock()


def open_retriever(
    source: str | Path, *, engine: str | None = None, rebuild: bool = False, progress: bool = True
) -> Retriever:
    """A retriever over a corpus.

    Args:
        source: a corpus file (see `read_corpus`), of which the index is built and cached; the folder of an index that
            `steppo-gym index` built, which is used as it is and spares reading the corpus; or the address of a search
            server, starting with http:// or https://.
        engine: how it is searched, see `steppo_gym.retrieval.engine`; None takes "bm25" up to a million passages.
        rebuild: build the index of a corpus file again.
        progress: show progress bars while building, on a terminal.

    Returns:
        The retriever. Close it when done; one with an index in this process may be shared, so its `close` does nothing.

    Raises:
        DataError: the corpus or the index is missing or damaged.
        ValueError: an option that does not fit the source.
    """
    if str(source).startswith(("http://", "https://")):
        from steppo_gym.retrieval.remote.client import SearchClient

        _check_no_options("a search server", engine, rebuild)
        return SearchClient(str(source))
    if names_engine(source):
        raise ValueError(f"Expected a corpus file, an index folder or an address to search, got the engine {source!r}.")
    path = path_of(source)
    if path.is_dir():
        _check_no_options("an index folder", engine, rebuild)
        return _open_index(path)

    if not path.exists():
        raise DataError(
            f"Expected a corpus of JSON lines in {path}, found no such file. The address of a server begins with "
            "http:// or https://."
        )

    def index(engine: str | None) -> Path:
        return index_corpus(path, engine=engine, rebuild=rebuild, progress=progress)

    return _open_engine_of(engine, index, fresh=rebuild)


def open_retriever_for(
    passages: Sequence[Passage], *, engine: str | None = None, rebuild: bool = False, progress: bool = True
) -> Retriever:
    """A retriever over passages in memory; as `open_retriever` otherwise.

    Raises:
        DataError: the cached index is damaged.
        ValueError: an id appears twice.
    """
    _check_passages(passages)
    return open_retriever_streamed(
        lambda: passages,
        corpus=hash_passages(passages),
        num_passages=len(passages),
        engine=engine,
        rebuild=rebuild,
        progress=progress,
    )


def open_retriever_streamed(
    passages: Callable[[], Iterable[Passage]],
    *,
    corpus: str,
    num_passages: int,
    engine: str | None = None,
    rebuild: bool = False,
    progress: bool = True,
) -> Retriever:
    """A retriever over passages that are only made when the index is built; as `open_retriever` otherwise.

    Args:
        passages: gives all of them in their order, every id once.
        corpus: their SHA-256 as `hash_passages` gives it.
        num_passages: how many there are.
        engine: as for `open_retriever`.
        rebuild: build the index again.
        progress: show progress bars while building, on a terminal.

    Raises:
        DataError: the cached index is damaged.
    """

    def index(engine: str | None) -> Path:
        return _index(corpus, num_passages, passages, engine, rebuild, progress)

    return _open_engine_of(engine, index, fresh=rebuild)


def index_corpus(path: str | Path, *, engine: str | None = None, rebuild: bool = False, progress: bool = True) -> Path:
    """Build the index of a corpus file, if it is not in the cache, and return its folder; see `open_retriever`."""
    path = path_of(path)
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"Expected a corpus of JSON lines in {path}, found {found}.")
    (stamp,) = file_stamps([path])
    corpus, num_lines = _scan(*stamp)

    def passages() -> Iterator[Passage]:
        found = False
        for passage in read_corpus(path):
            found = True
            yield passage
        if not found:
            raise DataError(f"Expected at least one passage in {path}, found none. Is it the right file?")
        # The index lies under the hash of what was there before.
        require_unchanged([stamp])

    return _index(corpus, num_lines, passages, engine, rebuild, progress)


def _index_cached(engine: str, corpus: str, fill: Callable[[Path], Description], *, rebuild: bool) -> Path:
    """The checked folder of an index in the cache, filled if it is not there.

    Args:
        engine: all that decides what the index of a corpus is.
        corpus: SHA-256 of the corpus, in hex.
        fill: writes the index into a folder.
        rebuild: fill it in any case.

    Raises:
        DataError: the index is damaged, or is not what its name says.
    """
    name = hashlib.sha256(f"{engine}\n{VERSION}\n{corpus}".encode()).hexdigest()[:32]
    folder = cache_dir("retrieval", f"{engine.split()[0]}-{name}")
    with _LOCK:
        build_folder(folder, fill, rebuild=rebuild)
    found = check_folder(folder)
    if (found.engine, found.corpus) != (engine, corpus):
        raise DataError(
            f"Expected the {engine} index of the corpus {corpus[:12]} in {folder}, found the {found.engine} index of "
            f"{found.corpus[:12]}. Build it again with rebuild=True or `steppo-gym index --rebuild`."
        )
    return folder


def _check_passages(passages: Sequence[Passage]) -> None:
    """Raise unless there are passages and each has an id of its own."""
    if not passages:
        raise DataError(_NO_PASSAGES)
    if len({passage.id for passage in passages}) != len(passages):
        raise ValueError(f"Expected {len(passages)} passages with different ids, found some twice.")


def _index(
    corpus: str,
    size: int,
    passages: Callable[[], Iterable[Passage]],
    engine: str | None,
    rebuild: bool,
    progress: bool,
) -> Path:
    chosen = read_engine(engine or ("bm25" if size <= LARGE_CORPUS else "tantivy"))
    name = chosen.name
    if chosen.name == "hybrid":
        raise ValueError("hybrid searches two indexes and has none of its own. Build those of bm25 and dense:MODEL.")
    if chosen.name == "dense":
        from steppo_gym.retrieval.dense import describe

        name = describe(chosen.model)

    def fill(folder: Path) -> Description:
        # `disable=None`: only on a terminal.
        shown = tqdm(passages(), desc="Passages", total=size, unit="", disable=None if progress else True)
        num_passages = _build(chosen, shown, folder, progress)
        if num_passages == 0:
            raise DataError(_NO_PASSAGES)
        return Description(name, corpus, num_passages)

    return _index_cached(name, corpus, fill, rebuild=rebuild)


def _build(engine: Engine, passages: Iterable[Passage], folder: Path, progress: bool) -> int:
    if engine.name == "bm25":
        return build_bm25(passages, folder, progress=progress)
    # The others are loaded where they are needed.
    if engine.name == "tantivy":
        from steppo_gym.retrieval.tantivy_index import build_tantivy

        return build_tantivy(passages, folder)
    from steppo_gym.retrieval.dense import build_dense, load_encoder

    return build_dense(passages, folder, load_encoder(engine.model)[0], progress=progress)


def _open_engine_of(engine: str | None, index: Callable[[str | None], Path], *, fresh: bool) -> Retriever:
    """The retriever of an engine, given what makes or finds the index of one."""
    chosen = read_engine(engine) if engine else None
    if chosen is None or chosen.name != "hybrid":
        return _open_index(index(engine), fresh=fresh)
    from steppo_gym.retrieval.fusion import FusedRetriever

    return FusedRetriever([_open_index(index(part), fresh=fresh) for part in (None, f"dense:{chosen.model}")])


def _open_index(folder: Path, *, fresh: bool = False) -> Retriever:
    folder = folder.resolve()
    with _LOCK:
        retriever = None if fresh else _OPEN.get(folder)
        if retriever is None:
            _OPEN[folder] = retriever = _open_engine(folder)
        return retriever


def _open_engine(folder: Path) -> Retriever:
    match check_folder(folder).engine.split(maxsplit=2):
        case ["bm25"]:
            return BM25Retriever(folder)
        case ["tantivy"]:
            from steppo_gym.retrieval.tantivy_index import TantivyRetriever

            return TantivyRetriever(folder)
        case ["dense", _, _]:
            from steppo_gym.retrieval.dense import open_dense

            return open_dense(folder)
        case engine:
            raise DataError(f"Expected an index of passages in {folder}, found one of {' '.join(engine)!r:.80}.")


@lru_cache(maxsize=64)
def _scan(path: Path, size: int, changed: int) -> tuple[str, int]:
    """SHA-256 and lines of a file, read again when its size or time of change differ."""
    del size, changed
    return scan_corpus(path)


def _check_no_options(source: str, engine: str | None, rebuild: bool) -> None:
    if engine is not None or rebuild:
        raise ValueError(f"engine and rebuild are for a corpus file, got them with {source}.")
