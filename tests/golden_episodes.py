"""Golden episodes: fixed responses and every byte the environments answered, to be read by people in review.

python tests/golden_episodes.py      # records them again; say in the commit why they changed
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium

import steppo_gym  # noqa: F401 - registers the environments

FOLDER = Path(__file__).parent / "golden"
COMMAND = "python tests/golden_episodes.py"

EPISODES: dict[str, dict[str, Any]] = {
    "key_door_append": {"id": "steppo/KeyDoor-v0", "kwargs": {"context": "append"}},
    "key_door_tool_call": {"id": "steppo/KeyDoor-v0", "kwargs": {"context": "rebuilt", "action_format": "tool_call"}},
    "alfworld_easy_append": {
        "id": "steppo/ALFWorld-v0",
        "kwargs": {"difficulty": "easy", "split": "valid_unseen", "context": "append"},
    },
    "alfworld_full_rebuilt": {
        "id": "steppo/ALFWorld-v0",
        "kwargs": {"difficulty": "full", "split": "valid_seen", "protocol": "verl-agent"},
    },
    "hotpotqa_append": {"id": "steppo/HotpotQA-v0", "kwargs": {"split": "validation", "context": "append", "top_k": 2}},
    "2wikimultihopqa_tool_call": {
        "id": "steppo/2WikiMultihopQA-v0",
        "kwargs": {"split": "validation", "context": "rebuilt", "action_format": "tool_call"},
    },
    "musique_search_r1": {
        "id": "steppo/MuSiQue-v0",
        "kwargs": {"split": "validation", "context": "rebuilt", "protocol": "search-r1"},
    },
    "paper_search_append": {
        "id": "steppo/PaperSearch-v0",
        "kwargs": {"split": "validation", "context": "append", "listed_papers": 3},
    },
    "paper_search_tool_call": {
        "id": "steppo/PaperSearch-v0",
        "kwargs": {"split": "test", "context": "rebuilt", "action_format": "tool_call"},
    },
    # Which nouns a tagger finds depends on the installed model, so the fallback is recorded.
    "webshop_append": {
        "id": "steppo/WebShop-v0",
        "kwargs": {"split": "validation", "context": "append", "nouns": "words"},
    },
    "webshop_official_rich_tool_call": {
        "id": "steppo/WebShop-v0",
        "kwargs": {
            "split": "test",
            "goals": "synthetic",
            "protocol": "official",
            "context": "rebuilt",
            "action_format": "tool_call",
            "observation_mode": "text_rich",
            "nouns": "words",
        },
    },
}
UNREADABLE = "I would rather not say."


def record(name: str) -> dict[str, Any]:
    """Play the expert after one unreadable response and note everything."""
    env = gymnasium.make(EPISODES[name]["id"], **EPISODES[name]["kwargs"]).unwrapped
    observation, info = env.reset(seed=7)
    steps = [{"observation": observation, "state_key": info["state_key"]}]
    over, response = False, UNREADABLE
    while not over:
        observation, reward, terminated, truncated, info = env.step(response)
        steps.append(
            {
                "response": response,
                "observation": observation,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "invalid_action": info["invalid_action"],
                "state_key": info["state_key"],
            }
        )
        over = terminated or truncated
        response = "" if over else env.expert_response()
    env.close()
    packages = ("textworld", "alfworld", "gymnasium", "numpy")
    return {
        "command": COMMAND,
        "environment": EPISODES[name],
        "seed": 7,
        "task_id": info["task_id"],
        "steps": steps,
        "metrics": info["metrics"],
        "versions": {package: version(package) for package in packages},
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name in EPISODES:
        (FOLDER / f"{name}.json").write_text(json.dumps(record(name), indent=1, ensure_ascii=False) + "\n")
