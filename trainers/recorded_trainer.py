"""What a trainer leaves: log entries, checkpoints that are complete or not there, and the episodes of training."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from safetensors.torch import load_model, save_model
from transformers import TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from trl.trainer.grpo_trainer import GRPOTrainer

from steppo_gym.errors import CheckpointError
from steppo_gym.rollouts.episode import Episode, write_episodes
from steppo_gym.trainers.checkpoints import (
    CRITIC_FILE,
    REFERENCE_FILE,
    STATE_FILE,
    fault,
    has_other_names,
    load_critic,
    load_renamed,
    reading_checkpoint,
    save_critic,
    writing_checkpoint,
)
from steppo_gym.trainers.finiteness import require_finite_weights
from steppo_gym.trainers.phases import Phases
from steppo_gym.trainers.sharding import checkpoint
from steppo_gym.trainers.sharding.models import ShardedModels
from steppo_gym.trainers.step_config import StepConfig


class RecordedTrainer(GRPOTrainer):
    """The part of `StepTrainer` that writes and reads; step_trainer.py lists what it overrides."""

    args: StepConfig
    model: Any
    critic: Any
    """None for rules without one."""
    sharded: ShardedModels | None = None
    """None where every process has whole models."""
    phases: Phases
    """Where the time goes."""
    _unfinished: Path | None = None
    """Where a checkpoint is being written."""
    _sampler: Any = None
    """Deals the tasks, once training has begun."""

    def _send_telemetry(self) -> None:
        """Nothing: TRL would tell the Hub of every run, unless told not to before it is imported."""

    def require_finite_weights(self) -> None:
        """Raise a NonFiniteError unless all weights are finite."""
        require_finite_weights({"policy": self.model, "critic": self.critic}, self.position(), self.gather)

    def position(self) -> str:
        """Where the run is, for messages."""
        iteration, update = divmod(self.state.global_step, self.args.updates_in_iteration)
        return f"Iteration {iteration + 1}, update {update + 1} of {self.args.updates_in_iteration}"

    def gather(self, part: Any) -> list[Any]:
        """One object of each process, in the order of the ranks."""
        return gather_object([part]) if self.accelerator.num_processes > 1 else [part]

    def _record(self, logged: dict[str, float]) -> None:
        """Add to what TRL averages into the next log entry."""
        for name, value in logged.items():
            self._metrics["train"][name].append(value)

    def save_episodes(self, episodes: Sequence[Episode], number: int, kind: str = "episodes") -> None:
        """Write what was played in an iteration, counted from 0, unless that is switched off."""
        if self.args.save_episodes and (episodes or kind == "episodes"):
            with self.phases.phase("saving"):
                write_episodes(self.episode_file(number, kind), episodes)

    def episode_file(self, number: int, kind: str) -> Path:
        """Where this process's episodes of an iteration are."""
        rank = f"-rank{self.accelerator.process_index}" if self.accelerator.num_processes > 1 else ""
        return Path(str(self.args.output_dir), kind, f"iteration-{number + 1:04d}{rank}.jsonl")

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._sampler = super()._get_train_sampler(dataset)
        return self._sampler

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._unfinished or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        self.require_finite_weights()
        folder, name = Path(str(self.args.output_dir)), f"checkpoint-{self.state.global_step}"
        try:
            with (
                self.phases.phase("saving"),
                writing_checkpoint(folder, self.accelerator, self.args, self.state) as self._unfinished,
            ):
                super()._save_checkpoint(model, trial)
                if self.critic is not None and self.sharded is None and self.args.should_save:
                    save_critic(self.accelerator.unwrap_model(self.critic), self._unfinished / name)
                if self.args.sync_ref_model and self.args.should_save:
                    reference = self.accelerator.unwrap_model(self.ref_model)
                    save_model(reference, str(self._unfinished / name / REFERENCE_FILE))
        finally:
            self._unfinished = None

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        if self.sharded is not None:
            state_dict = checkpoint.whole_state(self.model, trained_only=hasattr(self.model, "peft_config"))
            if not self.args.should_save:
                return
        super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self.sharded is None:
            super()._save_optimizer_and_scheduler(output_dir)
            return
        checkpoint.save(self.sharded.all(), self._plain_optimizer(), Path(output_dir))
        if self.args.should_save:
            schedule: Any = self.lr_scheduler
            torch.save(schedule.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        """Without what accelerate puts around it."""
        optimizer: Any = self.optimizer
        return getattr(optimizer, "optimizer", optimizer)

    def _defer_fsdp_gradient_reduction(self) -> Any:
        """Nothing is deferred: gradients are averaged after each pass, so that no process holds a whole one."""
        return contextlib.nullcontext()

    def save_now(self) -> None:
        """Write a checkpoint of a training that was left between two iterations, unless it is there already."""
        step = self.state.global_step
        place = Path(str(self.args.output_dir), f"checkpoint-{step}")
        if step and step % self.args.updates_in_iteration == 0 and self.args.should_save and fault(place) is not None:
            self._save_checkpoint(self.model, None)

    def load_trained(self, checkpoint: Path) -> None:
        """Take the policy and the position of a checkpoint, to play with and not to train on."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / STATE_FILE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with reading_checkpoint(Path(resume_from_checkpoint)):
            folder, policy = Path(resume_from_checkpoint), self.accelerator.unwrap_model(self.model)
            if self.sharded is not None:
                checkpoint.load_weights(self.sharded.all(), folder)
            elif has_other_names(policy, folder):
                load_renamed(policy, folder)
            else:
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        with reading_checkpoint(Path(checkpoint)):
            if self.sharded is not None:
                self._load_sharded(self.sharded, Path(checkpoint))
            elif not Path(checkpoint, OPTIMIZER_NAME).is_file():
                # Transformers would go on with a new one.
                raise CheckpointError(f"{checkpoint} has no {OPTIMIZER_NAME}, without which no run goes on as it was.")
            else:
                super()._load_optimizer_and_scheduler(checkpoint)
        if self.sharded is None and self.critic is not None:
            with reading_checkpoint(Path(checkpoint), CRITIC_FILE):
                load_critic(self.accelerator.unwrap_model(self.critic), Path(checkpoint))
        if self.args.sync_ref_model:
            with reading_checkpoint(Path(checkpoint), REFERENCE_FILE):
                load_model(self.accelerator.unwrap_model(self.ref_model), Path(checkpoint, REFERENCE_FILE))
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        self._draw_earlier_orders()

    def _draw_earlier_orders(self) -> None:
        """Draw the orders of the rounds of all tasks that are over, so that the next is the one that comes next."""
        sampler, iterations = self._sampler, self.state.global_step // self.args.updates_in_iteration
        for _ in range(iterations // (sampler.num_samples // sampler.batch_size) if sampler.shuffle else 0):
            torch.randperm(sampler.num_samples, generator=sampler.generator)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        file = f"rng_state_{self.args.process_index}.pth" if self.args.world_size > 1 else "rng_state.pth"
        with reading_checkpoint(Path(checkpoint or ""), file):
            super()._load_rng_state(checkpoint)

    def _load_sharded(self, sharded: ShardedModels, folder: Path) -> None:
        """The state of optimizer and schedule; the weights are there already."""
        optimizer = self._plain_optimizer()
        checkpoint.load_optimizer(sharded.all(), optimizer, folder)
        scheduler: Any = self.lr_scheduler
        scheduler.load_state_dict(torch.load(folder / SCHEDULER_NAME, weights_only=True))
        for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
            group["lr"] = rate
