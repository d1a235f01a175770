"""Importance weights for tokens that were sampled from another distribution than that of the policy before an update.

The sampler may be an engine whose kernels or precision differ, or have older weights. With mu the sampler and pi the
policy before the update, rho_j = pi(y_j) / mu(y_j) is the ratio of one token. The terms of the policy loss are
multiplied by a weight that is cut at C, the cap: truncated importance sampling (Ionides, "Truncated Importance
Sampling", 2008; for engines of language models Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy
RL Training", 2025). The ratio that the loss clips stays that between the policy and the policy before the update, as in
decoupled PPO (arXiv:2110.00641).

- "token_truncate": min(rho_j, C), each token by itself. Biased where a response has many tokens: whether the tokens
  before it were likely does not count.
- "step_truncate": min(product of rho over the step's tokens, C), the same for all of them: a step is one action, and
  this is its ratio.
- "sequence_mask": the product over all tokens sampled in the episode if it is at most C, else 0: an episode that the
  policy plays more than C times as often as the sampler is left out (TRL's and verl's name for it).

Not weighted: the critic's loss and the KL term, which belong to the states that were visited. There are no lower
bounds.

    weights = correction_weights(sampled, trained, [3, 2], [2], kind="step_truncate", cap=3.0)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from steppo_gym.credit.losses import MAX_LOG_RATIO
from steppo_gym.credit.ragged import Array, sum_per_episode

Correction = Literal["none", "token_truncate", "step_truncate", "sequence_mask"]
CORRECTIONS: tuple[Correction, ...] = get_args(Correction)


def correction_weights(
    sampled: Array,
    trained: Array,
    tokens_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
    *,
    kind: Correction,
    cap: float,
) -> Array:
    """(M,) what the term of each response token is multiplied by; constants, exactly 1 where the two are equal.

    Args:
        sampled: (M,) log-probability of each token under the sampler.
        trained: (M,) the same under the policy before the update.
        tokens_per_step: (N,) with sum M.
        steps_per_episode: (E,) with sum N.
        kind: which weights.
        cap: C, at least 1.

    Raises:
        ValueError: shapes differ, the kind is unknown, or the cap is below 1.
    """
    if sampled.shape != trained.shape or len(sampled) != sum(tokens_per_step):
        raise ValueError(
            f"Expected log-probabilities of {sum(tokens_per_step)} tokens, got {sampled.shape} and {trained.shape}."
        )
    if not cap >= 1.0:
        raise ValueError(f"cap must be at least 1, got {cap}.")
    lengths, log_ratios = np.array(tokens_per_step, np.int64), trained - sampled
    match kind:
        case "none":
            return np.ones_like(log_ratios)
        case "token_truncate":
            return np.minimum(_exp(log_ratios), cap)
        case "step_truncate":
            return np.repeat(np.minimum(_exp(sum_per_episode(log_ratios, lengths)), cap), lengths)
        case "sequence_mask":
            steps = np.array(steps_per_episode, np.int64)
            tokens_per_episode = sum_per_episode(lengths.astype(np.float64), steps).astype(np.int64)
            ratios = _exp(sum_per_episode(log_ratios, tokens_per_episode))
            return np.repeat(np.where(ratios <= cap, ratios, 0.0), tokens_per_episode)
    raise ValueError(f"off_policy_correction must be one of {', '.join(CORRECTIONS)}, got {kind!r}.")


@dataclass(frozen=True)
class Mismatch:
    """How far sampler and policy are apart, as sums over tokens that those of other processes are added to."""

    num_tokens: float = 0.0
    kl: float = 0.0
    """Of the k3 estimate of KL(mu || pi)."""
    weights: float = 0.0
    squared_weights: float = 0.0
    num_cut: float = 0.0
    """Tokens whose weight is not their ratio: truncated or masked."""

    @classmethod
    def of(cls, sampled: Array, trained: Array, weights: Array, cap: float) -> Mismatch:
        """The sums of one process; all arrays are (M,)."""
        d = np.clip(trained - sampled, -MAX_LOG_RATIO, MAX_LOG_RATIO)
        return cls(
            num_tokens=float(len(d)),
            kl=float((np.expm1(d) - d).sum()),
            weights=float(weights.sum()),
            squared_weights=float((weights**2).sum()),
            num_cut=float(((weights >= cap) | (weights == 0.0)).sum()),
        )

    @staticmethod
    def metrics(parts: Sequence[Mismatch]) -> dict[str, float]:
        """The iteration's entries in the log, over all processes."""
        total = np.sum([(p.num_tokens, p.kl, p.weights, p.squared_weights, p.num_cut) for p in parts], axis=0)
        tokens = max(float(total[0]), 1.0)
        return {
            "sampler_kl": float(total[1]) / tokens,
            "correction_mean": float(total[2]) / tokens,
            "correction_sample_size": float(total[2]) ** 2 / max(tokens * float(total[3]), 1e-12),
            "correction_cut": float(total[4]) / tokens,
        }


def _exp(log_ratios: Array) -> Array:
    return np.exp(np.clip(log_ratios, -MAX_LOG_RATIO, MAX_LOG_RATIO))
