"""Official rows in all their layouts."""

from __future__ import annotations

import json

import pytest

from steppo_gym.envs.multihop_qa.data import QuestionFiles
from steppo_gym.envs.multihop_qa.env import HotpotQAEnv
from steppo_gym.envs.multihop_qa.files import find_files
from steppo_gym.envs.multihop_qa.questions import Paragraph, Question, read_row
from steppo_gym.errors import DataError, UnknownTaskError

TOWER = Paragraph("Golden Tower", "Golden Tower is a film. Clara Barlow directed it.")
CLARA = Paragraph("Clara Barlow", "Clara Barlow was born in Salt Harbour.")
ROW = {
    "_id": "5ab9",
    "question": "Where was the director of Golden Tower born? ",
    "answer": "Salt Harbour",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": [["Golden Tower", 1], ["Clara Barlow", 0], ["Golden Tower", 0]],
    "context": [
        ["Clara Barlow", ["Clara Barlow was born in Salt Harbour."]],
        ["Golden Tower", ["Golden Tower is a film.", " Clara Barlow directed it."]],
    ],
}
HUB_ROW = {
    "id": "5ab9",
    "question": ROW["question"],
    "answer": "Salt Harbour",
    "type": "bridge",
    "level": "hard",
    "supporting_facts": {"title": ["Golden Tower", "Clara Barlow"], "sent_id": [1, 0]},
    "context": {
        "title": ["Clara Barlow", "Golden Tower"],
        # Sentences of 2WikiMultihopQA come without the blank between them.
        "sentences": [
            ["Clara Barlow was born in Salt Harbour."],
            ["Golden Tower is a film.", "Clara Barlow directed it."],
        ],
    },
}
MUSIQUE_ROW = {
    "id": "3hop1__9_8_7",
    "question": "Where?",
    "answer": "Salt Harbour",
    "answer_aliases": ["Salt Harbor", "Salt Harbour"],
    "answerable": True,
    "paragraphs": [
        {"idx": 0, "title": "A", "paragraph_text": "first", "is_supporting": True},
        {"idx": 1, "title": "A", "paragraph_text": "second", "is_supporting": False},
        {"idx": 2, "title": "A", "paragraph_text": "third", "is_supporting": True},
    ],
    "question_decomposition": [
        {"id": 1, "question": "?", "answer": "x", "paragraph_support_idx": 2},
        {"id": 2, "question": "?", "answer": "y", "paragraph_support_idx": 0},
    ],
}


@pytest.mark.parametrize("row", [ROW, HUB_ROW], ids=["official", "hub"])
def test_hotpotqa_layouts(row):
    assert read_row(row) == Question(
        task_id="5ab9",
        text="Where was the director of Golden Tower born?",
        answers=("Salt Harbour",),
        kind="bridge",
        supporting=(TOWER, CLARA),
        paragraphs=(CLARA, TOWER),
    )


def test_a_fact_may_name_what_the_row_lacks():
    row = {**ROW, "supporting_facts": [["Not there", 0], *ROW["supporting_facts"]]}
    assert read_row(row).supporting == (Paragraph("Not there", ""), TOWER, CLARA)


def test_aliases_of_2wikimultihopqa():
    aliases = {"Q7": ["Salt Haven", "Salt Harbour"]}
    assert read_row({**ROW, "answer_id": "Q7"}, aliases).answers == ("Salt Harbour", "Salt Haven")
    assert read_row({**ROW, "answer_id": None}, aliases).answers == ("Salt Harbour",)


def test_musique_layout():
    question = read_row(MUSIQUE_ROW)
    assert question.answers == ("Salt Harbour", "Salt Harbor")
    assert question.kind == "3hop"
    # In the order of the hops; titles repeat.
    assert [paragraph.text for paragraph in question.supporting] == ["third", "first"]
    assert read_row({**MUSIQUE_ROW, "answerable": False}) is None
    assert read_row({**MUSIQUE_ROW, "answer_aliases": None}) == read_row({**MUSIQUE_ROW, "answer_aliases": []})


def test_rows_without_paragraphs():
    search_r1 = {"id": "test_1", "question": "Where?", "golden_answers": ["here", "there"]}
    assert read_row(search_r1) == Question("test_1", "Where?", ("here", "there"), "")
    training = {
        "data_source": "hotpotqa",
        "prompt": [{"role": "user", "content": "Where?"}],
        "reward_model": {"ground_truth": "here", "style": "rule"},
        "extra_info": {"question_id": "validation_3", "type": "bridge", "index": 3},
    }
    expected = Question("validation_3", "Where?", ("here",), "bridge", source="hotpotqa")
    assert read_row(training) == expected
    training["prompt"][0]["content"] = "Answer with one word. Where?"
    training["extra_info"]["question"] = "Where?"
    assert read_row(training) == expected


