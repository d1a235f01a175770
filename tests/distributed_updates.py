"""Updates on given episodes for each of several set-ups, in one process or as one of several.

torchrun --nproc_per_node 2 tests/distributed_updates.py POLICY OUT [SHARD [NAME ...]]

POLICY is the folder of a model with its tokenizer. What an update changes in policy
and critic goes into OUT, one file for each set-up. SHARD is that of the run, "none" by default.
The episodes are the same in all settings. A group is played by one process: those of even rank have the even groups,
those of odd rank the others, and a single one plays all.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import torch
from benchmark_scripts import load_benchmark
from credit_references import random_batch
from peft import LoraConfig
from safetensors.torch import save_file
from trainer_runs import change, settings_of, weights
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from steppo_gym.rollouts.episode import Episode, Failure
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Assignment, Rollout, RolloutStats
from steppo_gym.trainers.sharding.models import build_sharded
from steppo_gym.trainers.step_trainer import StepTrainer

SETTINGS = {
    "iterations": 1,
    # Enough for groups of two on four processes.
    "episodes_per_iteration": 8,
    "updates_per_iteration": 1,
    # So few that processes with different episodes have different numbers of micro-batches.
    "max_tokens_per_micro_batch": 20,
    # Those that are sampled; a random policy does not end them.
    "max_completion_length": 10,
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

LORA = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "init_lora_weights": False}
SHARDED = SETUPS | {
    "steppo-lora-critic": {"critic": "lora"},
    "steppo-head-critic": {"critic": "head"},
    "ppo-adapters": {"peft_config": LORA},
    "steppo-adapters-full-critic": {"peft_config": LORA, "critic": "full"},
    "steppo-accumulation": {"gradient_accumulation_steps": 2},
    "steppo-checkpointing": {"activation_checkpointing": True, "critic": "full"},
    "steppo-bf16": {"bf16": True},
    "steppo-adam": {"optim": "adamw_torch", "learning_rate": 1e-3, "critic_learning_rate": 1e-3, "iterations": 2},
}
"""Those that are made with sharded models too."""
QUICK = tuple(name for name in SHARDED if name not in ("steppo", "gigpo", "reinforce_pp", "gigpo-failed", "ppo"))
"""Enough of them to see each part of sharding at work."""
SHARDED |= {
    "ppo-lora-critic": {"critic": "lora"},
    "ppo-head-critic": {"critic": "head"},
    "steppo-lora-critic-failed": {"critic": "lora"},
    "steppo-head-critic-failed": {"critic": "head"},
    "steppo-adapters-head-critic": {"peft_config": LORA, "critic": "head"},
    "steppo-adapters-accumulation": {"peft_config": LORA, "gradient_accumulation_steps": 2},
    "steppo-adapters-failed": {"peft_config": LORA},
    "steppo-adapters-bf16": {"peft_config": LORA, "bf16": True},
    "steppo-head-critic-bf16": {"critic": "head", "bf16": True},
}


class PlayedTrainer(StepTrainer):
    """Whatever it is asked to play, it has played already."""

    played: tuple[Episode, ...]

    def play(self, spec, assignments, *, temperature, seed):
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        own = tuple(e for e in self.played if world == 1 or player(e.group, self.played, world) == rank)
        return Rollout(own, RolloutStats(num_episodes=len(own), seconds=1.0))

    def check_sampling_gap(self, gap):
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


def player(group, episodes, world):
    """The process of an even number of them that plays a group, none of which is torn apart."""
    alike = sorted({e.group for e in episodes if e.group % 2 == group % 2})
    return group % 2 + 2 * (alike.index(group) % (world // 2))


def make_trainer(name, policy, folder, **changes):
    """A trainer of a set-up, whose episodes are given."""
    settings = {**SETTINGS, **SHARDED[name], **changes, "output_dir": str(folder / f"run-{name}")}
    adapters = settings.pop("peft_config", None)
    config, rule, critic_config = settings_of(name.partition("-")[0], **settings)
    trainer = PlayedTrainer(
        # By name its weights are read from the file, each process its own.
        str(policy) if name == "steppo-adam" else Qwen3ForCausalLM.from_pretrained(policy),
        config,
        spec=EnvFactory("steppo/KeyDoor-v0", {"context": "append"}),
        task_ids=[f"train-{number}" for number in range(8)],
        rule=rule,
        critic_config=critic_config,
        processing_class=PreTrainedTokenizerFast.from_pretrained(policy),
        peft_config=adapters and LoraConfig(task_type="CAUSAL_LM", **adapters),
    )
    trainer.played = episodes_of(name)
    if trainer.critic is not None:
        with torch.no_grad():
            trainer.accelerator.unwrap_model(trainer.critic).head.weight.fill_(0.1)
    return trainer


def models_of(trainer):
    models = {"policy": trainer.accelerator.unwrap_model(trainer.model)}
    if trainer.critic is not None:
        models["critic"] = trainer.accelerator.unwrap_model(trainer.critic)
    return models


def update(name, policy, folder, *, resume_from=None, out=None, **changes):
    """The updates of one set-up; the main process writes what changed.

    Returns:
        The trainer.
    """
    trainer = make_trainer(name, policy, folder, **changes)
    before = {part: weights(model) for part, model in models_of(trainer).items()}
    trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    after = {part: weights(model) for part, model in models_of(trainer).items()}
    if trainer.accelerator.is_main_process:
        changed = {part: change(before[part], after[part]) for part in after}
        save_file(changed, folder / f"{out or name}.safetensors")
    return trainer


def own_bytes(trainer):
    """Of weights and the optimizer's state that this process holds."""
    parameters = [p for model in models_of(trainer).values() for p in model.parameters()]
    values = [value for state in trainer.optimizer.state.values() for value in state.values()]
    held = [*parameters, *(value for value in values if torch.is_tensor(value) and value.dim())]
    return sum((tensor.to_local() if hasattr(tensor, "to_local") else tensor).nbytes for tensor in held)


