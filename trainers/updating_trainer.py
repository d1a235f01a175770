"""How an update is made: gradients of slices in micro-batches, over all processes, for policy and critic together."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import torch
from transformers import TrainerCallback

from steppo_gym.credit.rows import collate
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.finiteness import require_finite
from steppo_gym.trainers.metrics import UpdateSums
from steppo_gym.trainers.sampling_trainer import SamplingTrainer
from steppo_gym.trainers.sharding.layout import as_number
from steppo_gym.trainers.step_data import Iteration, Slice, padding_row
from steppo_gym.trainers.step_forward import StepForward, UpdateTotals


class GradientsGivenBack(TrainerCallback):
    """Frees a model's gradients after an update, as Trainer does the policy's, so that rollouts have their memory.

    Args:
        model: the critic.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The update is made."""
        self._model.zero_grad()


class UpdatingTrainer(SamplingTrainer):
    """The part of `StepTrainer` that learns; step_trainer.py lists what it overrides."""

    critic_config: CriticConfig
    slices_per_pass: int
    _forward: StepForward
    _iteration: Iteration | None
    _totals: UpdateTotals
    _sums: UpdateSums

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """Gradients of one slice, in micro-batches that fit the token budget."""
        model.train()
        part: Slice = self._prepare_inputs(inputs)
        started = time.perf_counter()
        assert self._iteration is not None
        if self._step % self.args.gradient_accumulation_steps == 0:
            self._totals = self._begin_update(self._iteration)
        rows = part.rows or (padding_row(self.pad_token_id),)
        batches = self._forward.micro_batches(rows)
        total = torch.zeros((), device=self.accelerator.device)
        for position, batch in enumerate(batches):
            with self._synchronized_if(position == len(batches) - 1, model):
                tensors = collate(batch, self.pad_token_id)
                with self.phases.phase("forward"):
                    loss = self._forward.loss(model, tensors, self._iteration, self._totals, self._sums)
                with self.phases.phase("backward"):
                    self.accelerator.backward(loss)
            total += loss.detach()
        require_finite(total, f"the loss, with rewards up to {self._iteration.reward_scale:g},", self.position())
        self._step += 1
        self._current_train_step_time += time.perf_counter() - started
        if self._step % self.args.gradient_accumulation_steps == 0:
            self._end_update()
        return total

    def _begin_update(self, iteration: Iteration) -> UpdateTotals:
        first = self._step % self.slices_per_pass
        window = iteration.slices[first : first + self.args.gradient_accumulation_steps]
        self._sums = UpdateSums()
        return self._forward.begin_update(iteration, window, self.gather)

    def _end_update(self) -> None:
        self._sums = UpdateSums.merge(self.gather(self._sums))
        if self._sums.tokens:
            self._record(self._sums.metrics(has_critic=self.critic is not None, has_reference=bool(self.args.beta)))
        else:
            self._forget_gradients()
        self._record({"update_seconds": self._current_train_step_time})
        if (self.state.global_step + 1) % self.args.updates_in_iteration == 0:
            self._record(self.phases.since_last())
        self._current_train_step_time = 0.0

    def _forget_gradients(self) -> None:
        """For an update whose episodes have all failed: with gradients of 0, Adam would go on as it went before."""
        # A scaler, under float16, cannot do without any.
        if self.accelerator.scaler is None:
            for model in filter(None, (self.model, self.critic)):
                model.zero_grad()

    @contextlib.contextmanager
    def _synchronized_if(self, last: bool, model: Any) -> Iterator[None]:
        """Let the processes exchange gradients only in the last backward pass of an update.

        Sharded models do so in each, so that no process holds a whole gradient.
        """
        with contextlib.ExitStack() as stack:
            if not last:
                stack.enter_context(self.accelerator.no_sync(model))
            if self.critic is not None and not (last and self.accelerator.sync_gradients):
                stack.enter_context(self.accelerator.no_sync(self.critic))
            yield

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """One optimizer; the critic is its last parameter group, so scheduler and checkpoints cover it.

        Raises:
            ValueError: a scheduler was given, which does not know that group.
        """
        optimizer = super().create_optimizer(model)
        if self.critic is None:
            return optimizer
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        learned = [parameter for parameter in self.critic.parameters() if parameter.requires_grad]
        # It is asked for more than once; one that was given to the trainer has not seen the critic.
        if known.isdisjoint(map(id, learned)):
            if self.lr_scheduler is not None:
                raise ValueError(
                    "optimizers: the scheduler was made before the critic was in the optimizer, and would leave its "
                    "rate as it is. Give (optimizer, None) and choose lr_scheduler_type."
                )
            settings = {"lr": self.critic_config.critic_learning_rate, "weight_decay": 0.0}
            optimizer.add_param_group({"params": learned, **settings})
        return optimizer

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        """The norm of the policy's gradient; the critic's is clipped here. Both are looked at before the update."""
        norms = {"policy": as_number(super()._get_grad_norm(model, grad_norm))}
        if self.critic is not None:
            limit = self.args.max_grad_norm or math.inf
            # Not the accelerator's: under float16 that unscales all gradients, which it has done, and may do but once.
            norms["critic"] = as_number(torch.nn.utils.clip_grad_norm_(self.critic.parameters(), limit)) or 0.0
        if self._sums.tokens:
            # Trainer's own entry is that of the last update.
            prefixes = {"policy": "", "critic": "critic_"}
            self._record({f"{prefixes[name]}grad_norm": float(norm) for name, norm in norms.items()})
        # Under float16 the scaler itself passes over such an update.
        for name, norm in norms.items() if self.accelerator.scaler is None else ():
            require_finite(norm, f"the norm of the {name}'s gradient", self.position())
        return norms["policy"]