@pytest.mark.parametrize(
    "row", [ROW, MUSIQUE_ROW, {"id": "1", "question": "Where?", "golden_answers": ["here"]}], ids=["a", "b", "c"]
)
def test_a_null_is_as_good_as_no_value(row):
    """Tables have every column in every row, also those that only rows of other layouts fill."""
    keys = ("golden_answers", "answers", "context", "paragraphs", "reward_model", "_id", "data_source", "answerable")
    assert read_row(dict.fromkeys(keys) | row) == read_row(row)


def training_row(source, number, **fields):
    gold = {"ground_truth": {"target": [f"here, {source} {number}"]}, "style": "rule"}
    extra = {"index": number, "split": "train"}
    row = {"id": f"train_{number}", "question": "Where?", "data_source": source, "reward_model": gold}
    return row | {"extra_info": extra} | fields


def test_ids_of_a_merged_file_say_the_data_set(tmp_path):
    rows = [training_row(source, number) for source in ("nq", "hotpotqa") for number in range(2)]
    write(tmp_path / "train.json", rows)
    questions = QuestionFiles("hotpotqa", tmp_path, "train")
    assert questions.task_ids == ("nq/train_0", "nq/train_1", "hotpotqa/train_0", "hotpotqa/train_1")
    assert questions.load("hotpotqa/train_1").answers == ("here, hotpotqa 1",)
    # Those of one data set are the file's own, and within a data set an id still comes once.
    write(tmp_path / "train.json", rows[2:])
    assert QuestionFiles("hotpotqa", tmp_path, "train").task_ids == ("train_0", "train_1")
    write(tmp_path / "train.json", [*rows, rows[0]])
    with pytest.raises(DataError, match=r"Expected every id once in .*, found 'train_0' again"):
        QuestionFiles("hotpotqa", tmp_path, "train")
    write(tmp_path / "train.json", [training_row(3, 0)])
    with pytest.raises(DataError, match="expected text, found int"):
        QuestionFiles("hotpotqa", tmp_path, "train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("text", "every row to be an object, found str"),
        ({key: ROW[key] for key in ROW if key != "answer"}, "has no answer"),
        ({**ROW, "answer": None, "supporting_facts": None}, "has no answer. Those of the official test sets"),
        ({**ROW, "answer": 3}, "expected text, found int"),
        ({**ROW, "answer": ""}, "Expected an answer in every row"),
        ({**ROW, "context": [["title"]]}, "could not read it"),
        ({**ROW, "supporting_facts": [[]]}, "could not read it .IndexError"),
        ({"answer": "x"}, "could not read it .KeyError"),
        ({**MUSIQUE_ROW, "paragraphs": [3]}, "could not read it .TypeError"),
    ],
)
def test_damaged_rows(row, message):
    with pytest.raises(DataError, match=message):
        read_row(row)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_official_names_come_first(tmp_path):
    for name in ("hotpot_train_v1.1.json", "hotpot_dev_distractor_v1.json", "hotpot_dev_fullwiki_v1.json"):
        write(tmp_path / name, [])
    (found,) = find_files("hotpotqa", tmp_path, "validation")
    assert found.name == "hotpot_dev_distractor_v1.json"
    # The zip of 2WikiMultihopQA unpacks into a folder of its own.
    write(tmp_path / "data_ids_april7" / "dev.json", [])
    (found,) = find_files("2wikimultihopqa", tmp_path, "validation")
    assert found.parent.name == "data_ids_april7"


def test_other_names_are_found_if_there_is_no_doubt(tmp_path):
    write(tmp_path / "my_train.json", [])
    assert find_files("musique", tmp_path, "train") == [tmp_path / "my_train.json"]
    for number in range(2):
        write(tmp_path / "distractor" / f"validation-0000{number}-of-00002.parquet", "")
    assert [path.name[:16] for path in find_files("hotpotqa", tmp_path, "validation")] == [
        "validation-00000",
        "validation-00001",
    ]
    write(tmp_path / "your_train.json", [])
    with pytest.raises(DataError, match=r"found my_train.json, your_train.json. Pass the file itself"):
        find_files("musique", tmp_path, "train")
    with pytest.raises(DataError, match=r"steppo-gym download musique"):
        find_files("musique", tmp_path / "nowhere", "train")


def test_of_several_files_none_is_taken_by_chance(tmp_path):
    for folder in ("data", "data_ids"):
        write(tmp_path / folder / "dev.json", [])
        write(tmp_path / folder / "validation-00000-of-00001.parquet", "")
    with pytest.raises(DataError, match=r"found data/dev.json, data_ids/dev.json. Pass the file itself"):
        find_files("2wikimultihopqa", tmp_path, "validation")
    with pytest.raises(DataError, match=r"found data/dev.json, data/validation-00000-of-00001.parquet, data_ids"):
        find_files("hotpotqa", tmp_path, "validation")
    write(tmp_path / "dev.json", [])
    assert find_files("2wikimultihopqa", tmp_path, "validation") == [tmp_path / "dev.json"]
    write(tmp_path / "parts" / "train-00000-of-00002.parquet", "")
    with pytest.raises(DataError, match=r"Expected 2 parts as .*train-00000-of-00002.parquet says, found 1"):
        find_files("hotpotqa", tmp_path, "train")


