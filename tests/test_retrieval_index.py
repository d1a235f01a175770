"""Corpus files, and the indexes made from them: cached, shared, checked."""

from __future__ import annotations

import gc
import gzip
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
from retrieval_corpora import make_passages

from steppo_gym.cli import main
from steppo_gym.errors import DataError
from steppo_gym.retrieval import Passage, open_retriever, open_retriever_for, read_corpus
from steppo_gym.retrieval import opening as opening_module
from steppo_gym.retrieval.corpus import hash_passages, join_contents, scan_corpus, split_contents
from steppo_gym.retrieval.index_folder import MANIFEST, Description, build_folder, check_folder
from steppo_gym.retrieval.opening import index_corpus
from steppo_gym.retrieval.records import Records, write_records

ENGINES = ("bm25", "tantivy")
QUERIES = ["moon crew", "apollo 8", "dust"]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(folder))
    return folder


def write_corpus(path, passages, *, search_r1=False):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8") as file:
        for passage in passages:
            record = {"id": passage.id, "contents": join_contents(passage)} if search_r1 else vars(passage)
            file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path / "corpus.jsonl", make_passages(120))


def test_both_forms_compressed_or_not_are_the_same_passages(tmp_path):
    passages = make_passages(20)
    for name in ("a.jsonl", "b.jsonl.gz"):
        for search_r1 in (False, True):
            assert list(read_corpus(write_corpus(tmp_path / name, passages, search_r1=search_r1))) == passages


def test_a_corpus_without_ids_is_numbered_and_empty_lines_are_skipped(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text(
        '{"title": "A", "text": "a"}\n\n  \n{"title": "B", "text": "b", "id": 17}\n{"contents": "C\\nc\\nd"}'
    )
    assert list(read_corpus(path)) == [Passage("0", "A", "a"), Passage("17", "B", "b"), Passage("2", "C", "c\nd")]


def test_the_id_may_have_beirs_name(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"_id": "MED-10", "title": "A", "text": "a", "metadata": {}}\n')
    assert list(read_corpus(path)) == [Passage("MED-10", "A", "a")]


@pytest.mark.parametrize("layout", [{}, {"indent": 2}])
@pytest.mark.parametrize("mark", ["", "\ufeff", "\n "])
def test_a_list_of_passages_is_a_corpus(tmp_path, layout, mark):
    """As HippoRAG's corpora are."""
    passages = [{"title": "A", "text": "a"}, {"title": "B", "text": "b"}]
    path = tmp_path / "corpus.json"
    path.write_text(mark + json.dumps(passages, **layout))
    assert list(read_corpus(path)) == [Passage("0", "A", "a"), Passage("1", "B", "b")]
    path.write_text(mark + json.dumps([*passages, {"title": "C"}], **layout))
    with pytest.raises(DataError, match=r'"title" and "text", or "contents", in row 2 of .*corpus.json, found'):
        list(read_corpus(path))
    path.write_text(mark + json.dumps(passages, **layout)[:-1])
    with pytest.raises(DataError, match=r"Expected JSON lines or a JSON list in .*corpus.json: .* interrupted\?"):
        list(read_corpus(path))


@pytest.mark.parametrize(
    ("contents", "title", "text"),
    [
        ('"Moon"\nDust.\nMore.', "Moon", "Dust.\nMore."),
        ('"Moon "landing""\nDust', 'Moon "landing"', "Dust"),
        ("Moon\nDust", "Moon", "Dust"),
        ('"\nDust', '"', "Dust"),
        ("Moon", "Moon", ""),
        ("", "", ""),
    ],
)
def test_contents(contents, title, text):
    assert split_contents(contents) == (title, text)
    if contents.startswith('"Moon'):
        assert join_contents(Passage("1", title, text)) == contents


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"Line 2 of .*corpus.jsonl is not readable JSON \(Expecting property name"),
        ("[" * 100_000, r"Line 2 of .*corpus.jsonl is not readable JSON"),
        ("[1]", '"title" and "text", or "contents", in line 2'),
        ('{"title": "A"}', '"title" and "text", or "contents", in line 2'),
        ('{"title": 1, "text": "a"}', '"title" and "text", or "contents", in line 2'),
        ('{"title": "A", "text": "a", "id": null}', "a string or an integer as id in line 2 of .* found None"),
        ('{"title": "A", "text": "a", "id": true}', "a string or an integer as id in line 2 of .* found True"),
        ('{"title": "A", "text": "a", "id": "p0"}', "every id once, found 'p0' again in line 2"),
        ('{"title": "\udc80", "text": "a"}', r"Line 2 of .*corpus.jsonl is not readable JSON \('utf-8'"),
    ],
)
def test_lines_that_are_no_passages(tmp_path, line, message):
    path = write_corpus(tmp_path / "corpus.jsonl", make_passages(1))
    with path.open("ab") as file:
        file.write(line.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        list(read_corpus(path))


def test_files_that_are_no_corpora(tmp_path, corpus):
    with pytest.raises(DataError, match=f"JSON lines in {tmp_path}, found a folder"):
        index_corpus(tmp_path)
    with pytest.raises(DataError, match=r"JSON lines in .*none.jsonl, found no such file"):
        open_retriever(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="found no such file"):
        list(read_corpus(tmp_path / "none.jsonl"))
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(corpus.read_bytes())[:-20])
    (tmp_path / "plain.jsonl.gz").write_bytes(corpus.read_bytes())
    for name in ("cut.jsonl.gz", "plain.jsonl.gz"):
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            list(read_corpus(tmp_path / name))
        with pytest.raises(DataError, match=f"{name} cannot be read"):
            open_retriever(tmp_path / name)
    (tmp_path / "empty.jsonl").write_text("\n")
    for _ in range(2):
        with pytest.raises(DataError, match=r"at least one passage in .*empty\.jsonl, found none"):
            open_retriever(tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match="passages with different ids"):
        open_retriever_for([Passage("1", "a", "b"), Passage("1", "c", "d")])


