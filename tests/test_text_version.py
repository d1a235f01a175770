"""A default policy that was made of files is made again when they have changed (`TextEnv.text_version`)."""

from __future__ import annotations

import json
import os

import gymnasium
import pytest

import steppo_gym
from steppo_gym.envs.alfworld.built_in.generate import write_games
from steppo_gym.envs.webshop.built_in.generate import generate_files, write_files

ROW = {"id": "q1", "question": "Who?", "answers": ["I"]}
QUERY = {
    "qid": "a",
    "question": "Which?",
    "answer_arxiv_id": ["2401.01234"],
    "source_meta": {"published_time": "20250320"},
}
PAPER = {"paper_id": "2401.01234", "title": "Moon", "date": "2024-01-05"}


def keywords(env_id, folder):
    """Files of the environment in a folder, and the keywords that name them."""
    if "ALFWorld" in env_id:
        write_games(folder, "train", "easy", 1)
    elif "WebShop" in env_id:
        write_files(folder, generate_files(10))
    elif "PaperSearch" in env_id:
        (folder / "train.jsonl").write_text(json.dumps(QUERY))
        (folder / "papers.json").write_text(json.dumps(PAPER))
        return {"data": str(folder / "train.jsonl"), "papers": str(folder / "papers.json")}
    else:
        (folder / "train.json").write_text(json.dumps([ROW]))
        (folder / "corpus.jsonl").write_text('{"title": "A", "text": "b"}\n')
        return {"data": str(folder / "train.json"), "retriever": str(folder / "corpus.jsonl")}
    return {"data": str(folder)}


@pytest.mark.parametrize("env_id", [one for one in steppo_gym.registered_ids() if "KeyDoor" not in one])
def test_texts_of_files_have_a_version(env_id, tmp_path):
    def version(**given):
        env = gymnasium.make(env_id, **given).unwrapped
        env.close()
        return env.text_version

    assert version() == ""
    given = keywords(env_id, tmp_path)
    before = version(**given)
    assert before and before == version(**given)
    for file in sorted(path for path in tmp_path.rglob("*.*") if path.is_file() and path.name != "traj_data.json"):
        os.utime(file, ns=(0, 0))
        after = version(**given)
        assert after not in ("", before), file
        before = after
