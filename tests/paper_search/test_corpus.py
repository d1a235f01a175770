"""The corpus of papers on disk: how it is built, what it says of itself, and who may share it."""

from __future__ import annotations

import hashlib
import itertools
import multiprocessing
import pickle
import random
import sqlite3
import threading

import pytest
from paper_corpora import counted, make_citations, make_corpus, make_papers

from steppo_gym.envs.paper_search.corpus import build
from steppo_gym.envs.paper_search.corpus.build import Citation, CorpusInfo, build_corpus, corpus_folder, last_day
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.papers import Paper, published_by
from steppo_gym.errors import DataError
from steppo_gym.retrieval.opening import index_corpus

PAPERS = make_papers(40)
CITATIONS = make_citations(PAPERS)
RECORDS = [*PAPERS, *itertools.starmap(Citation, CITATIONS)]
DATES = ["2020-02-29", "2020-02", "2020", "", "2019-12-31", "1999", "2021-01-01", "2020-03-01", "0001-01-01", "9999"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus") / "papers", PAPERS, CITATIONS)


def test_it_says_what_it_was_made_of(corpus, tmp_path):
    assert corpus.info == CorpusInfo("generated", "made papers", 40, len(CITATIONS), 0)
    assert len(corpus) == 40
    assert corpus.paper_ids() == sorted(paper.paper_id for paper in PAPERS)
    citations = [("a", "b"), ("a", "b"), ("b", "b"), ("a", "elsewhere"), ("elsewhere", "b")]
    papers = [Paper("a", "A"), Paper("b", "B", num_citations=9)]
    other = make_corpus(tmp_path / "other", papers, citations, edges="real", source="two letters")
    assert other.info == CorpusInfo("real", "two letters", 2, 1, 2)
    assert other.citations("b", limit=9) == [Paper("a", "A")]
    assert other.paper("b") == Paper("b", "B", num_citations=9)
    assert other.num_references("a") == 1 and other.num_references("elsewhere") == 0


def test_without_citations_no_edges_are_real(tmp_path):
    corpus = make_corpus(tmp_path / "papers", [Paper("a", "A")], [("a", "elsewhere")], edges="real")
    assert corpus.info == CorpusInfo("none", "made papers", 1, 0, 1)


@pytest.mark.parametrize("until", ["2020-02-29", "2019-12-31", "2021-01-01", "2020-03-01", "0001-01-01", "9999-12-31"])
def test_dates_are_compared_as_published_by_does(until, tmp_path):
    for date in DATES:
        assert (last_day(date) <= until) == published_by(date, until), date
    corpus = make_corpus(tmp_path / "papers", [Paper(f"p{i}", "moon", "", date) for i, date in enumerate(DATES)])
    expected = [f"p{i}" for i, date in enumerate(DATES) if published_by(date, until)]
    assert [paper.paper_id for paper in corpus.search("moon", limit=99, until=until)] == expected


@pytest.mark.parametrize(
    "date", ["2020-13", "2020-1", "2020-02-32", "20200101", "soon", "2020-01-01T00:00", "\uff12\uff10\uff12\uff10"]
)
def test_what_is_no_date_is_refused(date, tmp_path):
    with pytest.raises(ValueError, match="Expected a date as"):
        build_corpus([Paper("a", "A", "", date)], tmp_path / "papers", edges="none", source="")
    assert not (tmp_path / "papers").exists()


@pytest.mark.parametrize("paper", [Paper("", "A"), Paper("a", "")])
def test_papers_have_an_id_and_a_title(paper, tmp_path):
    with pytest.raises(ValueError, match="Expected a paper with an id and a title"):
        build_corpus([paper], tmp_path / "papers", edges="none", source="")


def test_mistakes_of_the_caller(tmp_path):
    with pytest.raises(DataError, match="Expected at least one paper with a title in nowhere, found none"):
        build_corpus([], tmp_path / "papers", edges="none", source="nowhere")
    with pytest.raises(ValueError, match="Expected edges to be one of real, generated, none, got 'made'"):
        build_corpus(PAPERS, tmp_path / "papers", edges="made", source="")
    assert not list(tmp_path.glob("papers*/*"))


def test_of_a_paper_given_twice_the_first_with_the_longest_abstract_counts(tmp_path):
    papers = [Paper("a", "first"), Paper("a", "second", "moon"), Paper("a", "third", "dust"), Paper("a", "fourth", "x")]
    assert make_corpus(tmp_path / "papers", papers).paper("a").title == "second"


def test_the_order_in_which_papers_are_given_changes_nothing(corpus, tmp_path):
    rng = random.Random(1)
    shuffled = make_corpus(tmp_path / "papers", rng.sample(PAPERS, len(PAPERS)), rng.sample(CITATIONS, len(CITATIONS)))
    assert shuffled.content == corpus.content
    for paper in PAPERS:
        assert shuffled.citations(paper.paper_id, limit=99) == corpus.citations(paper.paper_id, limit=99)
        assert shuffled.search(paper.title, limit=99) == corpus.search(paper.title, limit=99)
    fewer = make_corpus(tmp_path / "fewer", PAPERS, CITATIONS[1:])
    assert fewer.content != corpus.content


def test_equally_good_papers_come_by_id(tmp_path):
    papers = [Paper(f"p{i}", "moon", "", f"20{10 + i % 7}") for i in random.Random(0).sample(range(10), 10)]
    found = make_corpus(tmp_path / "papers", papers).search("moon", limit=4)
    assert [paper.paper_id for paper in found] == ["p0", "p1", "p2", "p3"]


def test_few_papers_in_time_are_found_among_many_better_ones(tmp_path):
    papers = [Paper(f"n{i}", "moon moon", "moon", "2022-01-01") for i in range(300)]
    papers += [Paper(f"o{i}", "moon", "dust of many kinds lies here", "2001-01-01") for i in range(5)]
    corpus = make_corpus(tmp_path / "papers", papers)
    for limit in (1, 3, 5, 50):
        found = corpus.search("moon", limit=limit, until="2010-01-01")
        assert [paper.paper_id for paper in found] == [f"o{i}" for i in range(min(limit, 5))]
    # One paper in time that is found last of all: the share of such papers says nothing about where they are.
    corpus = make_corpus(tmp_path / "more", [*papers, *(Paper(f"q{i}", "dust", "", "2001") for i in range(900))])
    assert len(corpus.search("moon", limit=5, until="2010-01-01")) == 5


def test_texts_of_every_kind_are_kept(tmp_path):
    paper = Paper("χ/1", "Über 月\0", 'a "quote"\n; DROP TABLE papers', "2020", ("Žižek, S.", "O'Neil"))
    corpus = make_corpus(tmp_path / "papers", [paper, Paper("s\ud800", "half \ud800", "a \udfff pair")])
    assert corpus.paper("χ/1") == paper
    assert corpus.paper("s?") == Paper("s?", "half ?", "a ? pair")
    assert corpus.paper("s\ud800") is None


def test_what_is_there_is_not_built_again(corpus):
    def never():
        pytest.fail("the corpus was there")
        yield

    built = build_corpus(never(), corpus.folder, edges="real", source="other")
    assert open_corpus(built) is corpus is open_corpus(str(built))
    assert corpus.info.source == "made papers"


def test_building_again_replaces_it(tmp_path):
    before = make_corpus(tmp_path / "papers", [Paper("a", "A")])
    build_corpus([Paper("b", "B")], tmp_path / "papers", edges="none", source="", rebuild=True)
    # Whoever has the old one keeps it.
    assert before.paper("a") and before.search("a", limit=1) == []
    del before
    assert open_corpus(tmp_path / "papers").paper_ids() == ["b"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    def failing():
        yield PAPERS[0]
        raise OSError("disk full")

    with pytest.raises(DataError, match="disk full"):
        build_corpus(failing(), tmp_path / "papers", edges="none", source="")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert len(make_corpus(tmp_path / "papers", PAPERS)) == 40


def test_the_folder_in_the_cache_depends_on_the_key_and_on_the_version_of_indexes(monkeypatch):
    folder = corpus_folder("seed 0")
    assert folder == corpus_folder("seed 0") != corpus_folder("seed 1")
    # An index of an older version is refused where it lies, so another one is built elsewhere.
    monkeypatch.setattr(build, "VERSION", 99)
    assert corpus_folder("seed 0") != folder


def test_tantivy_finds_what_bm25_finds(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "LARGE_CORPUS", 10)
    other = make_corpus(tmp_path / "papers", PAPERS, CITATIONS)
    assert (other.folder / "tantivy").is_dir() and not (corpus.folder / "tantivy").exists()
    assert other.content == corpus.content
    for query in ("moon", "graph search"):
        for until in ("", "2020-06-30"):
            ours, theirs = (source.search(query, limit=99, until=until) for source in (corpus, other))
            assert {paper.paper_id for paper in ours} == {paper.paper_id for paper in theirs}
    # Equal scores are in the order of the ids there too.
    monkeypatch.setattr(build, "LARGE_CORPUS", 1)
    same = make_corpus(tmp_path / "same", [Paper(paper_id, "moon") for paper_id in "cab"])
    assert [paper.paper_id for paper in same.search("moon", limit=2)] == ["a", "b"]


def damage_database(folder):
    path = folder / "papers.sqlite"
    path.write_bytes(hashlib.sha512(b"noise").digest() * (path.stat().st_size // 64))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "papers.sqlite").unlink(), "papers.sqlite is missing"),
        (damage_database, "papers.sqlite"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "Expected an index of steppo-gym"),
        (lambda folder: (folder / "positions.npy").write_bytes(b""), "positions.npy has 0 bytes"),
    ],
)
def test_damage_is_noticed(damage, message, tmp_path):
    folder = build_corpus(RECORDS, tmp_path / "papers", edges="real", source="")
    damage(folder)
    with pytest.raises(DataError, match=message):
        open_corpus(folder)


def test_damage_in_a_large_database_is_noticed_when_it_is_read(tmp_path):
    folder = build_corpus(
        [Paper(f"p{i}", "moon", "dust " * 2000) for i in range(150)], tmp_path / "papers", edges="none", source=""
    )
    assert (folder / "papers.sqlite").stat().st_size > 2**20
    damage_database(folder)
    with pytest.raises(DataError, match="cannot be read"):
        open_corpus(folder)


def test_other_folders_are_no_corpus(tmp_path):
    with pytest.raises(
        DataError, match=r"Expected a file of papers or the folder of a corpus, found another folder in .*nothing"
    ):
        (tmp_path / "nothing").mkdir()
        open_corpus(tmp_path / "nothing")
    passages = tmp_path / "passages.jsonl"
    passages.write_text('{"title": "Moon", "text": "dust"}\n')
    with pytest.raises(DataError, match=r"Expected a corpus of papers in .*, found an index of 'bm25'"):
        open_corpus(index_corpus(passages))


def test_nothing_is_written_when_it_is_used(corpus):
    before = sorted((path.name, path.stat().st_mtime_ns) for path in corpus.folder.iterdir())
    corpus.search("moon", limit=3)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in corpus.folder.iterdir()) == before
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        corpus._connections.execute("DELETE FROM papers")


def answers(corpus):
    return [(corpus.search(paper.title, limit=3), corpus.citations(paper.paper_id, limit=9)) for paper in PAPERS]


def test_threads_share_it(corpus):
    expected, found = answers(corpus), []
    threads = [threading.Thread(target=lambda: found.append(answers(corpus) == expected)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 16


def send_answers(corpus, pipe):
    pipe.send(answers(corpus))


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_process_uses_it(corpus):
    expected = answers(corpus)
    receiver, sender = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=send_answers, args=(corpus, sender))
    process.start()
    assert receiver.poll(20)
    assert receiver.recv() == expected
    process.join(10)
    assert process.exitcode == 0
    assert answers(corpus) == expected


def test_it_can_be_sent_to_another_process(corpus):
    assert pickle.loads(pickle.dumps(corpus)) is corpus


def build_and_count(folder, pipe):
    def noted():
        pipe.send("built")
        yield from RECORDS

    pipe.send(len(open_corpus(build_corpus(noted(), folder, edges="real", source="", progress=False))))


def test_of_many_processes_one_builds(tmp_path):
    context = multiprocessing.get_context("fork")
    pairs = [context.Pipe(duplex=False) for _ in range(4)]
    processes = [context.Process(target=build_and_count, args=(tmp_path / "papers", sender)) for _, sender in pairs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    said = [receiver.recv() for receiver, _ in pairs for _ in range(9) if receiver.poll()]
    assert sorted(map(str, said)) == ["40", "40", "40", "40", "built"]


def test_counts_are_at_least_what_the_corpus_holds(corpus):
    assert [corpus.paper(paper.paper_id) for paper in PAPERS] == counted(PAPERS, CITATIONS)