def test_hashes_tell_corpora_apart(tmp_path):
    passages = [Passage("1", "ab", "c"), Passage("2", "d", "e\ud800")]
    others = (
        [Passage("1", "a", "bc"), passages[1]],
        passages[::-1],
        passages[:1],
        [Passage("3", "ab", "c"), passages[1]],
    )
    assert len({hash_passages(each) for each in (passages, *others)}) == 5
    assert hash_passages(iter(passages)) == hash_passages(passages)
    plain = write_corpus(tmp_path / "a.jsonl", make_passages(9))
    packed = write_corpus(tmp_path / "a.jsonl.gz", make_passages(9))
    assert scan_corpus(plain) == scan_corpus(packed)
    assert scan_corpus(plain)[1] == 9


def test_records(tmp_path):
    for records in ([], [b""], [b"", b"a\0", b"", b"\xff" * 70_000]):
        assert write_records(tmp_path, "x", iter(records)) == len(records)
        assert list(Records(tmp_path, "x")) == records
    with pytest.raises(IndexError):
        Records(tmp_path, "x")[-1]
    (tmp_path / "x.bin").write_bytes(b"a")
    with pytest.raises(DataError, match=r"has not the x.ends.npy that belongs to it"):
        Records(tmp_path, "x")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_from_the_cache_is_a_fresh_one(corpus, tmp_path, engine):
    def search():
        code = """
import sys, json
from steppo_gym.retrieval import open_retriever
hits = open_retriever(sys.argv[1], engine=sys.argv[2]).search(sys.argv[3:], 50)
print(json.dumps([[(hit.passage.id, hit.passage.text, hit.score) for hit in each] for each in hits]))
"""
        command = [sys.executable, "-c", code, str(corpus), engine, *QUERIES]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not done.stderr
        return json.loads(done.stdout)

    fresh = search()
    (folder,) = (tmp_path / "cache/retrieval").glob(f"{engine}-*[0-9a-f]")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"}
    assert search() == fresh
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.suffix != ".lock"} == before
    here = open_retriever_for(make_passages(120), engine=engine).search(QUERIES, 50)
    assert [[[hit.passage.id, hit.passage.text, hit.score] for hit in hits] for hits in here] == fresh
    assert open_retriever(folder).search(QUERIES, 50) == here


def test_an_index_is_open_once_and_released_with_its_last_user(corpus):
    first = open_retriever(corpus)
    assert open_retriever(str(corpus)) is first
    assert open_retriever(index_corpus(corpus)) is first
    assert open_retriever(corpus, engine="tantivy") is not first
    gone = weakref.ref(first)
    first.close()
    assert open_retriever(corpus) is first
    del first
    gc.collect()
    assert gone() is None


def test_a_changed_corpus_has_another_index(corpus):
    before = open_retriever(corpus)
    write_corpus(corpus, make_passages(120, seed=1))
    os.utime(corpus, ns=(1, 1))
    assert open_retriever(corpus) is not before
    assert open_retriever(corpus).search(QUERIES, 5) != before.search(QUERIES, 5)


