"""Through verifiers' own agent loop an expert's responses give what they give through `gymnasium.make`."""

from __future__ import annotations

import asyncio
import shutil

import pytest
from expert_play import play_expert

vf = pytest.importorskip("verifiers.v1", reason="verifiers is not installed; see docs/adapters.md")
if shutil.which("uv") is None:
    pytest.skip("uv, which verifiers starts its chat loop with, is not installed", allow_module_level=True)

from steppo_gym.adapters.verifiers import TextTaskEnv, TextTaskEnvConfig, TextTasksetConfig  # noqa: E402

# verifiers starts its chat loop as a program anew at every step, which takes seconds: short episodes.
pytestmark = pytest.mark.filterwarnings("ignore")


def play(url, **taskset):
    """The episodes of all tasks of a task set, as verifiers records them."""
    env = TextTaskEnv(TextTaskEnvConfig(taskset=TextTasksetConfig(id="steppo_taskset", **taskset)))
    client = vf.EvalClientConfig(base_url=f"{url}/v1", api_key_var="STEPPO_TEST_KEY")

    async def run():
        async with env.serving():
            return [await env.run_episode(task, vf.ModelContext(model="expert", client=client)) for task in env.taskset]

    return asyncio.run(run())


@pytest.fixture(autouse=True)
def key(monkeypatch, examples):
    monkeypatch.setenv("STEPPO_TEST_KEY", "-")


def compare(episode, played):
    assert episode.ok, episode.errors
    (trace,) = episode.traces
    record = trace.info["episode"]
    assert trace.task.data.id == played.task_id
    assert record["rewards"] == list(played.rewards)
    assert record["ending"] == played.ending
    assert trace.rewards["return"].score == pytest.approx(played.total)
    assert trace.metrics["success"] == float(played.success)
    said = [node.message.content for node in trace.nodes if type(node.message).__name__ == "UserMessage"]
    assert said == [played.first, *played.observations[:-1]]
    assert record["last_observation"] == played.observations[-1]
    assert len({*record["state_keys"], record["final_state_key"]}) > 1


def test_a_won_episode_is_the_same(expert_server):
    played = play_expert("steppo/HotpotQA-v0", None, seed=5, context="append")
    server = expert_server([played])
    (episode,) = play(server.url, env_id="steppo/HotpotQA-v0", task_ids=[played.task_id], seed=5)
    assert played.ending == "terminated" and played.success
    compare(episode, played)


def test_an_episode_that_is_cut_is_the_same(expert_server):
    arguments = {"max_steps": 2, "invalid_action_reward": -0.25}
    played = play_expert("steppo/KeyDoor-v0", "train-3", blunder="no action", context="append", **arguments)
    server = expert_server([played])
    (episode,) = play(server.url, env_id="steppo/KeyDoor-v0", env_arguments=arguments, task_ids=["train-3"])
    assert played.ending == "truncated" and played.rewards == (-0.25, 0.0)
    compare(episode, played)
    assert episode.traces[0].info["episode"]["invalid"] == 1


def test_a_server_that_fails_earns_nothing():
    (episode,) = play("http://127.0.0.1:9", env_id="steppo/KeyDoor-v0", task_ids=["train-3"])
    assert not episode.ok
    assert not any(trace.rewards for trace in episode.traces)
