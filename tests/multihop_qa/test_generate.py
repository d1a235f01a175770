"""The built-in encyclopaedias and the questions about them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import pytest
from benchmark_scripts import load_benchmark

from steppo_gym.envs.multihop_qa.built_in.encyclopaedia import NUM_ENCYCLOPAEDIAS, encyclopaedia
from steppo_gym.envs.multihop_qa.built_in.generate import (
    MIXES,
    SPLIT_SIZES,
    generate_row,
    world_number,
)
from steppo_gym.envs.multihop_qa.built_in.names import KINDS, SPLITS, is_man, names
from steppo_gym.envs.multihop_qa.data import ProceduralQuestions, QuestionFiles
from steppo_gym.envs.multihop_qa.questions import read_row
from steppo_gym.envs.multihop_qa.scoring import DATASETS
from steppo_gym.errors import UnknownTaskError


def rows(dataset, split="test", count=100):
    return [generate_row(dataset, split, index) for index in range(count)]


def test_names_of_the_splits_are_disjoint_and_their_words_known():
    for kind in KINDS:
        sets = [set(names(kind, split)) for split in SPLITS]
        for one, other in itertools.combinations(sets, 2):
            assert not one & other
        train_words = {word for name in sets[0] for word in name.split()}
        assert {word for name in sets[1] | sets[2] for word in name.split()} <= train_words


def test_encyclopaedias_are_large_and_differ():
    worlds = [encyclopaedia(split, number) for split, number in (("train", 0), ("train", 1), ("test", 0))]
    for world in worlds:
        assert 1400 < len(world.things) < 1600
    # Of what both know, hardly anything is the same.
    common = [title for title in worlds[0].things if title in worlds[1].things]
    assert len(common) > 400
    same = sum(worlds[0].sentences(title) == worlds[1].sentences(title) for title in common)
    assert same < len(common) / 100


def test_facts_are_plausible():
    world = encyclopaedia("validation", 0)
    for thing in world.things.values():
        if father := thing.facts.get("father"):
            assert is_man(father)
            assert 20 <= thing.year - world.things[father].year <= 50
        for title in thing.facts.values():
            assert title in world.things
    adapted = [title for title, thing in world.things.items() if thing.title != thing.name]
    assert len(adapted) > 20
    assert len({world.things[title].name for title in adapted}) == len(adapted) / 2


def test_a_page_says_all_facts():
    world = encyclopaedia("train", 3)
    for title, thing in list(world.things.items())[:100]:
        text = "".join(world.sentences(title))
        assert text.startswith(f"{thing.name} is a")
        assert str(thing.year) in text
        for relation, other in thing.facts.items():
            # Only the first fact says whose it is.
            assert any(
                f"{start} is {world.things[other].name}" in text for start in (relation, f"{relation} of {thing.name}")
            )


@pytest.mark.parametrize("dataset", DATASETS)
def test_questions_take_one_page_after_the_other(dataset):
    for index, row in enumerate(rows(dataset)):
        world = encyclopaedia("test", world_number(dataset, "test", index))
        titles = list(dict.fromkeys(title for title, _ in row["supporting_facts"]))
        pages = {title: "".join(world.sentences(title)) for title in titles}
        last = row["supporting_facts"][-1][0]
        assert [title for title in titles if row["answer"] in pages[title]] == [last]
        assert row["answer"] not in row["question"]
        # Every page is named in the question or on one of the pages before, and only the first in the question.
        named = row["question"]
        for title in titles:
            assert world.things[title].name in named, (row["question"], title)
            named += pages[title]
        assert world.things[last].name not in row["question"]


@pytest.mark.parametrize("dataset", DATASETS)
def test_rows_are_like_official_ones(dataset):
    for row in rows(dataset, count=30):
        assert list(row) == ["_id", "question", "answer", "type", "level", "supporting_facts", "context"]
        sentences = dict(row["context"])
        assert len(sentences) == 8 + len({title for title, _ in row["supporting_facts"]})
        for title, number in row["supporting_facts"]:
            assert sentences[title][number]
        question = read_row(row)
        assert question.answers == (row["answer"],)
        assert row["answer"] in question.supporting[-1].text or row["type"] == "bridge_comparison"


@pytest.mark.parametrize("dataset", DATASETS)
def test_kinds_are_those_of_the_data_set(dataset):
    for split in SPLITS:
        kinds = [generate_row(dataset, split, index)["type"] for index in range(10)]
        assert kinds == [*MIXES[dataset], *MIXES[dataset]]
        numbers = {world_number(dataset, split, index) for index in range(SPLIT_SIZES[split])}
        assert numbers == set(range(NUM_ENCYCLOPAEDIAS[split]))


def test_comparisons_go_both_ways():
    questions = [row["question"] for row in rows("2wikimultihopqa", count=100)]
    assert any(" older of the " in text for text in questions)
    assert any(" newer of the " in text for text in questions)
    assert any(" younger of the " in text for text in questions)


def test_questions_are_different():
    for dataset in DATASETS:
        texts = [(world_number(dataset, "train", i), generate_row(dataset, "train", i)["question"]) for i in range(100)]
        assert len(set(texts)) > 98


def test_another_process_makes_the_same_bytes():
    code = (
        "import json; from steppo_gym.envs.multihop_qa.built_in.generate import generate_row;"
        "print(json.dumps([generate_row('musique', 'validation', i) for i in range(20)]))"
    )
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert json.loads(out) == json.loads(json.dumps(rows("musique", "validation", 20)))


def test_a_written_file_reads_like_an_official_one(tmp_path):
    path = tmp_path / "hotpot_dev.json"
    path.write_text(json.dumps(rows("hotpotqa", "validation", 12), ensure_ascii=False), encoding="utf-8")
    files, made = QuestionFiles("hotpotqa", path, "validation"), ProceduralQuestions("hotpotqa", "validation")
    assert files.task_ids == made.task_ids[:12]
    for task_id in files.task_ids:
        assert files.load(task_id) == made.load(task_id).without_paragraphs()


def test_unknown_names():
    with pytest.raises(ValueError, match="split must be one of 'train', 'validation', 'test', got 'dev'"):
        ProceduralQuestions("hotpotqa", "dev")
    with pytest.raises(UnknownTaskError, match="hotpotqa/test/00400"):
        ProceduralQuestions("hotpotqa", "test").load("hotpotqa/test/00400")


@pytest.mark.parametrize("dataset", DATASETS)
def test_no_shortcut_answers_the_questions(dataset):
    for kind, scores in (
        load_benchmark("multihop_qa_controls").control_scores(dataset, "validation", num_questions=100, top_k=5).items()
    ):
        assert max(scores.values()) < 0.1, (kind, scores)
        assert scores["name in the question"] == 0.0
        assert scores["random of the right sort"] > 0.0
