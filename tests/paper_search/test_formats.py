"""Files of papers in every format, and the corpora that are made of them."""

from __future__ import annotations

import gzip
import json

import pytest

from steppo_gym.envs.paper_search.corpus import indexing
from steppo_gym.envs.paper_search.corpus.build import Citation
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.corpus.formats import format_of, read_records
from steppo_gym.envs.paper_search.corpus.indexing import index_papers
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.errors import DataError

TURING = "2d5673caa9e6af3a7b82a43f19ee920992db07ad"

OWN = [
    {
        "paper_id": "2201.00001v2",
        "title": " Moon\n landing",
        "abstract": "Dust.",
        "date": "2022-01-03",
        "authors": ["A", "B"],
        "references": ["1706.03762v5", "x"],
        "num_citations": 7,
        "more": True,
    },
    {"paper_id": "x", "title": "Other"},
    {"paper_id": "1706.03762", "title": "Of a month that its id says"},
]
OWN_RECORDS = [
    Paper("2201.00001", "Moon landing", "Dust.", "2022-01-03", ("A", "B"), 7),
    Citation("2201.00001", "1706.03762"),
    Citation("2201.00001", "x"),
    Paper("x", "Other"),
    Paper("1706.03762", "Of a month that its id says", "", "2017-06"),
]

S2 = {
    "paperId": "hub",
    "title": "Hub",
    "year": 2000,
    "citations": [
        {"paperId": "later", "title": "Later", "publicationDate": "2001-05-06", "abstract": None},
        {"isInfluential": True, "citingPaper": {"paperId": "linked", "title": "Linked"}},
        {"paperId": None, "title": "Nobody knows"},
        None,
    ],
    "references": [{"paperId": "earlier", "title": "Earlier", "externalIds": {"ArXiv": "cs/9912001"}}],
}
S2_RECORDS = [
    Paper("hub", "Hub", "", "2000"),
    Paper("later", "Later", "", "2001-05-06"),
    Citation("later", "hub"),
    Paper("linked", "Linked"),
    Citation("linked", "hub"),
    Paper("cs/9912001", "Earlier", "", "1999-12"),
    Citation("hub", "cs/9912001"),
]


def write(path, *rows, text=None):
    path.write_text(text or "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("rows", "kind", "expected"),
    [
        (OWN, "own", OWN_RECORDS),
        ([S2], "semantic_scholar", S2_RECORDS),
    ],
)
def test_each_format_is_read(rows, kind, expected, tmp_path):
    path = write(tmp_path / "papers.jsonl", *rows)
    assert format_of(path) == kind
    assert list(read_records(path)) == expected


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(OWN),
        json.dumps(OWN, indent=2),
        json.dumps({"total": 2, "offset": 0, "data": OWN}),
        json.dumps({"data": OWN}, indent=1),
        "\n" + "\n \n".join(map(json.dumps, OWN)),
        "".join(json.dumps([row]) + "\n" for row in OWN),
    ],
)
def test_rows_may_be_lines_or_a_list(text, tmp_path):
    assert list(read_records(write(tmp_path / "papers.json", text=text))) == OWN_RECORDS
    with gzip.open(tmp_path / "papers.json.gz", "wt") as file:
        file.write(text)
    assert list(read_records(tmp_path / "papers.json.gz")) == OWN_RECORDS


def test_a_single_object_and_an_answer_with_links_are_read(tmp_path):
    assert list(read_records(write(tmp_path / "a.json", text=json.dumps(S2, indent=1)))) == S2_RECORDS
    links = {"offset": 0, "data": [{"citingPaper": {"paperId": "a", "title": "A"}}, {"citedPaper": {"paperId": None}}]}
    # Of whom they are citations is not in the answer.
    assert list(read_records(write(tmp_path / "b.json", links))) == [Paper("a", "A")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expected papers in .*, found nothing"),
        ("[]", "Expected papers in .*, found nothing"),
        ("<html>", "Expected JSON lines or a JSON list"),
        ('{"paper_id": "a", "title": "A"}\n{"paper', "Line 2 of .* is not readable JSON"),
        ("[" * 100_000, "Line 1 of .* is nested too deep"),
        ("7", "Expected a paper with paper_id and title, .* in row 1 of .*, found 7"),
        ('{"paper_id": "a"}', "Expected a paper with paper_id and title"),
        ('{"paper_id": "a", "title": "A"}\n{"paperId": "b"}', "Expected rows of one format, found semantic"),
        ('{"paper_id": "a", "title": "A"}\n[]\n{"id": 7}', "in row 2 of"),
        ('{"paper_id": "a", "title": " "}', "Expected an id and a title that are not empty in row 1"),
        ('{"paper_id": "a", "title": "A", "date": "soon"}', "Expected abstract as text, date as"),
        ('{"paper_id": "a", "title": "A", "abstract": 7}', "Expected abstract as text, date as"),
        ('{"paper_id": "a", "title": "A", "num_citations": "7"}', "num_citations as a whole number"),
        ('{"paper_id": "a", "title": "A", "references": "b"}', "Expected references as a list of texts"),
        ('{"paper_id": "a", "title": "A", "authors": [7]}', "Expected authors as a list of texts"),
        ('{"bib_entries": {}, "title": "A"}', "become such with the scripts in converters/"),
        ('{"source_meta": {"answers": []}}', "become such with the scripts in converters/"),
        ('{"data": null}', "Expected papers in .*, found nothing"),
        ("null", "Expected papers in .*, found nothing"),
    ],
)
def test_what_is_wrong_in_a_file_is_explained(text, message, tmp_path):
    path = tmp_path / "papers.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(read_records(path))


