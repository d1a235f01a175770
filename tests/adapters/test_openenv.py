"""Through OpenEnv's server and client an expert's responses give what they give through `gymnasium.make`."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time

import pytest
from expert_play import play_expert

pytest.importorskip("openenv", reason="openenv is not installed; see docs/adapters.md")
import uvicorn

from steppo_gym.adapters.openenv import TextAction, TextEnvClient, text_app

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def serve():
    """From the arguments of `text_app` to the address of a running server."""
    running = []

    def start(env_id, **arguments):
        server = uvicorn.Server(uvicorn.Config(text_app(env_id, **arguments), port=0, log_level="warning"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 30
        while not server.started:
            assert time.monotonic() < deadline and thread.is_alive(), "the server does not start"
            time.sleep(0.01)
        return f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


def replay(client, played, seed):
    result = client.reset(seed=seed, task_id=played.task_id)
    assert result.observation.text == played.first
    assert (result.observation.success, result.observation.metrics) == (None, {})
    return [client.step(TextAction(response=response)) for response in played.responses]


@pytest.mark.parametrize(
    ("env_id", "arguments", "task_id", "blunder"),
    [
        ("steppo/KeyDoor-v0", {}, "train-3", None),
        ("steppo/KeyDoor-v0", {"max_steps": 3, "invalid_action_reward": -0.1}, "train-4", "no action"),
        ("steppo/ALFWorld-v0", {"difficulty": "easy"}, None, None),
        ("steppo/HotpotQA-v0", {}, None, None),
    ],
    ids=["won", "cut", "alfworld", "hotpotqa"],
)
def test_an_expert_plays_the_same_episode(serve, env_id, arguments, task_id, blunder):
    arguments = {"context": "append"} | arguments
    played = play_expert(env_id, task_id, seed=5, blunder=blunder, **arguments)
    with TextEnvClient(base_url=serve(env_id, **arguments)).sync() as client:
        results = replay(client, played, 5)
        assert client.state().step_count == len(played.responses)
    assert [r.observation.text for r in results] == list(played.observations)
    assert [r.reward for r in results] == list(played.rewards)
    assert [r.done for r in results] == [False] * (len(results) - 1) + [True]
    assert results[-1].observation.truncated is (played.ending == "truncated")
    assert results[-1].observation.success is played.success
    assert [r.observation.success for r in results[:-1]] == [None] * (len(results) - 1)
    assert [bool(r.observation.metrics) for r in results] == [r.done for r in results]
    assert len({r.observation.state_key for r in results}) > 1


def test_sessions_do_not_share_an_episode(serve):
    url = serve("steppo/KeyDoor-v0")
    one, two = (play_expert("steppo/KeyDoor-v0", f"train-{n}", context="append") for n in (6, 7))
    with TextEnvClient(base_url=url).sync() as first, TextEnvClient(base_url=url).sync() as second:
        assert first.reset(seed=0, task_id=one.task_id).observation.text == one.first
        assert [r.observation.text for r in replay(second, two, 0)] == list(two.observations)
        assert first.step(TextAction(response=one.responses[0])).observation.text == one.observations[0]


def test_the_example_validates(serve, repository):
    folder = repository / "examples" / "adapters" / "openenv_key_door"
    report = validate(str(folder), "--level", "static", "--skip-build")
    assert {r["check_id"]: r["status"] for r in report["results"]}["static.manifest"] == "pass"
    report = validate("--url", serve("steppo/KeyDoor-v0", split="validation"))
    assert report["passed"], report


def validate(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "openenv.cli", "validate", "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])
