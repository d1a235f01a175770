"""Two iterations on completions servers and an evaluation, as one of several processes."""

from __future__ import annotations

import json
from pathlib import Path

from trainer_runs import settings_of
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.storage import retrying_client
from steppo_gym.trainers.evaluation import EvaluationSet
from steppo_gym.trainers.step_trainer import StepTrainer

SETTINGS = {
    "iterations": 2,
    "episodes_per_iteration": 16,
    "updates_per_iteration": 1,
    "max_completion_length": 3,
    "learning_rate": 1e-2,
    "num_slots": 4,
    "num_env_workers": 0,
    "evaluate_every": 2,
    "save_every": 0,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}


HELD_OUT = tuple(f"validation-{number}" for number in range(4))
BROKEN = HELD_OUT[1::2]
"""Those that the second of two processes plays; their environment raises."""
PROTOCOL = {"context": "append", "max_steps": 4, "invalid_action_reward": -0.1}


def main(policy, out, servers, folder):
    """Train.

    Args:
        policy: folder of a model with its tokenizer.
        out: folder of the run.
        servers: addresses, separated by commas.
        folder: that they load weights from.
    """
    # No wait: the other server could have played all that is left before this one has failed often enough.
    retrying_client.FIRST_DELAY_SECONDS = 0.0
    config, rule, critic = settings_of(
        "steppo", output_dir=str(out), policy_servers=servers, policy_servers_folder=str(folder), **SETTINGS
    )
    trainer = StepTrainer(
        Qwen3ForCausalLM.from_pretrained(policy),
        config,
        spec=EnvFactory("steppo/KeyDoor-v0", PROTOCOL),
        task_ids=[f"train-{number}" for number in range(50)],
        rule=rule,
        critic_config=critic,
        evaluation_sets=[
            EvaluationSet(
                "held_out",
                EnvFactory(
                    "trainer_envs:steppo-test/BreakingKeyDoor-v0",
                    {**PROTOCOL, "context": "rebuilt", "split": "validation", "broken": BROKEN},
                ),
                HELD_OUT,
            )
        ],
        processing_class=PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left"),
    )
    try:
        trainer.train()
    finally:
        trainer.close()
    if trainer.accelerator.is_main_process:
        Path(out, "log.json").write_text(json.dumps(trainer.state.log_history))
