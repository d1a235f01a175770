"""Keywords, task ids and paths that are none: each is refused in words, whatever its type."""

import contextlib
import copy
import dataclasses
import json
import pickle

import gymnasium
import numpy as np
import pytest

import steppo_gym
from steppo_gym.env_arguments import env_argument
from steppo_gym.errors import DataError, EpisodeOverError, UnknownTaskError
from steppo_gym.retrieval import open_retriever

IDS = steppo_gym.registered_ids()


def make(env_id, **kwargs):
    return gymnasium.make(env_id, **kwargs).unwrapped


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(
    ("keyword", "value", "message"),
    [
        ("max_steps", "5", "max_steps must be a whole number, got '5'"),
        ("max_steps", 1.5, "max_steps must be a whole number, got 1.5"),
        ("max_steps", True, "max_steps must be a whole number, got True"),
        ("max_steps", 0, "max_steps must be at least 1, got 0"),
        ("invalid_action_reward", "x", "invalid_action_reward must be a number, got 'x'"),
        ("invalid_action_reward", float("nan"), "invalid_action_reward must be 0 or negative, got nan"),
    ],
)
def test_a_keyword_of_another_type_is_refused_by_name(env_id, keyword, value, message):
    with pytest.raises(ValueError, match=message):
        make(env_id, **{keyword: value})


@pytest.mark.parametrize(
    ("env_id", "keyword"),
    [
        ("steppo/HotpotQA-v0", "top_k"),
        ("steppo/WebShop-v0", "results_per_page"),
        ("steppo/PaperSearch-v0", "listed_papers"),
        ("steppo/PaperSearch-v0", "abstract_words"),
    ],
)
def test_a_count_is_a_whole_number(env_id, keyword):
    for value in ("3", 2.5):
        with pytest.raises(ValueError, match=f"{keyword} must be a whole number, got {value!r}"):
            make(env_id, **{keyword: value})
    given = {keyword: np.int64(3), "max_steps": np.int64(1), "invalid_action_reward": np.float32(-0.5)}
    env = make(env_id, **given)
    env.reset(seed=0)
    assert env.step("x")[3] is True
    json.dumps([env.get_state(), dataclasses.asdict(env.protocol)])


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("task_id", [5, ["a"], {}, "\ud800", b"train-0"])
def test_what_is_no_task_is_an_unknown_task(env_id, task_id):
    env = make(env_id)
    said = "Unknown task_id '" if isinstance(task_id, str) else "Unknown task_id .*, which is no text. This split has"
    with pytest.raises(UnknownTaskError, match=said):
        env.reset(options={"task_id": task_id})
    env.close()


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("split", ["dev", None, ["train"], 3])
def test_a_split_that_does_not_exist_is_the_same_error_everywhere(env_id, split):
    with pytest.raises(UnknownTaskError, match=r"split must be one of 'train', .*got"):
        make(env_id, split=split)


@pytest.mark.parametrize("env_id", IDS)
def test_what_needs_an_episode_says_so_before_there_is_one(env_id):
    env = make(env_id)

    def require_none():
        for needs_one in (env.expert_response, env.get_state):
            with pytest.raises(EpisodeOverError, match=r"There is no episode to .* Call reset\(\) first"):
                needs_one()

    require_none()
    with pytest.raises(UnknownTaskError):
        env.reset(options={"task_id": "none"})
    require_none()
    env.reset(seed=0)
    # A snapshot that is refused half-way leaves no episode either.
    with pytest.raises(DataError):
        env.set_state(env.get_state() | {"task": None})
    require_none()
    env.close()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ("train-0", TypeError, "The options of reset are an object such as {'task_id': ..}, got 'train-0'"),
        (["train-0"], TypeError, "are an object"),
        ({"task": "train-0", 5: 1}, ValueError, r"Unknown reset options \['5', 'task'\]. The only option is 'task_id'"),
    ],
)
def test_options_of_reset_are_refused_in_words(options, error, message):
    with pytest.raises(error, match=message):
        make("steppo/KeyDoor-v0").reset(options=options)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("name", ["no\ud800", "no\0", "nothing/here"])