def resumed(policy, folder, shard):
    """Two updates with a checkpoint between them, and the second one again, from that checkpoint."""
    trainer = update("steppo-adam", policy, folder, shard=shard, save_every=1)
    held = own_bytes(trainer)
    trainer.save_model(str(folder / "final"))
    checkpoint = folder / "run-steppo-adam" / "checkpoint-1"
    trainer = update("steppo-adam", policy, folder / "again", shard=shard, resume_from=checkpoint, out="resumed")
    rollout = StepTrainer.play(
        trainer, trainer.spec, [Assignment("train-1", 3), Assignment("train-2", 4)], temperature=1.0, seed=5
    )
    if trainer.accelerator.is_main_process:
        ids = [list(step.response_ids) for episode in rollout.episodes for step in episode.steps]
        (folder / "held.json").write_text(json.dumps({"bytes": held, "sampled": ids}))


def built(policy, folder, shard):
    """The most MiB that this process takes while policy and full critic are read from the folder's "large"."""
    memory = load_benchmark("process_memory")
    # Without a reference, which would be a third model.
    config, _, _ = settings_of("steppo", **SETTINGS | {"beta": 0.0}, shard=shard, output_dir=str(folder))
    memory.give_back_freed_memory()
    kinds = {"peft_config": None, "critic": "full", "has_critic": True}
    # With all that is imported and made once.
    small = build_sharded(str(policy), config, **kinds)
    begun = memory.forget_most()
    large = build_sharded(str(folder / "large"), config, **kinds)
    told = {"most": memory.most_resident() - begun, "held": memory.resident() - begun}
    (folder / f"built-{config.process_index}.json").write_text(json.dumps(told))
    assert small.critic is not None and large.critic is not None


def main(policy, folder, shard="none", *names):
    """What one of several processes does."""
    (folder / "again").mkdir(exist_ok=True, parents=True)
    torch.set_num_threads(1)
    if names == ("built",):
        built(policy, folder, shard)
        return
    if names == ("resume",):
        # What another number of processes has left in the folder.
        checkpoint = folder / "run-steppo-adam" / "checkpoint-1"
        update("steppo-adam", policy, folder / "again", shard=shard, resume_from=checkpoint, out="resumed")
        return
    for name in names or (SETUPS if shard == "none" else SHARDED):
        if name == "steppo-adam":
            resumed(policy, folder, shard)
        else:
            update(name, policy, folder, shard=shard)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