def test_a_corpus_that_changes_while_it_is_indexed_is_refused(corpus, cache, monkeypatch):
    """Its index would lie in the cache under the hash of what was there before."""
    scan = opening_module.scan_corpus

    def scan_and_change(path):
        found = scan(path)
        write_corpus(path, make_passages(7, seed=2))
        return found

    monkeypatch.setattr(opening_module, "scan_corpus", scan_and_change)
    with pytest.raises(DataError, match=r"corpus.jsonl has changed while it was read"):
        open_retriever(corpus)
    assert not list(cache.rglob("manifest.json"))


def test_large_corpora_go_to_tantivy(corpus, monkeypatch):
    monkeypatch.setattr(opening_module, "LARGE_CORPUS", 119)
    assert check_folder(index_corpus(corpus)).engine == "tantivy"
    monkeypatch.setattr(opening_module, "LARGE_CORPUS", 120)
    assert check_folder(index_corpus(corpus)) == Description("bm25", scan_corpus(corpus)[0], 120)


def test_options_that_do_not_fit_the_source(corpus):
    folder = index_corpus(corpus)
    for source in (folder, "http://127.0.0.1:1"):
        for options in ({"engine": "bm25"}, {"rebuild": True}):
            with pytest.raises(ValueError, match="engine and rebuild are for a corpus file"):
                open_retriever(source, **options)