def test_nulls_are_no_papers(tmp_path):
    odd = {"paperId": "a", "title": "A", "citations": None, "references": [None, {"citedPaper": None}, 7]}
    path = write(tmp_path / "papers.jsonl", {"data": None}, [None, odd], {"data": [None]}, odd | {"citations": 7})
    assert list(read_records(path)) == [Paper("a", "A"), Paper("a", "A")]


def test_a_folder_is_no_file_of_papers(tmp_path):
    with pytest.raises(DataError, match="found another folder in"):
        open_corpus(tmp_path)


def test_a_damaged_archive_is_explained(tmp_path):
    path = tmp_path / "papers.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(OWN[1]).encode() * 99)[:-9])
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(path))
    path.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_records(path))


def test_several_files_make_one_corpus(tmp_path):
    own = write(tmp_path / "own.jsonl", *OWN)
    bare = write(tmp_path / "bare.jsonl", {"paper_id": "W42", "title": "Moon"}, {"paper_id": "y", "title": "Sun"})
    more = write(tmp_path / "more.jsonl", {"paper_id": "1706.03762", "title": "Attention", "references": ["W42"]})
    corpus = open_corpus(index_papers([own, bare, more], progress=False))
    assert corpus.info.num_papers == 5 and corpus.info.edges == "real"
    assert corpus.info.source == (
        "own.jsonl: papers with references; bare.jsonl: papers with references; more.jsonl: papers with references"
    )
    assert [paper.paper_id for paper in corpus.references("2201.00001", limit=9)] == ["1706.03762", "x"]
    assert [paper.paper_id for paper in corpus.citations("W42", limit=9)] == ["1706.03762"]
    assert open_corpus(index_papers([bare])).info.edges == "none"
    assert open_corpus(index_papers([bare, own], generated=True)).info.edges == "generated"


def test_a_corpus_is_built_again_when_its_file_has_changed(tmp_path):
    path = write(tmp_path / "own.jsonl", *OWN)
    first = open_corpus(path)
    assert open_corpus(str(path)) is first
    write(path, *OWN, {"paper_id": "y", "title": "More"})
    assert len(open_corpus(path)) == len(first) + 1 == 4


def test_papers_that_change_while_they_are_indexed_are_refused(tmp_path, monkeypatch):
    path, digest = write(tmp_path / "changing.jsonl", *OWN), indexing._digest

    def digest_and_change(*stamp):
        found = digest(*stamp)
        write(path, *OWN[1:])
        return found

    monkeypatch.setattr(indexing, "_digest", digest_and_change)
    with pytest.raises(DataError, match=r"changing.jsonl has changed while it was read"):
        open_corpus(path)
    monkeypatch.undo()
    write(path, *OWN)
    assert len(open_corpus(path)) == len(OWN)


@pytest.mark.data
def test_the_star_around_turings_paper(shared_data):
    path = shared_data / "papers" / "s2_turing1950_citations_references.json"
    given = json.loads(path.read_text(encoding="utf-8"))
    corpus = open_corpus(path)
    assert corpus.info.edges == "real"
    assert corpus.info.source == f"{path.name}: Semantic Scholar records with the citations in them"
    named = [paper for paper in given["references"] if paper["paperId"]]
    assert (corpus.info.num_papers, corpus.info.num_citations) == (1 + 1000 + len(named), 1000 + len(named))
    turing = corpus.paper(TURING)
    assert (turing.title, turing.date) == ("Computing Machinery and Intelligence", "1950-10-01")
    assert turing.num_citations == 10059
    citing = corpus.citations(TURING, limit=2000)
    assert len(citing) == 1000 and citing[0].date >= citing[1].date >= citing[500].date
    assert {paper.paper_id for paper in citing} == {
        entry["externalIds"].get("ArXiv", entry["paperId"]) for entry in given["citations"]
    }
    assert all(paper.date <= "2010-12-31" for paper in corpus.citations(TURING, limit=50, until="2010-12-31"))
    assert {paper.title for paper in corpus.references(TURING, limit=99)} == {
        " ".join(paper["title"].split()) for paper in named
    }
    assert TURING in {paper.paper_id for paper in corpus.search("computing machinery and intelligence", limit=10)}
