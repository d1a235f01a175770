"""The environments answer byte for byte what they answered when the golden episodes were recorded."""

from __future__ import annotations

import json

import golden_episodes
import pytest


@pytest.mark.parametrize("name", golden_episodes.EPISODES)
def test_episode_is_as_recorded(name: str):
    golden = json.loads((golden_episodes.FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    played = json.loads(json.dumps(golden_episodes.record(name)))
    for position, (found, expected) in enumerate(zip(played["steps"], golden["steps"], strict=False)):
        assert found == expected, f"step {position}"
    # Versions are noted for the reader; other versions must give the same bytes.
    assert {key: played[key] for key in played if key != "versions"} == {
        key: golden[key] for key in golden if key != "versions"
    }


def test_every_recorded_file_is_played():
    assert {path.stem for path in golden_episodes.FOLDER.glob("*.json")} == set(golden_episodes.EPISODES)