def test_files_make_questions_and_a_corpus(tmp_path):
    other = {**ROW, "_id": "5aba", "supporting_facts": [], "answer_id": "Q7"}
    write(tmp_path / "train.json", [ROW, other])
    write(tmp_path / "id_aliases.json", '{"Q_id": "Q7", "aliases": ["Haven"], "demonyms": ["Salty"]}\n')
    questions = QuestionFiles("2wikimultihopqa", tmp_path, "train")
    assert questions.task_ids == ("5ab9", "5aba")
    assert questions.load("5aba").answers == ("Salt Harbour", "Haven", "Salty")
    # Both rows have the same two paragraphs.
    (hits,) = questions.retriever("5ab9").search(["Clara Barlow Golden Tower"], 10)
    assert {(hit.passage.title, hit.passage.text) for hit in hits} == {
        (TOWER.title, TOWER.text),
        (CLARA.title, CLARA.text),
    }
    with pytest.raises(UnknownTaskError, match="'5abb'"):
        questions.load("5abb")


def test_a_file_that_changes_is_read_again(tmp_path):
    path = tmp_path / "train.jsonl"
    write(path, json.dumps(MUSIQUE_ROW) + "\n\n")
    assert QuestionFiles("musique", path, "train").task_ids == ("3hop1__9_8_7",)
    write(path, "".join(json.dumps({**MUSIQUE_ROW, "id": f"2hop__{i}"}) + "\n" for i in range(3)))
    assert QuestionFiles("musique", path, "train").task_ids == ("2hop__0", "2hop__1", "2hop__2")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[{]", "not readable JSON"),
        ("a.json", "{}", "must hold a list of questions, found dict"),
        ("a.json", "[]", "Expected questions in .*, found none"),
        ("a.json", [ROW, ROW], "Expected every id once in .*, found '5ab9' again"),
        ("a.json", [ROW, {}], "Row 1 of .*a.json: The row has no answer"),
        ("a.jsonl", json.dumps(ROW) + "\n[", "not readable JSON"),
        ("a.json", "[" * 100_000, "not readable JSON"),
    ],
)
def test_damaged_files(tmp_path, name, content, message):
    write(tmp_path / name, content)
    with pytest.raises(DataError, match=f"(?s){message}"):
        QuestionFiles("hotpotqa", tmp_path / name, "train")


@pytest.mark.parametrize(
    ("dataset", "row"), [("hotpotqa", MUSIQUE_ROW), ("2wikimultihopqa", MUSIQUE_ROW), ("musique", ROW)]
)
def test_a_file_of_another_data_set_is_not_scored_by_this_one(tmp_path, dataset, row):
    write(tmp_path / "train.json", [row])
    with pytest.raises(
        DataError, match=rf"Row 0 of .*train.json: Expected a row of {dataset}, found one in the layout of"
    ):
        QuestionFiles(dataset, tmp_path / "train.json", "train")


def test_damaged_aliases(tmp_path):
    write(tmp_path / "train.json", [ROW])
    write(tmp_path / "id_aliases.json", "[3]")
    with pytest.raises(DataError, match=r"id_aliases.json does not read like one of the official file"):
        QuestionFiles("2wikimultihopqa", tmp_path, "train")


def test_questions_without_paragraphs_want_a_retriever(tmp_path):
    write(tmp_path / "a.jsonl", json.dumps({"id": "1", "question": "Where?", "golden_answers": ["here"]}))
    with pytest.raises(DataError, match=r"nothing to search. Pass a corpus file .* as retriever="):
        HotpotQAEnv(data=tmp_path / "a.jsonl", split="train")
    write(tmp_path / "corpus.jsonl", json.dumps({"id": "7", "contents": "A title\nIt is here."}))
    env = HotpotQAEnv(data=tmp_path / "a.jsonl", split="train", retriever=tmp_path / "corpus.jsonl")
    env.reset(seed=0)
    assert "It is here." in env.step("<search>title</search>")[0]


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(arrow.Table.from_pylist([HUB_ROW]), path)
    assert QuestionFiles("hotpotqa", path, "train").load("5ab9") == read_row(ROW).without_paragraphs()
    # Of a text that is damaged within an intact file the error is one of Python.
    whole = tmp_path / "plain.parquet"
    parquet.write_table(arrow.Table.from_pylist([HUB_ROW]), whole, compression="none")
    damaged = whole.read_bytes().replace(HUB_ROW["question"].encode(), b"\xc5" * len(HUB_ROW["question"]))
    (tmp_path / "damaged.parquet").write_bytes(damaged)
    with pytest.raises(DataError, match=r"damaged.parquet is not a readable parquet file"):
        QuestionFiles("hotpotqa", tmp_path / "damaged.parquet", "train")
    path.write_text("no parquet")
    with pytest.raises(DataError, match="not a readable parquet file"):
        QuestionFiles("hotpotqa", path, "train")
