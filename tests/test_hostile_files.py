"""Data files that are damaged or mean no good: one clear line that names file, record and remedy, and an end."""

import gzip
import json
import os
from pathlib import Path

import gymnasium
import pytest

from steppo_gym.envs.alfworld.built_in.generate import generate_game
from steppo_gym.envs.alfworld.engine.compiled import compile_game
from steppo_gym.envs.alfworld.splits import task_spec
from steppo_gym.envs.multihop_qa.data import QuestionFiles
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.data import QueryFile
from steppo_gym.envs.webshop.data import read_items
from steppo_gym.errors import DataError
from steppo_gym.retrieval import open_retriever
from steppo_gym.storage import data_lines

DEEP = "[" * 100_000
BOM = "\N{ZERO WIDTH NO-BREAK SPACE}"

ROW = {"_id": "a", "question": "Who?", "answer": "Bob", "context": [["T", ["Bob is here."]]]}
PARAGRAPH = {"idx": 0, "title": "T", "paragraph_text": "x", "is_supporting": True}
HOPS = {"id": "2hop__1", "question": "Who?", "answer": "Bob", "paragraphs": [PARAGRAPH]}
ASKED = {"qid": "q1", "question": "Moon?", "answer_arxiv_id": ["1"], "source_meta": {"published_time": "20230501"}}
PASSAGE = {"title": "Moon", "text": "It is round."}
PAPER = {"paper_id": "1", "title": "Moon"}


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write_file


def lines(*rows):
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def questions(path, dataset="hotpotqa"):
    return QuestionFiles(dataset, path, "train")


READERS = {
    "questions": (questions, ROW, ROW | {"_id": "b"}),
    "queries": (lambda path: QueryFile(path, "train"), ASKED, ASKED | {"qid": "q2"}),
    "corpus": (lambda path: open_retriever(path, progress=False), PASSAGE, PASSAGE),
    "papers": (open_corpus, PAPER, PAPER | {"paper_id": "2"}),
}


@pytest.mark.parametrize("kind", READERS)
def test_a_broken_line_is_named_by_file_and_number(write, kind):
    read, first, second = READERS[kind]
    for broken in (json.dumps(second)[:-4], DEEP):
        path = write("rows.jsonl", lines(first, "", broken))
        with pytest.raises(DataError, match=rf"(?i)line 3 of {path}"):
            read(path)


@pytest.mark.parametrize("kind", READERS)
def test_a_byte_order_mark_and_other_line_ends_are_no_fault(write, kind):
    read, first, second = READERS[kind]
    read(write("rows.jsonl", (BOM + lines(first, second)).replace("\n", "\r\n")))


PACKED = {
    b"\x1f\x8b\x08": "packed with gzip: unpack it",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"version https://git-lfs.github.com/spec/v1\n": "fetch that with `git lfs pull`",
    b"\n<!DOCTYPE html>": "a web page, not the file",
    b"\xff\xfe{\0\n\0": "UTF-16: write it as UTF-8",
    b'[{"_id": ': "Was its download interrupted",
    '[{"_id": "\u00e9t\u00e9"}]\n'.encode("latin-1"): "It is not UTF-8: write it as UTF-8",
    '[{"_id": "\u00e9'.encode()[:-1]: "Was its download interrupted",
}


@pytest.mark.parametrize("start", PACKED)
@pytest.mark.parametrize("kind", ["questions", "queries", "papers", "corpus", "games", "shop"])
def test_what_a_file_is_instead_is_said_with_what_to_do(write, kind, start):
    names = {"questions": "rows.json", "shop": "items_shuffle.json", "games": "game.tw-pddl"}
    path = write(names.get(kind, "rows.jsonl"), start)
    read = {"games": lambda path: gymnasium.make("steppo/ALFWorld-v0", data=path).reset(seed=0)}
    read["shop"] = lambda path: list(read_items(path, progress=False))
    with pytest.raises(DataError, match=rf"{path}.*{PACKED[start]}"):
        (read.get(kind) or READERS[kind][0])(path)


