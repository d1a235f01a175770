"""One update on given episodes for each of several set-ups, in one process or as one of several.

python tests/distributed_updates.py POLICY OUT
torchrun --nproc_per_node 2 tests/distributed_updates.py POLICY OUT

POLICY is the folder of a model with its tokenizer. What an update changes in policy
and critic goes into OUT, one file for each set-up.
The episodes are the same in both settings: the first process plays those of the even groups, the second the others,
and a single one plays all.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import torch
from credit_references import random_batch
from safetensors.torch import save_file
from trainer_runs import change, settings_of, weights
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from steppo_gym.rollouts.episode import Episode, Failure
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Rollout, RolloutStats
from steppo_gym.trainers.step_trainer import StepTrainer

SETTINGS = {
    "iterations": 1,
    "episodes_per_iteration": 4,
    "updates_per_iteration": 1,
    # So few that processes with different episodes have different numbers of micro-batches.
    "max_tokens_per_micro_batch": 20,
    "optim": "sgd",
    "learning_rate": 0.1,
    "critic_learning_rate": 0.1,
    "max_grad_norm": 1e9,
    "beta": 0.1,
    "num_env_workers": 0,
    "evaluate_every": 0,
    "save_every": 0,
    "save_episodes": False,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}
SETUPS = {
    "steppo": {},
    "ppo": {},
    "gigpo": {"num_generations": 2},
    "gspo": {"num_generations": 2, "ratio": "sqrt_centered"},
    "reinforce_pp": {},
    "steppo-failed": {},
    "gigpo-failed": {"num_generations": 2, "ratio": "sqrt_centered"},
}
"""By name: the script, whether all episodes of the odd groups have failed, and what differs from `SETTINGS`."""


class PlayedTrainer(StepTrainer):
    """Whatever it is asked to play, it has played already."""

    played: tuple[Episode, ...]

    def play(self, spec, assignments, *, temperature, seed):
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        own = tuple(episode for episode in self.played if episode.group % world == rank)
        return Rollout(own, RolloutStats(num_episodes=len(own), seconds=1.0))

    def check_first_gap(self, gap):
        """The episodes are invented: nobody sampled them."""


def episodes_of(name):
    """Long and many ones in the even groups, few short ones in the odd groups, or nothing but failures."""
    many, few = (random_batch(seed, max_episodes=size) for seed, size in ((48, 6), (50, 3)))
    episodes = [dataclasses.replace(e, group=2 * e.group) for e in many.episodes if e.steps]
    for episode in few.episodes:
        odd = dataclasses.replace(episode, group=2 * (episode.group % 2) + 1, steps=episode.steps[:2])
        if name.endswith("-failed"):
            broken = Failure("environment", "the door fell off")
            odd = dataclasses.replace(odd, ended="failed", failure=broken, final_prompt_ids=None)
        if odd.steps:
            episodes.append(odd)
    return tuple(episodes)


def update(name, policy, folder):
    """One update of one set-up; the main process writes what changed."""
    settings = {**SETTINGS, **SETUPS[name], "output_dir": str(folder / f"run-{name}")}
    config, rule, critic_config = settings_of(name.removesuffix("-failed"), **settings)
    trainer = PlayedTrainer(
        Qwen3ForCausalLM.from_pretrained(policy),
        config,
        spec=EnvFactory("steppo/KeyDoor-v0", {"context": "append"}),
        task_ids=[f"train-{number}" for number in range(8)],
        rule=rule,
        critic_config=critic_config,
        processing_class=PreTrainedTokenizerFast.from_pretrained(policy),
    )
    trainer.played = episodes_of(name)
    models = {"policy": trainer.accelerator.unwrap_model(trainer.model)}
    if trainer.critic is not None:
        models["critic"] = trainer.accelerator.unwrap_model(trainer.critic)
        with torch.no_grad():
            models["critic"].head.weight.fill_(0.1)
    before = {part: weights(model) for part, model in models.items()}
    trainer.train()
    if trainer.accelerator.is_main_process:
        changes = {part: change(before[part], weights(model)) for part, model in models.items()}
        save_file(changes, folder / f"{name}.safetensors")


def main():
    policy, folder = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    for name in SETUPS:
        update(name, policy, folder)


if __name__ == "__main__":
    main()
