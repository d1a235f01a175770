"""A cache or home that cannot be written: one line that names the folder and the variable, whoever writes there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import gymnasium
import pytest

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.envs.paper_search.semantic_scholar.response_cache import ResponseCache
from steppo_gym.errors import DataError
from steppo_gym.storage.cache import cache_dir, make_once, writing

REMEDY = "the environment variable STEPPO_GYM_CACHE name a folder that can be"


@pytest.fixture(params=["a file", "a device", "a name", "another's"])
def unwritable(request, tmp_path, monkeypatch):
    """Folders below which nobody, or not this user, can make any."""
    if request.param == "another's":
        if os.geteuid() == 0 and not os.path.isdir("/sys/kernel"):
            pytest.skip("nothing is denied to the superuser here")
        folder = "/sys/kernel/x" if os.geteuid() == 0 else "/root/x"
    elif request.param == "a name":
        folder = str(tmp_path / ("x" * 300))
    else:
        (tmp_path / "file").write_text("")
        folder = str(tmp_path / "file" / "x") if request.param == "a file" else "/dev/null/x"
    monkeypatch.setenv("STEPPO_GYM_CACHE", folder)
    return folder


def one_line(error):
    message = str(error.value)
    return REMEDY in message and "\n" not in message


def test_environments_say_it(unwritable, tmp_path):
    row = {"_id": "a", "question": "Q?", "answer": "x", "type": "b", "supporting_facts": [], "context": [["T", ["s"]]]}
    (tmp_path / "rows.json").write_text(json.dumps([row]))
    env = gymnasium.make("steppo/HotpotQA-v0", data=str(tmp_path / "rows.json"))
    with pytest.raises(DataError, match="cannot be written") as caught:
        env.reset(seed=0)
        env.step("<search>s</search>")
    assert one_line(caught) and unwritable in str(caught.value)
    (tmp_path / "papers.jsonl").write_text(json.dumps({"paper_id": "a", "title": "A"}))
    (tmp_path / "q.jsonl").write_text(
        json.dumps({"qid": "a", "question": "Q", "answer_arxiv_id": ["a"], "source_meta": {"published_time": "2024"}})
    )
    with pytest.raises(DataError, match="cannot be written") as caught:
        gymnasium.make("steppo/PaperSearch-v0", data=str(tmp_path / "q.jsonl"), papers=str(tmp_path / "papers.jsonl"))
    assert one_line(caught)
    with pytest.raises(DataError, match="cannot be written") as caught:
        gymnasium.make("steppo/WebShop-v0")
    assert one_line(caught)


def test_the_cache_of_answers_says_it(unwritable):
    cache = ResponseCache(cache_dir("semantic_scholar", "responses.sqlite"))
    for use in (lambda: cache.get("x"), lambda: cache.keep("x", 200, "y")):
        with pytest.raises(DataError, match="cannot be used") as caught:
            use()
        assert one_line(caught)


def test_the_command_says_it_in_one_line(unwritable, tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"title": "Moon", "text": "dust"}')
    code = "import sys; from steppo_gym.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "index", str(corpus), "--quiet"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1 and REMEDY in ended.stderr and ended.stderr.count("\n") == 1


def test_a_full_disk_says_it(tmp_path):
    def make(path):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")

    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    with pytest.raises(DataError, match="No space left on device") as caught:
        make_once(tmp_path / "made", make)
    assert one_line(caught)


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    def make(path):
        (tmp_path.parent / "nowhere" / "corpus").read_bytes()

    with pytest.raises(FileNotFoundError):
        make_once(tmp_path / "made", make)
    with pytest.raises(DataError), writing(tmp_path / "made"):
        (tmp_path / "made" / "x").write_bytes(b"")


BROKEN = "a\ud800"


@pytest.mark.parametrize(
    ("env_id", "row"),
    [
        ("HotpotQA", {"_id": BROKEN, "question": "Q?", "answer": "x", "context": [["T", ["s"]]]}),
        ("MuSiQue", {"id": BROKEN, "question": "Q?", "answer": "x", "paragraphs": []}),
        ("HotpotQA", {"id": BROKEN, "question": "Q?", "golden_answers": ["x"]}),
        (
            "PaperSearch",
            {"qid": BROKEN, "question": "Q", "answer_arxiv_id": ["a"], "source_meta": {"published_time": "2024"}},
        ),
    ],
)
def test_an_id_that_cannot_be_written_is_named(tmp_path, env_id, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    papers = {"papers": "http://127.0.0.1:1"} if env_id == "PaperSearch" else {}
    with pytest.raises(DataError, match=r"[Rr]ow 0 of .*an id of valid Unicode, found 'a\\ud800'"):
        gymnasium.make(f"steppo/{env_id}-v0", data=str(path), **papers)
