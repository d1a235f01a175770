"""Through a chat server's tool calls an expert's responses give what they give through `gymnasium.make`."""

from __future__ import annotations

import gymnasium
import pytest
from expert_play import play_expert
from json_server import Server

openai = pytest.importorskip("openai", reason="openai is not installed; see docs/adapters.md")

from steppo_gym.adapters.chat_tools import play  # noqa: E402


def client_of(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="-", max_retries=0)


@pytest.mark.parametrize(
    ("env_id", "action_format", "arguments", "blunder"),
    [
        ("steppo/KeyDoor-v0", "tool_call", {}, None),
        ("steppo/KeyDoor-v0", "tag", {}, None),
        ("steppo/KeyDoor-v0", "tool_call", {"max_steps": 3, "invalid_action_reward": -0.1}, "I do not know."),
        ("steppo/ALFWorld-v0", "tool_call", {"difficulty": "easy"}, None),
        ("steppo/HotpotQA-v0", "tool_call", {}, None),
    ],
    ids=["won", "tag", "cut", "alfworld", "hotpotqa"],
)
def test_an_expert_plays_the_same_episode(expert_server, env_id, action_format, arguments, blunder):
    arguments = {"context": "append", "action_format": action_format} | arguments
    played = play_expert(env_id, None, seed=5, blunder=blunder, **arguments)
    server = expert_server([played], calls=action_format == "tool_call")
    env = gymnasium.make(env_id, **arguments).unwrapped
    with client_of(server) as client:
        episode = play(client, "expert", env, task_id=played.task_id, seed=5, max_tokens=64)
    assert episode.rewards == list(played.rewards)
    assert (episode.ending, episode.success) == (played.ending, played.success)
    assert [m.text for m in episode.messages if m.role == "user"] == [played.first, *played.observations]
    assert [m.text for m in episode.messages if m.role == "assistant"] == list(played.responses)
    assert [("tools" in body, body["max_tokens"]) for body in server.bodies] == [
        (action_format == "tool_call", 64)
    ] * len(played.responses)


def test_a_server_that_fails_gives_no_episode():
    env = gymnasium.make("steppo/KeyDoor-v0", context="append").unwrapped
    with (
        Server(lambda number, body: (500, {}, {"error": "out of memory"})) as server,
        client_of(server) as client,
        pytest.raises(openai.InternalServerError),
    ):
        play(client, "expert", env)


def test_rebuilt_prompts_are_refused():
    with pytest.raises(ValueError, match="needs context=\"append\", got 'rebuilt'"):
        play(None, "expert", gymnasium.make("steppo/KeyDoor-v0", context="rebuilt").unwrapped)
