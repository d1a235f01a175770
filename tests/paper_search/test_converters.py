"""The scripts in `converters/`: papers of other formats, written as rows of our own and read back."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pasa_papers
import pytest
from paper_rows import convert
from pasa_papers import read_pasa_database, title_key
from spar_papers import read_spar
from unarxive_papers import read_unarxive

from steppo_gym.envs.paper_search.corpus.build import Citation
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.corpus.formats import read_records
from steppo_gym.envs.paper_search.papers import Paper
from steppo_gym.errors import DataError


def converted(description, read, source, target):
    """Records and corpus of what a converter makes of a file or folder."""
    assert convert(description, read, [str(source), str(target)]) == 0
    return list(read_records(target)), open_corpus(target)


UNARXIVE = {
    "paper_id": "2212.11867",
    "_pdf_hash": None,
    "metadata": {
        "id": "2212.11867",
        "title": "Zeros of a\n  growing number",
        "authors": "Marcus Michelen, Xuan-Truong Vu and A. N. Other",
        "abstract": "  Let $X_1$ be ...\n",
        "versions": [{"version": "v1", "created": "Thu, 22 Dec 2022 17:12:02 GMT"}, {"version": "v2"}],
        "update_date": "2023-05-23",
    },
    "abstract": {"section": "Abstract", "text": "..."},
    "bib_entries": {
        "a": {"bib_entry_raw": "...", "ids": {"arxiv_id": "2104.06921", "doi": ""}, "contained_arXiv_ids": []},
        "b": {"ids": {"arxiv_id": ""}, "contained_arXiv_ids": [{"id": "1206.6692v1"}, {"id": "cs/0112017"}]},
        "c": {"ids": None, "contained_arXiv_ids": None},
        "d": None,
    },
}
UNARXIVE_RECORDS = [
    Paper(
        "2212.11867",
        "Zeros of a growing number",
        "Let $X_1$ be ...",
        "2022-12-22",
        ("Marcus Michelen", "Xuan-Truong Vu", "A. N. Other"),
    ),
    Citation("2212.11867", "2104.06921"),
    Citation("2212.11867", "1206.6692"),
    Citation("2212.11867", "cs/0112017"),
]
SAMPLE = {
    "paper_id": "2212.11867",
    "title": "Zeros",
    "abstract": "Let",
    "authors": "M",
    "update_date": "2023-05-23",
    "bib_entries": [{"key": "a", "arxiv_ids": ["2002.11768"], "ids": {"arxiv_id": ""}}],
}
SAMPLE_RECORDS = [Paper("2212.11867", "Zeros", "Let", "2022-12", ("M",)), Citation("2212.11867", "2002.11768")]

SPAR = {
    "question": "Which?",
    "source_meta": {
        "published_time": "20250320",
        "answers": [
            {"paperID": "W42", "title": "Moon", "abstract": "Dust.", "author": ["A", "B"], "year": "2023"},
            {"paperID": "2406.04286v1", "title": "Sun", "abstract": " Hot ", "author": "C, D", "citationCount": 3},
            {"paperID": "", "title": "Nobody"},
            {"paperID": "y", "title": " "},
        ],
    },
}
SPAR_RECORDS = [
    Paper("W42", "Moon", "Dust.", "2023", ("A", "B")),
    Paper("2406.04286", "Sun", "Hot", "2024-06", ("C", "D"), 3),
]


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("read", "row", "expected"),
    [
        (read_unarxive, UNARXIVE, UNARXIVE_RECORDS),
        (read_unarxive, SAMPLE, SAMPLE_RECORDS),
        (read_unarxive, SAMPLE | {"bib_entries": [{"arxiv_ids": "2002.11768"}]}, SAMPLE_RECORDS),
        (read_spar, SPAR, SPAR_RECORDS),
    ],
)
def test_each_format_is_converted(read, row, expected, tmp_path, capsys):
    source, target = write(tmp_path / "source.jsonl", row), tmp_path / "papers.jsonl"
    records, _ = converted("", read, source, target)
    assert records == expected
    count = sum(isinstance(record, Paper) for record in expected)
    assert capsys.readouterr().out == f"{count} papers written to {target}.\n"


def test_a_day_that_is_none_is_not_written(tmp_path):
    """The corpus would refuse all of the file."""
    paper_id, created = "2212.00001", {"created": "Thu, 99 Dec 2022 17:12:02 GMT"}
    row = {"paper_id": paper_id, "bib_entries": {}, "metadata": {"title": "A", "versions": [created]}}
    records, _ = converted("", read_unarxive, write(tmp_path / "source.jsonl", row), tmp_path / "papers.jsonl")
    assert [record.date for record in records] == ["2022-12"]


@pytest.mark.parametrize(
    ("read", "row", "message"),
    [
        (read_unarxive, {"bib_entries": {}, "title": "A"}, "Expected paper_id and title of unarXive in row 1"),
        (read_unarxive, {"title": "A"}, "Expected a paper of unarXive .* in row 1"),
        (read_unarxive, 7, "Expected a paper of unarXive .* in row 1"),
        (read_spar, {"source_meta": {"answers": None}}, "Expected a query of the SPAR bench .* in row 1"),
        (read_spar, UNARXIVE, "Expected a query of the SPAR bench .* in row 1"),
    ],
)
def test_what_is_wrong_in_a_file_is_explained(read, row, message, tmp_path):
    with pytest.raises(DataError, match=message):
        list(read(write(tmp_path / "source.jsonl", row)))


def test_a_converter_that_fails_leaves_nothing(tmp_path, capsys):
    source, target = write(tmp_path / "source.jsonl", SPAR, {}), tmp_path / "papers.jsonl"
    target.write_text("before")
    assert convert("", read_spar, [str(source), str(target)]) == 1
    assert "Expected a query of the SPAR bench" in capsys.readouterr().err
    assert target.read_text() == "before" and len(list(tmp_path.iterdir())) == 2

    def interrupted(path):
        yield from read_spar(write(path, SPAR))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert("", interrupted, [str(source), str(target)])
    assert target.read_text() == "before" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("name", ["pasa_papers", "spar_papers", "unarxive_papers"])
def test_each_is_a_script(name, repository):
    command = [sys.executable, str(repository / "converters" / f"{name}.py"), "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"python converters/{name}.py" in ended.stdout


def pasa(folder, entries, titles):
    folder.mkdir(exist_ok=True)
    (folder / "id2paper.json").write_text(json.dumps(titles))
    with zipfile.ZipFile(folder / "cs_paper_2nd.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry if isinstance(entry, str | bytes) else json.dumps(entry))
    return folder


TITLES = {
    "1706.03762": "Attention Is All\n You Need",
    "2201.11990": "Using DeepSpeed, and Megatron!",
    "2404.00001": "Twice",
    "2404.00002v2": "twice.",
    "2404.00003": "Only a title",
}
ENTRIES = {
    "usingdeepspeedandmegatron": {
        "title": "Using DeepSpeed",
        "abstract": " Large.\n",
        "sections": {
            "1 Introduction": ["Attention is all you need.", "Unknown", "Twice", 7],
            "2 Related": ["ATTENTION IS ALL YOU NEED", "Only a Title"],
            "3 Text": "plain",
        },
    },
    "attentionisallyouneed": {"title": "Attention", "abstract": None, "sections": []},
    "twice": {"abstract": "Shared."},
    "../../escape": {"abstract": "never read"},
}


def test_pasa_papers_cite_by_title(tmp_path):
    folder = pasa(tmp_path / "paper_database", ENTRIES, TITLES)
    target = tmp_path / "papers.jsonl"
    expected = [
        Paper("1706.03762", "Attention Is All You Need", "", "2017-06"),
        Paper("2201.11990", "Using DeepSpeed, and Megatron!", "Large.", "2022-01"),
        Citation("2201.11990", "1706.03762"),
        Citation("2201.11990", "2404.00003"),
        Paper("2404.00001", "Twice", "Shared.", "2024-04"),
        Paper("2404.00002", "twice.", "Shared.", "2024-04"),
        Paper("2404.00003", "Only a title", "", "2024-04"),
    ]
    records, corpus = converted("PaSa", read_pasa_database, folder, target)
    assert records == expected
    assert (corpus.info.edges, corpus.info.num_papers, corpus.info.num_citations) == ("real", 5, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["cs_paper_2nd.zip", "id2paper.json"]


def test_a_key_is_the_letters_of_a_title():
    assert title_key("GPT-4: A Über-Model, v2") == "gptaübermodelv"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (b"<html>", "Expected a JSON object"),
        (b"[1]", "Expected a JSON object"),
        (b"[" * 99_999, "Expected a JSON object"),
        (b" " * 2000, "Expected at most 1000 bytes in 'moon' of .*, found 2000"),
    ],
)
def test_bad_entries_of_pasa_are_explained(entry, message, tmp_path, monkeypatch):
    if len(entry) == 2000:
        monkeypatch.setattr(pasa_papers, "MAX_ENTRY_BYTES", 1000)
    folder = pasa(tmp_path / "db", {"moon": entry}, {"1": "Moon"})
    with pytest.raises(DataError, match=message):
        list(read_pasa_database(folder))


def test_bad_files_of_pasa_are_explained(tmp_path):
    folder = pasa(tmp_path / "db", {"moon": {"abstract": "Dust. " * 99}}, {"1": "Moon"})
    archive = folder / "cs_paper_2nd.zip"
    whole = archive.read_bytes()
    for damaged in (b"no zip", whole[:40] + b"\xff" * 9 + whole[49:]):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="Expected an undamaged zip file"):
            list(read_pasa_database(folder))
    archive.unlink()
    with pytest.raises(DataError, match=r"Expected cs_paper_2nd.zip .* found no such file"):
        list(read_pasa_database(folder))
    for text in ("[]", "<html>", '{"1": 7}'):
        (folder / "id2paper.json").write_text(text)
        with pytest.raises(DataError, match="Expected a JSON object"):
            list(read_pasa_database(folder))
    (folder / "id2paper.json").unlink()
    with pytest.raises(DataError, match=r"Expected id2paper.json .* found no such file"):
        list(read_pasa_database(folder))


@pytest.mark.data
def test_the_papers_of_the_spar_bench(shared_data, tmp_path):
    _, corpus = converted("", read_spar, shared_data / "papers" / "spar_bench.jsonl", tmp_path / "papers.jsonl")
    assert (corpus.info.edges, corpus.info.num_papers, corpus.info.num_citations) == ("none", 524, 0)
    found = corpus.search("multilingual language models", limit=5, until="2024-12-31")
    assert len(found) == 5 and all(paper.abstract for paper in found)


@pytest.mark.data
def test_the_sample_of_unarxive(shared_data, tmp_path):
    source = shared_data / "papers" / "unarxive_sample_49.jsonl"
    records, corpus = converted("", read_unarxive, source, tmp_path / "papers.jsonl")
    assert sum(isinstance(record, Citation) for record in records) >= 250
    # Nobody in the sample cites anybody in the sample.
    assert (corpus.info.edges, corpus.info.num_papers, corpus.info.num_citations) == ("none", 49, 0)
    assert corpus.info.num_outside >= 250
    assert {paper.date for paper in map(corpus.paper, corpus.paper_ids())} == {"2022-12"}
