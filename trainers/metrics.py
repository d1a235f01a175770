"""What is logged, from records and sums. Names, formulas and healthy ranges stand in `trainers/README.md`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from torch import Tensor

from steppo_gym.credit.losses import PolicyLoss, ValueLoss
from steppo_gym.credit.records import Credit, explained_variance, has_credit
from steppo_gym.credit.whitening import Moments
from steppo_gym.evaluation.scores import episode_metrics
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.rollout import RolloutStats
from steppo_gym.trainers.collapse import collapse_metrics


@dataclass
class UpdateSums:
    """Sums of one update over its micro-batches; `merge` adds those of other processes."""

    policy_loss: float = 0.0
    value_loss: float = 0.0
    terms: float = 0.0
    clipped: float = 0.0
    steps: float = 0.0
    tokens_outside: float = 0.0
    steps_outside: float = 0.0
    ratio: float = 0.0
    ratio_max: float = 0.0
    tokens: float = 0.0
    kl: float = 0.0
    reference_kl: float = 0.0
    entropy: float = 0.0
    values: float = 0.0
    values_clipped: float = 0.0
    micro_batches: float = 0.0

    def add_policy(self, loss: PolicyLoss, entropy_sum: Tensor, reference_kl_sum: Tensor | None) -> None:
        """Add one micro-batch of the policy loss."""
        self.policy_loss += float(loss.loss.detach())
        self.terms += float(loss.num_terms)
        self.clipped += float(loss.num_clipped)
        self.steps += float(loss.num_steps)
        self.tokens_outside += float(loss.num_tokens_outside)
        self.steps_outside += float(loss.num_steps_outside)
        self.ratio += float(loss.ratio_sum)
        self.ratio_max = max(self.ratio_max, float(loss.ratio_max))
        self.tokens += float(loss.num_tokens)
        self.kl += float(loss.kl_sum)
        self.entropy += float(entropy_sum)
        self.reference_kl += 0.0 if reference_kl_sum is None else float(reference_kl_sum.detach())
        self.micro_batches += 1

    def add_value(self, loss: ValueLoss) -> None:
        """Add one micro-batch of the value loss."""
        self.value_loss += float(loss.loss.detach())
        self.values += float(loss.num_values)
        self.values_clipped += float(loss.num_clipped)

    @staticmethod
    def merge(parts: Sequence[UpdateSums]) -> UpdateSums:
        """Sums of all processes; the losses are averaged, because each is scaled up by the number of processes."""
        total = UpdateSums()
        for f in fields(UpdateSums):
            column = [getattr(part, f.name) for part in parts]
            setattr(total, f.name, max(column) if f.name == "ratio_max" else sum(column))
        total.policy_loss /= len(parts)
        total.value_loss /= len(parts)
        return total

    def metrics(self, has_critic: bool, has_reference: bool) -> dict[str, float]:
        """The update's entries in the log."""
        terms, tokens = max(self.terms, 1.0), max(self.tokens, 1.0)
        logged = {
            "policy_loss": self.policy_loss,
            "clip_fraction": self.clipped / terms,
            "tokens_outside_clip": self.tokens_outside / tokens,
            "steps_outside_clip": self.steps_outside / max(self.steps, 1.0),
            "ratio_mean": self.ratio / terms,
            "ratio_max": self.ratio_max,
            "approx_kl": self.kl / tokens,
            "entropy": self.entropy / tokens,
            "micro_batches": self.micro_batches,
        }
        if has_critic:
            logged["value_loss"] = self.value_loss
            logged["value_clip_fraction"] = self.values_clipped / max(self.values, 1.0)
        if has_reference:
            logged["kl"] = self.reference_kl / tokens
        return logged


def group_metrics(episodes: Sequence[Sequence[Episode]]) -> dict[str, float]:
    """Sizes of the groups of episodes and how many of them say nothing, nothing at all where no group has two."""
    groups: dict[tuple[int, int], list[Episode]] = {}
    for rank, part in enumerate(episodes):
        for episode in part:
            if episode.ended != "failed":
                groups.setdefault((rank, episode.group), []).append(episode)
    if all(len(group) == 1 for group in groups.values()):
        return {}
    returns = [[episode.total_reward for episode in group] for group in groups.values()]
    silent = [max(group) == min(group) for group in returns]
    agreeing = [len({episode.success for episode in group}) == 1 for group in groups.values()]
    return {
        "group_size": _mean([len(group) for group in returns]),
        "group_return_std": _mean([float(np.std(group, ddof=1)) for group in returns if len(group) > 1]),
        "uninformative_groups": _mean(silent),
        "groups_of_small_rewards": _mean([agree and not equal for agree, equal in zip(agreeing, silent, strict=True)]),
    }


def without_texts(episode: Episode) -> Episode:
    """What the metrics need of an episode: all that is sent to other processes.

    In the append context an episode's prompts grow with the square of its length.
    """
    steps = tuple(
        replace(step, prompt_ids=(), log_probs=None, response="", admissible_actions=None) for step in episode.steps
    )
    return replace(episode, steps=steps, final_prompt_ids=None if episode.final_prompt_ids is None else ())


def rollout_metrics(episodes: Sequence[Sequence[Episode]], stats: Sequence[RolloutStats]) -> dict[str, float]:
    """Scores and speed of an iteration's rollouts, from the records of all processes, `without_texts` or with."""
    every = [episode for part in episodes for episode in part]
    seconds = max(part.seconds for part in stats)
    return (
        episode_metrics(every)
        | group_metrics(episodes)
        | collapse_metrics(every)
        | {
            "rollout_seconds": seconds,
            "generated_tokens": sum(part.num_generated_tokens for part in stats),
            "generation_seconds": max(part.generation_seconds for part in stats),
            "environment_wait_seconds": max(part.environment_wait_seconds for part in stats),
            # Processes that differ, or could not find out, are in between.
            "environments_overlap": _mean([0.5 if part.overlap is None else part.overlap for part in stats]),
            "episodes_per_second": len(every) / seconds,
            "generated_tokens_per_second": sum(part.num_generated_tokens for part in stats) / seconds,
            "generation_batch_size": _mean([part.mean_batch_size for part in stats]),
            "request_seconds": sum(part.request_seconds for part in stats),
        }
    )


def credit_metrics(credit: Credit, raw: Moments, gather: Callable[[Any], list[Any]]) -> dict[str, float]:
    """Advantages, sizes of state groups, and the critic's fit to its targets, over all processes.

    Args:
        credit: of this process.
        raw: of the advantages before whitening, in all processes.
        gather: from one object of this process to those of all.
    """
    logged = {"advantage_mean": raw.mean, "advantage_std": raw.std}
    counts = gather((int(has_credit(credit.advantages).sum()), len(credit.advantages)))
    if number := sum(all_of for _, all_of in counts):
        logged["credited_share"] = sum(some for some, _ in counts) / number
    if credit.state_group_sizes is not None:
        sizes = np.concatenate(gather(credit.state_group_sizes))
        if len(sizes):
            # A group of n steps is in the list n times.
            logged["state_group_size"] = float(len(sizes) / (1.0 / sizes).sum())
            logged["lone_states"] = float((sizes == 1).mean())
    if credit.values is None or credit.returns is None:
        return logged
    values, returns = np.concatenate(gather(credit.values)), np.concatenate(gather(credit.returns))
    if len(returns):
        logged["value_mean"] = float(values.mean())
        logged["value_target_mean"] = float(returns.mean())
        logged["explained_variance"] = explained_variance(values, returns)
    return logged


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