def test_json_lines_under_the_name_of_json_are_read(write):
    assert questions(write("rows.json", lines(ROW, ROW | {"_id": "b"}))).task_ids == ("a", "b")
    with pytest.raises(DataError, match="Line 2 of"):
        questions(write("rows.json", lines(ROW, "{")))


@pytest.mark.parametrize("kind", READERS)
def test_lines_have_a_limit(write, kind, monkeypatch):
    monkeypatch.setattr(data_lines, "MAX_LINE_BYTES", 10_000)
    read, first, _ = READERS[kind]
    name = "rows.jsonl" if kind in ("questions", "queries") else "rows.jsonl.gz"
    path = write(name, lines(first) + "[" + " " * 1_000_000)
    with pytest.raises(DataError, match=rf"at most 10000 bytes in a line of {path}, line 2 has more"):
        read(path)


@pytest.mark.parametrize("kind", READERS)
def test_a_file_without_records_is_named(write, kind):
    path = write("rows.jsonl", "\n\n")
    with pytest.raises(DataError, match=str(path)):
        READERS[kind][0](path)


@pytest.mark.parametrize(
    ("dataset", "row"),
    [
        ("hotpotqa", ROW | {"context": [["T", "Bob is here."]]}),
        ("hotpotqa", ROW | {"context": {"title": "AB", "sentences": [["x"], ["y"]]}}),
        ("hotpotqa", ROW | {"supporting_facts": {"title": "T", "sent_id": [0]}}),
        ("musique", HOPS | {"answer_aliases": "Rob"}),
    ],
)
def test_a_text_is_not_taken_for_a_list_of_its_letters(write, dataset, row):
    with pytest.raises(DataError, match=r"Row 0 of .*expected a list of texts, found str"):
        questions(write("rows.jsonl", lines(row)), dataset)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"Q_id": "Q1", "aliases": "Rob", "demonyms": []}, r"Line 1 of .*id_aliases.json .*expected a list of texts"),
        (DEEP, r"Line 1 of .*id_aliases.json is not readable JSON"),
        ({"Q_id": ["Q1"]}, r"Line 1 of .*id_aliases.json does not read"),
    ],
)
def test_damaged_aliases_are_named(write, line, message):
    path = write("dev.json", json.dumps([ROW]))
    write("id_aliases.json", lines(line))
    with pytest.raises(DataError, match=message):
        questions(path, "2wikimultihopqa")


@pytest.mark.parametrize("change", [{"answer": "  "}, {"question": " \n"}])
def test_a_question_without_words_is_none(write, change):
    with pytest.raises(DataError, match=r"Row 0 of .*found none in"):
        questions(write("rows.jsonl", lines(ROW | change)))


def test_rows_of_training_sets_have_an_id(write):
    row = {"prompt": [{"content": "Who?"}], "reward_model": {"ground_truth": "Bob"}}
    assert questions(write("a.jsonl", lines(row | {"extra_info": {"index": 0}}))).task_ids == ("0",)
    # Numbers begin anew in the file of each split, which are told apart by their ids when one is held out.
    split = {"index": 0, "split": "train"}
    assert questions(write("a.jsonl", lines(row | {"extra_info": split}))).task_ids == ("train_0",)
    with pytest.raises(DataError, match=r"Row 0 of .*as id, found None"):
        questions(write("b.jsonl", lines(row)))


HALF = "\ud800"


