"""Training from a local folder asks nothing of the network, telemetry included."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

SCRIPT = """
import json, socket, sys
attempts = []

def refuse(kind):
    def call(*arguments, **kwargs):
        attempts.append([kind, repr(arguments[-1] if kind == "connect" else arguments[:1])])
        raise OSError("no network in this test")
    return call

socket.socket.connect = refuse("connect")
socket.socket.connect_ex = refuse("connect")
socket.getaddrinfo = refuse("look-up")

from transformers import PreTrainedTokenizerFast
from steppo_gym.trainers.credit import StepLevelGAE
from steppo_gym.trainers.step_config import StepPOConfig
from steppo_gym.trainers.step_trainer import StepTrainer
from steppo_gym.workers import EnvSpec

policy, output = sys.argv[1:]
config = StepPOConfig(
    output_dir=output, iterations=1, episodes_per_iteration=2, updates_per_iteration=1, max_completion_length=2,
    num_env_workers=0, evaluate_every=0, report_to="none", disable_tqdm=True, use_cpu=True,
)
trainer = StepTrainer(
    policy,
    config,
    spec=EnvSpec("steppo/KeyDoor-v0", {"context": "append"}),
    task_ids=["train-0", "train-1"],
    rule=StepLevelGAE(0.99, 0.95),
    processing_class=PreTrainedTokenizerFast.from_pretrained(policy),
)
trainer.train()
trainer.save_model(output + "/final")

# Telemetry has a thread of its own: wait until it has sent what it was given.
from huggingface_hub.utils import _telemetry
_telemetry._TELEMETRY_QUEUE.join()
print("ATTEMPTS", json.dumps(attempts))
"""


def test_nothing_is_asked_of_the_network(policy_folder, tmp_path):
    # Not even where the user has not said that there is none.
    hidden = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(SCRIPT), str(policy_folder), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    attempts = json.loads(run.stdout.rpartition("ATTEMPTS ")[2])
    assert attempts == []
    assert (tmp_path / "final" / "model.safetensors").exists()
