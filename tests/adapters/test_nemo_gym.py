"""Through NeMo Gym's resources server an expert's responses give what they give through `gymnasium.make`."""

from __future__ import annotations

import importlib.util
import json

import pytest
from expert_play import play_expert

from steppo_gym.actions import Invalid, parse_tool_calls

pytest.importorskip("nemo_gym", reason="nemo-gym is not installed; see docs/adapters.md")
pytest.importorskip("resources_servers.gymnasium", reason="this nemo-gym has no Gymnasium server; see docs/adapters.md")
from fastapi.testclient import TestClient
from nemo_gym.base_resources_server import BaseResourcesServerConfig
from nemo_gym.server_utils import ServerClient

from steppo_gym.adapters.nemo_gym import TextServer, rows
from steppo_gym.errors import UnknownTaskError

pytestmark = pytest.mark.filterwarnings("ignore")
NO_PROMPT = {"input": []}


def client_of(env_id, arguments):
    server_class = type("Server", (TextServer,), {"env_id": env_id, "env_arguments": arguments, "__module__": __name__})
    config = BaseResourcesServerConfig(host="127.0.0.1", port=0, entrypoint="app.py", name="server")
    return TestClient(server_class(config=config, server_client=ServerClient.model_construct()).setup_webserver())


def written(response):
    """A response as NeMo Gym's model servers give it: text as a message, calls as calls."""
    calls = parse_tool_calls(response, max_calls=8)
    calls = () if isinstance(calls, Invalid) else calls
    text = response.partition("<tool_call>")[0] if calls else response
    parts = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"id": "m", "type": "message", "role": "assistant", "status": "completed", "content": parts}
    called = [
        {"type": "function_call", "call_id": f"c{i}", "name": c.name, "arguments": json.dumps(dict(c.arguments))}
        for i, c in enumerate(calls)
    ]
    return {
        "id": "r", "created_at": 0.0, "model": "m", "object": "response", "output": [message, *called],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


@pytest.mark.parametrize("action_format", ["tag", "tool_call"])
@pytest.mark.parametrize(
    ("env_id", "arguments", "blunder"),
    [
        ("steppo/KeyDoor-v0", {}, None),
        ("steppo/KeyDoor-v0", {"max_steps": 3, "invalid_action_reward": -0.1}, "I do not know."),
    ],
    ids=["won", "cut"],
)
def test_an_expert_plays_the_same_episode(env_id, arguments, blunder, action_format):
    arguments = arguments | {"action_format": action_format}
    played = play_expert(env_id, None, seed=5, blunder=blunder, context="append", **arguments)
    row = {"task_id": played.task_id, "seed": 5, "responses_create_params": NO_PROMPT}
    with client_of(env_id, arguments) as client:
        start = client.post("/reset", json=row).json()
        assert start["observation"] == played.first and start["info"]["task_id"] == played.task_id
        steps = [client.post("/step", json=row | {"response": written(r)}).json() for r in played.responses]
    assert [s["reward"] for s in steps] == list(played.rewards)
    assert [s["info"]["last_observation"] for s in steps] == list(played.observations)
    last = steps[-1]
    assert (last["terminated"], last["truncated"]) == (played.ending == "terminated", played.ending == "truncated")
    assert not any(s["terminated"] or s["truncated"] for s in steps[:-1])
    assert last["info"]["success"] is played.success


def test_the_rows_of_the_example_are_those_of_the_task(repository):
    file = repository / "examples" / "adapters" / "nemo_gym_key_door" / "data" / "example.jsonl"
    found = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    wanted = rows("steppo/KeyDoor-v0", [f"validation-{i}" for i in range(5)], split="validation")
    assert found == wanted


def test_the_example_is_a_server(repository):
    path = repository / "examples" / "adapters" / "nemo_gym_key_door" / "app.py"
    spec = importlib.util.spec_from_file_location("nemo_gym_key_door_app", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert issubclass(module.KeyDoorServer, TextServer) and module.KeyDoorServer.env_id == "steppo/KeyDoor-v0"


@pytest.mark.parametrize("task_ids", [[0, 1], ["validation-0", "train-0"], "validation-0"])
def test_rows_are_of_tasks_that_there_are(task_ids):
    with pytest.raises(UnknownTaskError, match=r"Unknown task_id (0, which is no text|'train-0'|'v')"):
        rows("steppo/KeyDoor-v0", task_ids, split="validation")