def test_halves_of_surrogate_pairs_reach_neither_agent_nor_snapshot(write):
    qa = write(
        "qa.jsonl", lines(ROW | {"question": f"Who{HALF}?", "context": [[f"T{HALF}", [f"Bob{HALF} was here."]]]})
    )
    papers = write("papers.jsonl", lines(PAPER | {"abstract": HALF, "authors": [HALF], "date": "2020"}))
    asked = write("asked.jsonl", lines(ASKED | {"question": f"Moon{HALF}?"}))
    for env_id, kwargs in {
        "steppo/HotpotQA-v0": {"data": qa},
        "steppo/PaperSearch-v0": {"data": asked, "papers": papers},
    }.items():
        env = gymnasium.make(env_id, **kwargs).unwrapped
        observations = [env.reset(seed=0)[0]]
        observations += [env.step(f"<search>{word}</search>")[0] for word in ("bob", "moon")]
        if env_id == "steppo/HotpotQA-v0":
            observations.append(env.step(f"<answer>{HALF}</answer>")[0])
        assert all(observation in env.observation_space for observation in observations)
        env.set_state(json.loads(json.dumps(env.get_state())))


@pytest.mark.parametrize(
    "row",
    [
        {"paperId": "1", "title": "Moon", "citationCount": 10**30},
        {"paperId": "1", "title": "Moon", "citationCount": -5},
        {"paperId": "1", "title": "Moon", "publicationDate": "0000-01-01"},
        {"paperId": "1", "title": "Moon", "year": "0000"},
    ],
)
def test_what_a_record_of_semantic_scholar_cannot_mean_is_unknown(write, row):
    (paper,) = open_corpus(write("papers.jsonl", lines(row))).search("moon", limit=5)
    assert (paper.date, paper.num_citations) == ("", 0)


@pytest.mark.parametrize("inner", ["x", [1], 5])
def test_a_link_to_no_record_is_no_paper(write, inner):
    path = write("papers.jsonl", lines({"citingPaper": inner}, {"paperId": "1", "title": "Moon"}))
    assert len(open_corpus(path)) == 1


@pytest.mark.parametrize("count", [10**30, -1, 1.0, True, "1"])
def test_a_number_of_citations_is_a_count(write, count):
    with pytest.raises(DataError, match=r"num_citations as a whole number from 0 in row 1 of"):
        open_corpus(write("papers.jsonl", lines(PAPER | {"num_citations": count})))


def test_ids_of_one_paper_are_one_id(write):
    path = write(
        "papers.jsonl", lines(PAPER | {"paper_id": " arXiv:1706.03762v2 "}, PAPER | {"paper_id": "1706.03762"})
    )
    assert open_corpus(path).paper_ids() == ["1706.03762"]


ITEM = {
    "asin": "B000000001",
    "name": "Red Hat",
    "full_description": "",
    "small_description": ["a"],
    "pricing": "$5",
    "category": "c",
    "query": "hat",
    "product_category": "a",
    "customization_options": {"color": [{"value": "red"}, {"value": "search"}]},
}
WANTED = {"attributes": ["warm"], "instruction": "find hat", "instruction_attributes": ["warm"]}


def shop(write, item):
    write("items_ins_v2.json", json.dumps({"B000000001": WANTED}))
    folder = write("items_shuffle.json", json.dumps([item])).parent
    options = {"goals": "synthetic", "split_rule": "official", "split": "test"}
    return gymnasium.make("steppo/WebShop-v0", data=folder, **options).unwrapped


def test_a_byte_order_mark_before_the_files_of_a_shop_is_no_fault(write):
    shop(write, ITEM).close()
    for name in ("items_ins_v2.json", "items_shuffle.json"):
        path = write(name, b"").parent / name
        path.write_text(BOM + json.dumps({"B000000001": WANTED} if "ins" in name else [ITEM]), encoding="utf-8")
    folder = path.parent
    options = {"goals": "synthetic", "split_rule": "official", "split": "test"}
    assert len(gymnasium.make("steppo/WebShop-v0", data=folder, **options).unwrapped.task_ids) == 2


@pytest.mark.parametrize("pricing", ["$" + "9" * 400, "$1 - $" + "9" * 400, "$1.2.3"])
def test_a_price_that_no_number_can_say_is_named(write, pricing):
    with pytest.raises(DataError, match=r"Product 0 is none of an official items_shuffle file"):
        shop(write, ITEM | {"pricing": pricing})


