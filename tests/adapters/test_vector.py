"""Through `gymnasium.make_vec` an expert's responses give what they give through `gymnasium.make`."""

from __future__ import annotations

import subprocess
import sys

import gymnasium
import pytest
from expert_play import play_expert


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize(
    ("env_id", "arguments"),
    [
        ("steppo/KeyDoor-v0", {"max_steps": 4}),
        ("steppo/HotpotQA-v0", {}),
        ("steppo/ALFWorld-v0", {"difficulty": "easy"}),
    ],
)
def test_experts_play_the_same_episodes(env_id, arguments, mode):
    arguments = {"context": "append"} | arguments
    episodes = [play_expert(env_id, None, seed=seed, **arguments) for seed in (1, 2, 3)]
    # Texts of any length fit no shared memory.
    settings = {"shared_memory": False} if mode == "async" else {}
    envs = gymnasium.make_vec(env_id, num_envs=3, vectorization_mode=mode, vector_kwargs=settings, **arguments)
    try:
        observations, info = envs.reset(seed=[1, 2, 3])
        assert list(observations) == [e.first for e in episodes]
        assert list(info["task_id"]) == [e.task_id for e in episodes]
        checked = 0
        for step in range(max(len(e.responses) for e in episodes)):
            texts = [e.responses[step] if step < len(e.responses) else "" for e in episodes]
            observations, rewards, terminated, truncated, info = envs.step(texts)
            for i, e in enumerate(episodes):
                if step >= len(e.responses):
                    continue
                last = step == len(e.responses) - 1
                ending = "terminated" if terminated[i] else "truncated" if truncated[i] else "none"
                assert (observations[i], rewards[i]) == (e.observations[step], e.rewards[step])
                assert ending == (e.ending if last else "none")
                checked += 1
        assert checked == sum(len(e.responses) for e in episodes)
    finally:
        envs.close()


def test_the_example_plays(repository):
    script = repository / "examples" / "adapters" / "vector.py"
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("return 1, success True") >= 4