def test_processes_that_build_at_once_get_the_same_index(corpus, cache):
    code = """
import sys, time
from steppo_gym.retrieval import open_retriever
while time.time() < float(sys.argv[2]):
    time.sleep(0.001)
print([hit.passage.id for hit in open_retriever(sys.argv[1]).search(["moon crew"], 20)[0]])
"""
    command = [sys.executable, "-c", code, str(corpus), str(time.time() + 1.5)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    found = {worker.communicate()[0] for worker in workers}
    assert [worker.returncode for worker in workers] == [0] * 4
    assert len(found) == 1
    assert len([path for path in (cache / "retrieval").iterdir() if path.is_dir()]) == 1


def test_threads_that_open_at_once_share_one(corpus):
    found = []
    threads = [threading.Thread(target=lambda: found.append(open_retriever(corpus))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_searches_in_threads_do_not_mix(corpus):
    retriever = open_retriever(corpus)
    expected, wrong = retriever.search(QUERIES, 20), []

    def search():
        wrong.extend(1 for _ in range(50) if retriever.search(QUERIES, 20) != expected)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_build_that_fails_or_was_killed_leaves_nothing(tmp_path):
    folder = tmp_path / "index"

    def fails(target):
        (target / "a").write_text("a")
        raise RuntimeError("full disk")

    with pytest.raises(RuntimeError, match="full disk"):
        build_folder(folder, fails, rebuild=False)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["cache"] * (tmp_path / "cache").exists()
    (tmp_path / "index.unfinished").mkdir()
    (tmp_path / "index.unfinished/left").write_text("x")
    build_folder(folder, lambda target: Description("bm25", "0" * 64, 1), rebuild=False)
    assert [path.name for path in folder.iterdir()] == [MANIFEST]
    with pytest.raises(RuntimeError, match="full disk"):
        build_folder(folder, fails, rebuild=True)
    assert check_folder(folder) == Description("bm25", "0" * 64, 1)


def edit_manifest(folder, **changes):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def save(folder, name, array):
    """Replace an array together with its entry in the manifest, as another program might."""
    np.save(folder / name, array)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"bytes": (folder / name).stat().st_size, "sha256": None}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "found no manifest.json there"),
    "manifest cut": (lambda folder: os.truncate(folder / MANIFEST, 50), "damaged: manifest.json is not JSON"),
    "manifest deep": (lambda folder: (folder / MANIFEST).write_text("[" * 100_000), "damaged: manifest.json is not"),
    "manifest huge": (lambda folder: os.truncate(folder / MANIFEST, 2**21), "has more than 1048576 bytes"),
    "manifest a list": (lambda folder: (folder / MANIFEST).write_text("[]"), "is not a JSON object"),
    "manifest of another format": (
        lambda folder: edit_manifest(folder, format="x" * 999),
        "index of steppo-gym in .*'xxx",
    ),
    "manifest of another version": (lambda folder: edit_manifest(folder, version=0), "has version 0, expected 3"),
    "manifest without files": (lambda folder: edit_manifest(folder, files=None), "manifest.json is not complete"),
    "manifest with odd files": (lambda folder: edit_manifest(folder, files={"a": 1}), "manifest.json is not complete"),
    "another corpus": (lambda folder: edit_manifest(folder, corpus="f" * 64), "found the bm25 index of ffffffffffff"),
    "another engine": (lambda folder: edit_manifest(folder, engine="tantivy"), "found the tantivy index of"),
    "file missing": (lambda folder: (folder / "weights.npy").unlink(), "damaged: weights.npy is missing"),
    "file cut": (
        lambda folder: os.truncate(folder / "positions.npy", 200),
        "positions.npy has 200 bytes, .* were written",
    ),
    "file grown": (lambda folder: os.truncate(folder / "passages.bin", 99_999), "passages.bin has 99999 bytes"),
    "file changed": (lambda folder: flip(folder / "terms.bin"), "the content of terms.bin has changed"),
    "array of objects": (
        lambda folder: save(folder, "columns.npy", np.array([{}, []], dtype=object)),
        "columns.npy cannot be read .*Python objects",
    ),
    "array of another type": (lambda folder: save(folder, "columns.npy", np.zeros(11)), "columns.npy has type float64"),
    "array of another length": (
        lambda folder: save(folder, "columns.npy", np.zeros(2, np.int32)),
        "do not belong together",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_foreign_index_is_refused_and_rebuilt_on_request(corpus, kind):
    before = open_retriever(corpus).search(QUERIES, 20)
    gc.collect()
    damage, message = DAMAGE[kind]
    damage(index_corpus(corpus))
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            open_retriever(corpus)
    assert open_retriever(corpus, rebuild=True).search(QUERIES, 20) == before
    assert open_retriever(corpus).search(QUERIES, 20) == before


def test_the_error_says_how_to_rebuild(corpus):
    folder = index_corpus(corpus)
    flip(folder / "terms.bin")
    with pytest.raises(DataError, match=r"rebuild=True or `steppo-gym index --rebuild`, or delete the folder"):
        open_retriever(corpus)


def test_damage_that_sizes_cannot_show_is_found_by_the_search(corpus):
    folder = index_corpus(corpus)
    save(folder, "positions.npy", np.full_like(np.load(folder / "positions.npy"), 10**6))
    retriever = open_retriever(corpus)
    with pytest.raises(DataError, match="damaged: its content has changed"):
        retriever.search(["moon"], 3)


def test_a_damaged_tantivy_index_is_refused(corpus):
    for name, message in (("meta.json", "has changed"), ("*.term", "has changed"), ("*.idx", "is missing")):
        folder = index_corpus(corpus, engine="tantivy", rebuild=True)
        (path,) = (folder / "tantivy").glob(name)
        path.unlink() if "missing" in message else flip(path)
        with pytest.raises(DataError, match=message):
            open_retriever(corpus, engine="tantivy")
    assert open_retriever(corpus, engine="tantivy", rebuild=True).search(["moon"], 3)[0]


def test_a_rebuild_leaves_the_index_alone_that_others_have_open(corpus):
    before = open_retriever(corpus)
    expected = before.search(QUERIES, 20)
    after = open_retriever(corpus, rebuild=True)
    assert after is not before
    assert open_retriever(corpus) is after
    assert before.search(QUERIES, 20) == after.search(QUERIES, 20) == expected


def test_folders_that_hold_no_index(tmp_path):
    with pytest.raises(DataError, match=r"Expected an index in .*, found no manifest.json there"):
        open_retriever(tmp_path)
    folder = tmp_path / "dense"
    build_folder(folder, lambda target: Description("dense x", "0" * 64, 1), rebuild=False)
    with pytest.raises(DataError, match=r"Expected an index of passages in .* found one of 'dense x'"):
        open_retriever(folder)


def test_the_index_command(corpus, capsys):
    assert main(["index", str(corpus), "--quiet"]) == 0
    folder = Path(capsys.readouterr().out.strip())
    assert open_retriever(folder).search(["moon"], 1)[0]
    flip(folder / "terms.bin")
    assert main(["index", str(corpus)]) == 1
    assert "the content of terms.bin has changed" in capsys.readouterr().err
    assert main(["index", str(corpus), "--rebuild"]) == 0
    assert Path(capsys.readouterr().out.strip()) == folder
    assert main(["index", str(corpus), "--engine", "tantivy"]) == 0
    assert check_folder(Path(capsys.readouterr().out.strip())).engine == "tantivy"
    assert main(["index", str(corpus.with_name("none"))]) == 1
    assert "found no such file" in capsys.readouterr().err