def test_data_that_no_file_can_be_is_refused_in_words(env_id, name):
    with pytest.raises((DataError, ValueError), match=r"found nothing|data must be None"):
        make(env_id, data=name)


@pytest.mark.parametrize("value", [5, True, ["a"], 1.5, b"folder"])
def test_a_place_is_a_path_or_an_address(value):
    places = {env_id: ["data"] for env_id in IDS if env_id != "steppo/KeyDoor-v0"}
    places["steppo/HotpotQA-v0"].append("retriever")
    places["steppo/PaperSearch-v0"].append("papers")
    for env_id, keywords in places.items():
        for keyword in keywords:
            with pytest.raises(ValueError, match=f"{keyword} must be a path or an address"):
                make(env_id, **{keyword: value})


def test_an_address_without_http_is_told_what_it_lacks(tmp_path):
    rows = {
        "hotpot.jsonl": {"_id": "a", "question": "Who?", "answer": "Bob", "context": [["T", ["Bob is here."]]]},
        "asked.jsonl": {
            "qid": "q1", "question": "Moon?", "answer_arxiv_id": ["1"], "source_meta": {"published_time": "20230501"}
        },
    }  # fmt: skip
    for name, row in rows.items():
        (tmp_path / name).write_text(json.dumps(row))
    said = r"in \S*localhost:8000, found no such file\. The address of a server begins with http://"
    with pytest.raises(DataError, match=said):
        make("steppo/HotpotQA-v0", data=tmp_path / "hotpot.jsonl", retriever="localhost:8000")
    with pytest.raises(DataError, match=said):
        make("steppo/PaperSearch-v0", data=tmp_path / "asked.jsonl", papers="localhost:8000")
    with pytest.raises(
        ValueError, match=r"got retriever='BM25' without data.* or another way to search: bm25, tantivy"
    ):
        make("steppo/HotpotQA-v0", retriever="BM25")


@pytest.mark.parametrize("value", ["False", "false", "no", 0, 1, None])
@pytest.mark.parametrize("keyword", ["show_gold", "any_text_stops"])
def test_a_flag_is_true_or_false(keyword, value):
    # "False" in quotation marks, as a command line has it, would show the answers.
    with pytest.raises(ValueError, match=f"{keyword} must be true or false, got {value!r}"):
        make("steppo/PaperSearch-v0", **{keyword: value})


@pytest.mark.parametrize("relevance", [5, None, ["gold"], "gilded"])
def test_a_scorer_that_is_none_is_refused(relevance):
    with pytest.raises(ValueError, match="relevance must be one of 'gold', 'lexical'"):
        make("steppo/PaperSearch-v0", relevance=relevance)


@pytest.mark.parametrize("keyword", ["listed_papers", "abstract_words"])
def test_a_limit_of_any_size_is_one(keyword):
    env = make("steppo/PaperSearch-v0", **{keyword: 10**30})
    env.reset(seed=0)
    env.step(env.expert_response())


@pytest.mark.parametrize("task_types", [5, "look_at_obj_in_light", [], {"look_at_obj_in_light": 1}])
def test_task_types_are_a_sequence_of_names(task_types):
    with pytest.raises(ValueError, match="task_types must be a non-empty sequence of names"):
        make("steppo/ALFWorld-v0", task_types=task_types)


def test_a_value_that_is_nested_too_deep_is_text():
    assert env_argument("x=" + "[" * 100_000) == ("x", "[" * 100_000)