def test_a_product_without_a_price_costs_100_dollars_as_officially(write):
    item = {key: value for key, value in ITEM.items() if key != "pricing"}
    assert shop(write, item).shop.price("B000000001") == 100.0


def test_an_option_that_is_called_search_cannot_be_clicked_as_officially(write):
    env = shop(write, ITEM)
    env.reset(seed=0)
    env.step("<action>search[hat]</action>")
    info = env.step("<action>click[b000000001]</action>")[-1]
    assert "click[red]" in info["admissible_actions"] and "click[search]" not in info["admissible_actions"]
    assert "nothing of the label" in env.step("<action>click[search]</action>")[-1]["invalid_action"]


@pytest.mark.parametrize("name", ["items_ins_v2.json", "items_shuffle.json"])
def test_a_file_of_a_shop_that_cannot_be_read_is_named(write, name):
    if not Path("/proc/self/mem").exists():
        pytest.skip("no file here that can be opened and not be read")
    shop(write, ITEM).close()
    path = write(name, b"")
    path.unlink()
    path.symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=f"{name} cannot be read"):
        gymnasium.make("steppo/WebShop-v0", data=path.parent, goals="synthetic")


def test_folders_in_place_of_the_files_of_a_shop_are_none(tmp_path):
    (tmp_path / "items_shuffle.json").mkdir()
    with pytest.raises(DataError, match=r"Expected items_shuffle.json or"):
        gymnasium.make("steppo/WebShop-v0", data=tmp_path)


def test_a_manifest_that_is_a_folder_is_named(tmp_path):
    (tmp_path / "index" / "manifest.json").mkdir(parents=True)
    with pytest.raises(DataError, match=r"The index in .*index cannot be read"):
        open_retriever(tmp_path / "index")


def game_with(**changes):
    spec = task_spec("train", "easy", 3)
    game = generate_game(spec.seed, room=spec.room, task_type=spec.task_type).game
    return game | {key: change(game[key]) for key, change in changes.items()}


def test_a_null_byte_in_a_game_is_refused_before_the_library_sees_it():
    # It would end the process.
    game = game_with(pddl_problem=lambda text: text.replace("_bar__", "_bar_\0_"))
    with pytest.raises(DataError, match="a name with the control character"):
        compile_game(game["pddl_domain"], game["pddl_problem"])


def test_a_game_that_begins_with_an_unknown_object_is_refused():
    game = game_with(pddl_problem=lambda text: text.replace("(:init", "(:init (openable nothing_like_it)"))
    with pytest.raises(DataError, match="a fact about 'nothing_like_it', which it does not declare"):
        compile_game(game["pddl_domain"], game["pddl_problem"])


def test_a_game_of_texts_that_cannot_be_written_is_refused(write):
    game = game_with(grammar=lambda text: text.replace("Your task is to:", f"Your task is to: {HALF}"))
    env = gymnasium.make("steppo/ALFWorld-v0", data=write("game.tw-pddl", json.dumps(game)))
    with pytest.raises(DataError, match="lacks the text grammar"):
        env.reset(seed=0)


def test_a_link_to_no_game_and_a_folder_of_no_name_are_named(write, tmp_path):
    trial = tmp_path / "games" / "train" / "pick_and_place_simple-Mug-None-Desk-1" / "trial_1"
    write(f"{trial.relative_to(tmp_path)}/traj_data.json", "{}")
    (trial / "game.tw-pddl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"game.tw-pddl cannot be read \(No such file"):
        gymnasium.make("steppo/ALFWorld-v0", data=tmp_path / "games")
    (trial / "game.tw-pddl").unlink()
    (trial / "game.tw-pddl").write_text(json.dumps({"solvable": True}))
    os.rename(trial, os.fsencode(trial.parent) + b"/trial_\xff")
    with pytest.raises(DataError, match="Rename the folder"):
        gymnasium.make("steppo/ALFWorld-v0", data=tmp_path / "games")
