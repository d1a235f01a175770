"""Official files of queries, and that a test set is never validated on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.envs.paper_search.files import find_file, last_day, read_queries, read_row
from steppo_gym.envs.paper_search.paper_ids import canonical_id
from steppo_gym.envs.paper_search.papers import Query, published_by
from steppo_gym.errors import DataError

PASA = {
    "question": "Which works\n  prune graphs?",
    "answer": ["One", "Two", "One, again"],
    "answer_arxiv_id": ["1706.05350v1", "2401.01234", "1706.05350"],
    "source_meta": {"published_time": "20240322"},
    "qid": "AutoScholarQuery_dev_3",
}
SPAR = {
    "question": "Prune graphs?",
    "answer": ["One"],
    "source_meta": {
        "published_time": "20250320",
        "answers": [
            {"paperID": "d034a77636c0b155eb3f752f161203f7891135cb", "title": "One", "abstract": "Of one."},
            {"paperID": "http://arxiv.org/pdf/2103.14030", "title": "Two", "abstract": None},
            {"paperID": "PMID:38697206", "title": "Three", "abstract": ""},
        ],
    },
}
GYM = {
    "query": "Prune graphs?",
    "cited_paper": [
        {"arxiv_id": "2009.02040", "title": "One", "year": 2020},
        {"arxiv_id": "2009.02041", "title": "Two", "year": 2020},
    ],
    "gt_label": [1, 0],
    "date": "2024-02",
    "source": "LitSearch",
    "qid": "LitSearch_7",
    "valid": True,
}


def write(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "query"),
    [
        (
            PASA,
            Query("AutoScholarQuery_dev_3", "Which works prune graphs?", ("1706.05350", "2401.01234"), "2024-03-14"),
        ),
        (
            SPAR,
            Query(
                "file_4",
                "Prune graphs?",
                ("d034a77636c0b155eb3f752f161203f7891135cb", "2103.14030", "PMID:38697206"),
                "2025-03-20",
            ),
        ),
        (GYM, Query("LitSearch_7", "Prune graphs?", ("2009.02040",), "2024-02-29", "LitSearch")),
        ({**PASA, "answer_arxiv_id": []}, None),
        ({**GYM, "gt_label": [0, 0]}, None),
        ({**GYM, "valid": False}, None),
    ],
    ids=["pasa", "spar", "scholargym", "no answers", "no true answers", "not valid"],
)
def test_rows(row, query):
    assert read_row(row, default_id="file_4") == query


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ([], "found list"),
        ({}, "KeyError: 'source_meta'"),
        ({**PASA, "qid": 7}, "TypeError: ids, question and source must be texts"),
        ({**PASA, "answer_arxiv_id": [None]}, "TypeError: ids, question and source must be texts"),
        ({**PASA, "answer_arxiv_id": "2401.01234"}, "the answers a list of them"),
        ({**PASA, "source_meta": {"published_time": "soon"}}, "expected a date YYYYMMDD or YYYY-MM, found 'soon'"),
        ({**PASA, "source_meta": {"published_time": "20241301"}}, "month from 01 to 12"),
        ({**PASA, "source_meta": {"published_time": "20240231"}}, "ValueError: day"),
        ({**PASA, "source_meta": {"published_time": "00010103"}}, "OverflowError"),
        ({**GYM, "gt_label": [1]}, "ValueError"),
    ],
)
def test_damaged_rows_are_told(row, found):
    with pytest.raises(DataError) as error:
        read_row(row, default_id="x")
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("text", "paper_id"),
    [
        ("2401.01234", "2401.01234"),
        (" 2401.01234v12\n", "2401.01234"),
        ("arXiv:2401.01234v1", "2401.01234"),
        ("https://arxiv.org/abs/1910.01108", "1910.01108"),
        ("http://arxiv.org/pdf/2103.14030v2.pdf", "2103.14030"),
        ("https://www.arxiv.org/abs/cs/0112017v1", "cs/0112017"),
        ("https://aclanthology.org/2021.emnlp-main.243.pdf", "https://aclanthology.org/2021.emnlp-main.243.pdf"),
        ("https://doi.org/10.1109/v1", "https://doi.org/10.1109/v1"),
        ("PMID:40073660", "PMID:40073660"),
        ("d034a77636c0b155eb3f752f161203f7891135cb", "d034a77636c0b155eb3f752f161203f7891135cb"),
    ],
)
def test_ids_of_answers(text, paper_id):
    assert canonical_id(text) == paper_id


@pytest.mark.parametrize(
    ("date", "day"),
    [
        ("20240322", "2024-03-22"),
        ("2024-03-22", "2024-03-22"),
        ("2024-02", "2024-02-29"),
        ("202302", "2023-02-28"),
        ("2023", "2023-12-31"),
    ],
)
def test_last_days(date, day):
    assert last_day(date) == day


@given(st.dates())
def test_a_day_is_its_own_last_day(day):
    text = day.isoformat()
    assert last_day(text) == last_day(text.replace("-", "")) == text
    assert published_by(text, last_day(text[:7]))


def test_files_are_read_in_their_order(tmp_path):
    path = write(
        tmp_path / "own.jsonl", PASA, {**SPAR}, {**PASA, "qid": "b"}, {**PASA, "qid": "c", "answer_arxiv_id": []}
    )
    assert list(read_queries(path, "train")) == ["AutoScholarQuery_dev_3", "own_1", "b"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("{", "is not readable JSON"),
        ("\xff", "is not readable JSON"),
        ("[" * 100_000, "is not readable JSON"),
        ("\n\n", "Expected queries in"),
        ('{"question": 1}', "Row 0 of"),
        (f"{json.dumps(PASA)}\n{json.dumps(PASA)}", "found 'AutoScholarQuery_dev_3' again"),
    ],
)
def test_damaged_files_are_told(tmp_path, content, found):
    path = tmp_path / "own.jsonl"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=r"own\.jsonl") as error:
        read_queries(path, "train")
    assert found in str(error.value)


@pytest.mark.parametrize(
    ("name", "query_id"),
    [
        ("AutoScholarQuery_test.jsonl", "q"),
        ("test.jsonl", "q"),
        ("spar_bench.jsonl", "q"),
        ("scholargym_bench.jsonl", "q"),
        ("RealScholarQuery.jsonl", "q"),
        # Renaming the file does not help.
        ("validation.jsonl", "AutoScholarQuery_test_0"),
        ("validation.jsonl", "RealScholarQuery_9"),
    ],
)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_test_set_is_for_testing_alone(tmp_path, name, query_id, split):
    path = write(tmp_path / name, {**PASA, "qid": "a"}, {**PASA, "qid": query_id})
    with pytest.raises(DataError, match=f"{name} is a test set .* asked for as the split '{split}'"):
        read_queries(path, split)
    assert list(read_queries(path, "test")) == ["a", query_id]


@pytest.mark.parametrize("name", ["AutoScholarQuery_dev.jsonl", "AutoScholarQuery_train.jsonl", "latest_benches.jsonl"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_other_files_are_what_they_are(tmp_path, name, split):
    assert read_queries(write(tmp_path / name, PASA), split)


def test_the_file_of_a_split_is_found(tmp_path):
    for name in ("train", "dev", "test"):
        write(tmp_path / "pasa" / f"AutoScholarQuery_{name}.jsonl", PASA)
    real = write(tmp_path / "pasa" / "RealScholarQuery_test.jsonl", PASA)
    names = {split: find_file(tmp_path, split).name for split in ("train", "validation", "test")}
    assert names == {
        "train": "AutoScholarQuery_train.jsonl",
        "validation": "AutoScholarQuery_dev.jsonl",
        "test": "AutoScholarQuery_test.jsonl",
    }
    assert find_file(real, "test") == real
    write(tmp_path / "old" / "AutoScholarQuery_dev.jsonl", PASA)
    with pytest.raises(DataError, match=r"found old/AutoScholarQuery_dev.jsonl, pasa/AutoScholarQuery_dev.jsonl. Pass"):
        find_file(tmp_path, "validation")
    nearest = write(tmp_path / "AutoScholarQuery_dev.jsonl", PASA)
    assert find_file(tmp_path, "validation") == nearest


def test_the_only_file_that_says_the_split_is_found(tmp_path):
    for name in ("train", "dev", "spar_bench"):
        write(tmp_path / f"{name}.jsonl", PASA)
    assert [find_file(tmp_path, split).stem for split in ("train", "validation", "test")] == [
        "train",
        "dev",
        "spar_bench",
    ]
    write(tmp_path / "other_dev.jsonl", PASA)
    with pytest.raises(
        DataError, match=r"of the split 'validation' in .*, found dev.jsonl, other_dev.jsonl. Pass the fi"
    ):
        find_file(tmp_path, "validation")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match=r"found nothing\. Leave data out to play the built-in queries"):
        find_file(tmp_path / "nothing", "train")
    with pytest.raises(DataError, match=r"Expected one .jsonl file of the split 'train' in .*, found nothing."):
        find_file(tmp_path, "train")


REAL = {
    "pasa/AutoScholarQuery_dev.jsonl": (1000, 2.526),
    "pasa/AutoScholarQuery_test.jsonl": (1000, 2.4),
    "pasa/RealScholarQuery_test.jsonl": (50, 15.8),
    # 78 rows have no paper.
    "pasa/scholargym_bench.jsonl": (2458, 2.37),
    "papers/spar_bench.jsonl": (50, 11.1),
}


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_files_are_read_whole(shared_data, name):
    path = shared_data / name
    if not path.is_file():
        pytest.skip(f"no {path}")
    size, mean_answers = REAL[name]
    queries = read_queries(path, "test").values()
    assert len(queries) == size
    assert sum(len(query.answers) for query in queries) / size == pytest.approx(mean_answers, abs=0.05)
    assert all("2000" < query.until <= "2025-12-31" for query in queries)
    assert not any(
        answer.startswith(("http://arxiv", "https://arxiv")) for query in queries for answer in query.answers
    )
    if "dev" not in name:
        with pytest.raises(DataError, match="is a test set"):
            read_queries(path, "validation")


@pytest.mark.data
def test_splits_of_the_real_folder_have_no_query_in_common(shared_data):
    folder = shared_data / "pasa"
    found = {split: read_queries(find_file(folder, split), split) for split in ("validation", "test")}
    assert not {query.text for query in found["validation"].values()} & {query.text for query in found["test"].values()}
