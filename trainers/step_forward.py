"""Forward passes of policy, reference and critic over rows, and the loss of a micro-batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor
from trl.trainer.utils import use_adapter

from steppo_gym.credit.averages import loss_denominator
from steppo_gym.credit.losses import kl_k3, needs_center, policy_loss, token_log_ratio_sum_and_count, value_loss
from steppo_gym.credit.records import Unit
from steppo_gym.credit.rows import ABSENT, Row, collate, gather_from, scatter_to, token_budget_batches
from steppo_gym.trainers.metrics import UpdateSums
from steppo_gym.trainers.step_config import StepConfig
from steppo_gym.trainers.step_data import Iteration, Slice, padding_row

Array = npt.NDArray[np.float64]
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Models:
    """What is trained and what it is run with."""

    policy: Any
    """Not wrapped for several processes."""
    reference: Any
    """None without a KL term, and where the policy without its adapters is the reference."""
    critic: Any
    """None for rules without one."""
    accelerator: Accelerator
    pad_token_id: int
    gather: Callable[[Any], list[Any]] | None = None
    """Collects one object of every process, where models are sharded; None where they are not."""


@dataclass(frozen=True)
class UpdateTotals:
    """What the loss of every micro-batch of an update is taken over: its slices in all processes."""

    policy_denominator: float
    value_denominator: float
    center: float | None = None
    """Mean log ratio of the tokens, for the ratio that needs it."""


class StepForward:
    """The models applied to rows.

    Args:
        models: they are not changed here.
        args: settings of the run.
        value_clip_range: of the value loss, in units of the iteration's `reward_scale`; None for none.
    """

    def __init__(self, models: Models, args: StepConfig, value_clip_range: float | None = None) -> None:
        self.models, self.args, self.value_clip_range = models, args, value_clip_range

    def values(self, rows: Sequence[Row], unit: Unit, num_steps: int, num_tokens: int, num_episodes: int) -> Array:
        """(N + E,) or (M + E,) the critic's values before each step or response token, then of the final states.

        0 where there is no state (terminated episodes).
        """
        decisions = num_steps if unit == "step" else num_tokens
        # DDP exchanges buffers in every pass, and the processes have different numbers of passes, some none.
        critic = self.models.accelerator.unwrap_model(self.models.critic)
        with torch.no_grad():
            parts = (
                (self._values(critic, batch), _value_numbers(batch, unit, num_steps, num_tokens))
                for batch in self._batches(rows)
            )
            return scatter_to(parts, decisions + num_episodes)

    def log_probs(self, rows: Sequence[Row], number: int, *, training: bool = False) -> Array:
        """(number,) log-probability of each response token under the policy; 0 for tokens that are in no row.

        Args:
            rows: some rows of an iteration.
            number: response tokens of the iteration.
            training: in the mode of updates, in which there may be dropout.
        """
        return self._collect_log_probs(self.models.policy, rows, number, training=training)

    def reference_log_probs(self, rows: Sequence[Row], number: int) -> Array:
        """(number,) the same under the reference.

        That is TRL's copy, of all weights or of the adapters that the model came with; or the model without adapters.
        """
        if self.models.reference is not None:
            return self._collect_log_probs(self.models.reference, rows, number)
        policy = self.models.accelerator.unwrap_model(self.models.policy)
        with use_adapter(policy, "ref" if "ref" in policy.peft_config else None):
            return self._collect_log_probs(self.models.policy, rows, number)

    def begin_update(
        self, iteration: Iteration, window: Sequence[Slice], gather: Callable[[Any], list[Any]]
    ) -> UpdateTotals:
        """Denominators and center of one update: over its slices and all processes.

        DDP averages gradients over the processes, so a denominator is the count of all divided by their number.
        """
        counts = np.sum([(part.num_steps, part.num_tokens, part.num_episodes) for part in window], axis=0)
        everywhere = gather(counts.astype(np.float64))
        steps, tokens, episodes = np.maximum(np.sum(everywhere, axis=0), 1.0) / len(everywhere)
        policy = loss_denominator(
            self.args.loss_average,
            steps=steps,
            tokens=tokens,
            episodes=episodes,
            max_response_tokens=self.args.max_response_tokens,
        )
        center = None
        if needs_center(self.args.ratio):
            center = self._mean_log_ratio(iteration, [row for part in window for row in part.rows], gather)
        return UpdateTotals(policy, float(tokens if iteration.credit.unit == "token" else steps), center)

    def loss(self, model: Any, batch: Batch, iteration: Iteration, totals: UpdateTotals, sums: UpdateSums) -> Tensor:
        """The micro-batch's share of the update's loss; its sums are added to `sums`.

        While only the critic learns, the policy's part is measured, but has no gradient: an optimizer leaves parameters
        without one as they are, whatever it keeps of them.
        """
        batch = self._to_device(batch)
        with torch.set_grad_enabled(iteration.trains_policy):
            total = self._policy_loss(model, batch, iteration, totals, sums)
        if self.models.critic is not None:
            total = total + self._value_loss(batch, iteration, totals, sums)
        return total

    def _policy_loss(
        self, model: Any, batch: Batch, iteration: Iteration, totals: UpdateTotals, sums: UpdateSums
    ) -> Tensor:
        """Of the clipped terms, and of the KL divergence where it counts in the loss."""
        args = self.args
        tokens, steps = batch["token_index"][:, 1:], batch["step_index"][:, 1:]
        log_probs, entropy = self._policy(model, batch)
        if iteration.trace is not None:
            iteration.trace.note(tokens, log_probs, entropy)
        policy = policy_loss(
            log_probs,
            gather_from(iteration.old_log_probs, tokens),
            gather_from(iteration.weighted_advantages, tokens),
            steps,
            ratio=args.ratio,
            clip_low=args.epsilon,
            clip_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
            denominator=totals.policy_denominator,
            center=totals.center,
        )
        total, reference_kl = policy.loss, None
        if iteration.reference_log_probs is not None:
            kl = kl_k3(log_probs, gather_from(iteration.reference_log_probs, tokens))
            reference_kl = torch.where(tokens != ABSENT, kl, 0.0).sum()
            if args.kl_in == "loss":
                weighted = torch.where(tokens != ABSENT, kl * gather_from(iteration.kl_weights, tokens), 0.0).sum()
                total = total + args.beta * weighted / totals.policy_denominator
        sums.add_policy(policy, torch.where(tokens != ABSENT, entropy, 0.0).sum(), reference_kl)
        return total

    def _value_loss(self, batch: Batch, iteration: Iteration, totals: UpdateTotals, sums: UpdateSums) -> Tensor:
        credit = iteration.credit
        assert credit.values is not None and credit.returns is not None
        values = self._values(self.models.critic, batch)
        if credit.unit == "token":
            values, index = values[:, :-1], batch["token_index"][:, 1:]
        else:
            # Numbers from len(returns) on are final states, whose values are not trained.
            index = torch.where(batch["value_index"] < len(credit.returns), batch["value_index"], ABSENT)
        loss = value_loss(
            values,
            gather_from(credit.values, index),
            gather_from(credit.returns, index),
            index != ABSENT,
            clip_range=None if self.value_clip_range is None else self.value_clip_range * iteration.reward_scale,
            denominator=totals.value_denominator,
        )
        sums.add_value(loss)
        return loss.loss

    def _policy(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Log-probabilities and entropies (B, T - 1) of the tokens after the first, through TRL's fused head."""
        labels = torch.where(batch["step_index"] == ABSENT, -100, batch["input_ids"])
        with self.models.accelerator.autocast():
            out = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels, fused_lm_head=True
            )
        entropy = out.log_probs.new_zeros(out.log_probs.shape) if out.entropy is None else out.entropy.detach()
        return out.log_probs, entropy

    def _values(self, critic: Any, batch: Batch) -> Tensor:
        with self.models.accelerator.autocast():
            return critic(batch["input_ids"], batch["attention_mask"])

    @torch.no_grad()
    def _collect_log_probs(self, model: Any, rows: Sequence[Row], number: int, *, training: bool = False) -> Array:
        with _in_mode(model, training):
            parts = ((self._policy(model, batch)[0], batch["token_index"][:, 1:]) for batch in self._batches(rows))
            return scatter_to(parts, number)

    @torch.no_grad()
    def _mean_log_ratio(self, iteration: Iteration, rows: Sequence[Row], gather: Callable[[Any], list[Any]]) -> float:
        total, count = 0.0, 0
        for batch in self._batches(rows):
            old = gather_from(iteration.old_log_probs, batch["token_index"][:, 1:])
            log_probs, _ = self._policy(self.models.policy, batch)
            part, number = token_log_ratio_sum_and_count(log_probs, old, batch["step_index"][:, 1:])
            total, count = total + float(part), count + int(number)
        everywhere = np.sum(gather(np.array([total, count])), axis=0)
        return float(everywhere[0] / max(everywhere[1], 1.0))

    def micro_batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        """Rows in batches that fit the token budget.

        Sharded models exchange weights in every pass, so all processes make as many as the one with the most.
        """
        batches = token_budget_batches(rows, self.args.max_tokens_per_micro_batch)
        most = len(batches) if self.models.gather is None else max(self.models.gather(len(batches)))
        return [*batches, *([padding_row(self.models.pad_token_id)] for _ in range(most - len(batches)))]

    def _batches(self, rows: Sequence[Row]) -> Iterator[Batch]:
        for part in self.micro_batches(rows):
            yield self._to_device(collate(part, self.models.pad_token_id))

    def _to_device(self, batch: Batch) -> Batch:
        return {name: tensor.to(self.models.accelerator.device) for name, tensor in batch.items()}


def _value_numbers(batch: Batch, unit: Unit, num_steps: int, num_tokens: int) -> Tensor:
    """(B, T) which value the critic's output at a position is; values of final states come after all others."""
    index = batch["value_index"]
    if unit == "step":
        return index
    # The value before a token stands at the token in front of it.
    numbers = torch.nn.functional.pad(batch["token_index"][:, 1:], (0, 1), value=ABSENT)
    return torch.where(index >= num_steps, num_tokens + index - num_steps, numbers)


@contextlib.contextmanager
def _in_mode(model: Any, training: bool) -> Iterator[None]:
    before = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(before)
