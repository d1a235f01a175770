"""The shipped starts on another vector instruction set: the same bytes play the same first rollout."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys

import pytest

from steppo_gym.baselines.jobs import held
from steppo_gym.trainers.run.presets import PRESETS

PLAYED = """
import json
import torch
from steppo_gym.rollouts.open_episode import Assignment
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import collect
from steppo_gym.trainers.evaluation import first_tasks
from steppo_gym.trainers.results.saved_policy import SavedPolicy
from steppo_gym.trainers.run.presets import PRESETS
from steppo_gym.trainers.run.starts import SHIPPED

rollouts = {}
for preset in PRESETS.values():
    for name, recipe in preset.starts.items():
        policy, codec, _ = SavedPolicy.open(SHIPPED / name).load(
            num_slots=4, temperature=1.0, seed=0, max_response_tokens=48
        )
        tasks = first_tasks("train", preset.spec("train", recipe.env_kwargs), 4)
        with EnvPool(tasks.spec, num_slots=4, num_workers=0) as pool:
            assignments = [Assignment(task_id, seed) for seed, task_id in enumerate(tasks.task_ids)]
            episodes = collect(policy, pool, codec, assignments).episodes
        steps = [step for episode in episodes for step in episode.steps]
        rollouts[name] = [step.response for step in steps], [p for step in steps for p in step.log_probs]
print(json.dumps([torch.backends.cpu.get_cpu_capability(), rollouts]))
"""


def played(instructions: str):
    done = subprocess.run(
        [sys.executable, "-c", PLAYED],
        env=os.environ | held(instructions),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="is held to instructions of x86-64")
def test_on_other_instructions_the_first_rollout_is_the_same():
    (_, here), (capability, there) = played(""), played("avx2")
    assert capability == "AVX2"
    assert list(here) == [name for preset in PRESETS.values() for name in preset.starts]
    for name, (responses, log_probs) in here.items():
        assert there[name][0] == responses, name
        # Sums of float32: of WebShop's longest conversations they are 2e-5 apart, of all others less than 1e-5.
        assert there[name][1] == pytest.approx(log_probs, abs=3e-5), name
