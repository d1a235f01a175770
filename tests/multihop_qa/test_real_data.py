"""Real samples of the three data sets, where they are present."""

from __future__ import annotations

import gymnasium
import pytest

import steppo_gym  # noqa: F401 - registers the environments

pytestmark = pytest.mark.data

FILES = {
    "hotpotqa/hotpot_dev_distractor_sample.json": "steppo/HotpotQA-v0",
    "hotpotqa/hotpot_train_sample.json": "steppo/HotpotQA-v0",
    "2wikimultihopqa/2wiki_dev_sample.json": "steppo/2WikiMultihopQA-v0",
    "2wikimultihopqa/2wiki_train_sample.json": "steppo/2WikiMultihopQA-v0",
    "musique/musique_ans_dev_sample.jsonl": "steppo/MuSiQue-v0",
    "musique/musique_ans_train_sample.jsonl": "steppo/MuSiQue-v0",
}


@pytest.mark.parametrize("name", FILES)
def test_every_question_plays_to_an_end(shared_data, name):
    env = gymnasium.make(FILES[name], data=shared_data / name, split="validation").unwrapped
    solved = 0
    for task_id in env.task_ids:
        observation, info = env.reset(seed=0, options={"task_id": task_id})
        over = False
        while not over:
            assert len(observation) < 20_000
            observation, _, terminated, truncated, info = env.step(env.expert_response())
            over = terminated or truncated
        assert terminated
        assert set(info["metrics"]) >= {"em", "f1", "recall", "searches", "repeats"}
        solved += info["success"]
    # The pool is small, and the expert knows what to look for.
    assert solved / len(env.task_ids) > 0.95


@pytest.mark.parametrize(
    ("folder", "env_id"), [("hotpotqa", "HotpotQA"), ("2wikimultihopqa", "2WikiMultihopQA"), ("musique", "MuSiQue")]
)
def test_the_split_of_a_folder_is_found(shared_data, folder, env_id):
    sizes = {}
    for split in ("train", "validation"):
        env = gymnasium.make(f"steppo/{env_id}-v0", data=shared_data / folder, split=split)
        sizes[split] = set(env.unwrapped.task_ids)
    assert sizes["train"]
    assert sizes["validation"]
    assert not sizes["train"] & sizes["validation"]