def test_a_place_on_a_command_line_is_the_same_from_every_folder(tmp_path, monkeypatch):
    for name in ("games", "bm25"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GAMES", "games")
    for typed in ("games", "./games", "$GAMES"):
        assert env_argument(f"data={typed}") == ("data", str(tmp_path / "games"))
        assert env_argument(f"papers={typed}") == ("papers", str(tmp_path / "games"))
        assert env_argument(f"retriever=dense:{typed}") == ("retriever", f"dense:{tmp_path / 'games'}")
    # An engine alone, a name on the hub, an address, what is not there, what is no place.
    others = ("data=other", "data=", f"data={'x' * 10_000}", "data=\0", "split=games")
    for typed in ("retriever=bm25", "retriever=dense:other", "papers=http://127.0.0.1:9", *others):
        assert env_argument(typed) == tuple(typed.split("=", 1))


@pytest.mark.parametrize("env_id", IDS)
def test_copies_go_on_alike_and_apart(env_id):
    env = make(env_id, **({"difficulty": "easy"} if env_id == "steppo/ALFWorld-v0" else {}))
    env.reset(seed=1)
    response = env.expert_response()
    copies = [copy.deepcopy(env), pickle.loads(pickle.dumps(env))]
    results = [one.step(response) for one in (env, *copies)]
    assert results[0] == results[1] == results[2]
    env.close()
    assert len({one.step("nothing")[0] for one in copies}) == 1


@pytest.mark.parametrize(
    ("env_id", "keyword"),
    [*((env_id, "data") for env_id in IDS if "KeyDoor" not in env_id), ("steppo/HotpotQA-v0", "retriever")],
)
def test_a_place_that_is_an_empty_text_is_not_the_working_folder(env_id, keyword):
    """It is what a shell makes of a variable that is not set."""
    with pytest.raises(ValueError, match=f"{keyword} must be a path or an address, as a text, got ''"):
        make(env_id, **{keyword: ""})


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Environments with the files they take, all in a folder that is home, a variable and where one works."""
    question = {"_id": "a", "question": "Who?", "answer": "Bob", "context": [["T", ["Bob is here."]]]}
    asked = {"qid": "a", "question": "Moon?", "answer_arxiv_id": ["1"], "source_meta": {"published_time": "2023"}}
    rows = {
        "questions.jsonl": question,
        "passages.jsonl": {"title": "T", "text": "Bob is here."},
        "asked.jsonl": asked,
        "papers.jsonl": {"paper_id": "1", "title": "Moon", "date": "2020"},
    }
    for name, row in rows.items():
        (tmp_path / name).write_text(json.dumps(row) + "\n")
    games = make("steppo/ALFWorld-v0", difficulty="easy")
    (tmp_path / "game.tw-pddl").write_bytes(games.task_content(games.task_ids[0]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return {
        "steppo/HotpotQA-v0": {"data": "questions.jsonl", "retriever": "passages.jsonl"},
        "steppo/PaperSearch-v0": {"data": "asked.jsonl", "papers": "papers.jsonl"},
        "steppo/ALFWorld-v0": {"data": "game.tw-pddl"},
    }


@pytest.mark.parametrize("start", ["", "~/", "$HERE/"])
def test_places_are_written_alike_in_all_keywords(places, tmp_path, monkeypatch, start):
    for env_id, keywords in places.items():
        env = make(env_id, **{name: start + place for name, place in keywords.items()})
        whole = make(env_id, **{name: str(tmp_path / place) for name, place in keywords.items()})
        assert env.text_version == whole.text_version, "the same files"
        assert env.task_ids == whole.task_ids
        # Wherever the process goes, the files stay what they were.
        monkeypatch.chdir("/")
        for one in (env, copy.deepcopy(env)):
            assert one.reset(seed=0) == whole.reset(seed=0)
        monkeypatch.chdir(tmp_path)


def test_a_tilde_that_is_no_users_is_part_of_the_name(tmp_path):
    (tmp_path / "~nobody.jsonl").write_text('{"title": "T", "text": "x"}')
    with contextlib.chdir(tmp_path):
        open_retriever("~nobody.jsonl", progress=False)
