"""Clipped policy loss with token or step ratios, clipped value loss, KL penalty. Pure functions on torch tensors.

Every function returns sums over its micro-batch divided by a denominator that the caller fixes for the whole update, so
that the losses of the micro-batches add up to the loss of the update however it is split. Diagnostics are detached sums
for the same reason.

Tensors are (B, T) and aligned on targets: the entry of a token stands where the token stands, and whoever drops the
first token's log-probability (it has none) drops the first column of every other tensor as well. What is not trained on
may hold anything, NaN included.

Left out: dual clipping and entropy bonus. `averages.py` has the weights and denominators of the averages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Ratio = Literal["token", "geometric", "sqrt_centered"]
RATIOS: tuple[Ratio, ...] = get_args(Ratio)

MAX_LOG_RATIO = 20.0
"""Log ratios are clamped to +-20 before `exp`, which then stays finite in float32; a term beyond has no gradient.

Deviation: the code released with StepPO clamps at 10, and from above only.
"""


def terms_per_step(tokens_per_step: npt.NDArray[np.float64], ratio: Ratio) -> npt.NDArray[np.float64]:
    """(N,) how many terms of the policy loss each step has: its tokens with the token ratio, one with the others."""
    return tokens_per_step if ratio == "token" else np.ones_like(tokens_per_step)


def needs_center(ratio: Ratio) -> bool:
    """Whether the ratio reads the mean log ratio over the update's tokens, which takes one more pass."""
    return ratio == "sqrt_centered"


@dataclass(frozen=True)
class PolicyLoss:
    """The loss of a micro-batch and what to log of it. `terms_per_step` says what a term is."""

    loss: Tensor
    """Scalar with gradient: minus the sum of the clipped terms, over the denominator."""
    num_terms: Tensor
    num_clipped: Tensor
    """Terms whose clipped side is the smaller one, so that they have no gradient."""
    ratio_sum: Tensor
    ratio_max: Tensor
    """0 without terms; over micro-batches, take the maximum."""
    num_tokens: Tensor
    num_tokens_outside: Tensor
    """Tokens whose own ratio is outside the clip range, whatever the ratio of the loss."""
    num_steps: Tensor
    num_steps_outside: Tensor
    """Steps whose geometric ratio is outside the clip range, whatever the ratio of the loss."""
    kl_sum: Tensor
    """Sum over tokens of the k3 estimate of KL(old policy || policy)."""


@dataclass(frozen=True)
class ValueLoss:
    """The loss of a micro-batch and what to log of it."""

    loss: Tensor
    """Scalar with gradient: half the sum of squared errors, clipped, over the denominator."""
    num_values: Tensor
    num_clipped: Tensor
    """Values whose clipped error is the larger one, so that they have no gradient."""


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    step_index: Tensor,
    *,
    ratio: Ratio,
    clip_low: float,
    clip_high: float,
    denominator: float,
    center: Tensor | float | None = None,
) -> PolicyLoss:
    """Clipped surrogate loss (arXiv:1707.06347, eq. 7) with one importance ratio per token or per step.

    With z the log-probability minus the old one of each of the L tokens of a step, the log ratio is

    - "token": z, one term per token (PPO, GRPO, GiGPO);
    - "geometric": mean of z, one term per step (GSPO, arXiv:2507.18071; StepPO, arXiv:2604.18401v2-v4). StepPO writes
      its ratio per token as sg[log w] + log p - sg[log p], sg for stop-gradient, and takes the mean over the tokens,
      then over the steps: the same value and the same gradient as the one clipped term per step computed here, because
      the advantage is the same for all tokens of a step;
    - "sqrt_centered": mu + (1 / sqrt(L)) * sum of (z - mu), one term per step (arXiv:2604.18401v5), with mu = `center`.

    Args:
        log_probs: (B, T) float, log-probability of each token under the policy, with gradient.
        old_log_probs: (B, T) float, the same under the policy that sampled them.
        advantages: (B, T) float, the advantage of each token; step ratios use the mean over the tokens of a step.
        step_index: (B, T) int64, number of the step a token belongs to, -1 for tokens that are not trained on (prompt,
            environment, padding). All tokens of a step must be in the same call.
        ratio: which of the three.
        clip_low: ratios are clipped at 1 - clip_low from below.
        clip_high: and at 1 + clip_high from above.
        denominator: number of terms in the update over all micro-batches and processes: tokens for "token", steps for
            the others. For other averages than that over terms multiply the advantages by `loss_weights` and give
            `loss_denominator` (`steppo_gym.credit.averages`).
        center: mean of z over all tokens of the update, a constant (`token_log_ratio_sum_and_count`); read by
            "sqrt_centered" only.

    Returns:
        The loss, to be minimized, and diagnostics. Without a trained token the loss is 0 with zero gradient.

    Raises:
        ValueError: shapes differ, the ratio is unknown, the denominator is not positive, or the center is missing.
    """
    _check_shapes(log_probs=log_probs, old_log_probs=old_log_probs, advantages=advantages, step_index=step_index)
    _check_denominator(denominator)
    trained = step_index >= 0
    z = _log_ratios(log_probs, old_log_probs, trained)
    term_log_ratios, term_advantages = z, advantages[trained].to(z.dtype)
    if ratio != "token":
        term_log_ratios, term_advantages = _per_step(z, term_advantages, step_index[trained], ratio, center)
    ratios = term_log_ratios.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    plain = ratios * term_advantages
    clipped = ratios.clamp(1.0 - clip_low, 1.0 + clip_high) * term_advantages
    with torch.no_grad():
        low, high = 1.0 - clip_low, 1.0 + clip_high
        step_means, _ = _per_step(z, z, step_index[trained], "geometric", None)
        kl = kl_k3(torch.zeros_like(z), z)
        ratio_max = ratios.max() if ratios.numel() else ratios.new_zeros(())
    return PolicyLoss(
        loss=-torch.minimum(plain, clipped).sum() / denominator,
        num_terms=torch.tensor(ratios.numel(), device=z.device),
        num_clipped=(clipped < plain).sum(),
        ratio_sum=ratios.detach().sum(),
        ratio_max=ratio_max,
        num_tokens=torch.tensor(z.numel(), device=z.device),
        num_tokens_outside=((z.exp() < low) | (z.exp() > high)).sum(),
        num_steps=torch.tensor(step_means.numel(), device=z.device),
        num_steps_outside=((step_means.exp() < low) | (step_means.exp() > high)).sum(),
        kl_sum=kl.sum(),
    )


@torch.no_grad()
def token_log_ratio_sum_and_count(
    log_probs: Tensor, old_log_probs: Tensor, step_index: Tensor
) -> tuple[Tensor, Tensor]:
    """What one micro-batch adds to the center of the "sqrt_centered" ratio: the mean log ratio over all tokens.

    The caller adds both over micro-batches and processes and divides; only then does the loss not depend on how the
    update is split.

    Args:
        log_probs: (B, T) float.
        old_log_probs: (B, T) float.
        step_index: (B, T) int64, -1 for tokens that are not trained on.

    Returns:
        Sum of log_probs - old_log_probs over the trained tokens, scalar float64, and their number, scalar int64.

    Raises:
        ValueError: shapes differ.
    """
    _check_shapes(log_probs=log_probs, old_log_probs=old_log_probs, step_index=step_index)
    trained = step_index >= 0
    return _log_ratios(log_probs, old_log_probs, trained).double().sum(), trained.sum()


def value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip_range: float | None,
    denominator: float,
) -> ValueLoss:
    """Clipped value loss: 0.5 * max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2).

    As in OpenAI baselines' ppo2 and in verl; the PPO paper has no clip here. StepPO masks all but the last prompt token
    of each step; token PPO all but the token before each response token.

    Args:
        values: (B, T) float, with gradient.
        old_values: (B, T) float, the critic's values when the advantages were computed.
        returns: (B, T) float, targets.
        mask: (B, T) bool, True = trained on.
        clip_range: c; None for the plain squared error.
        denominator: number of values in the update over all micro-batches and processes.

    Returns:
        The loss, to be minimized, and diagnostics.

    Raises:
        ValueError: shapes differ or the denominator is not positive.
    """
    _check_shapes(values=values, old_values=old_values, returns=returns, mask=mask)
    _check_denominator(denominator)
    mask = mask.bool()
    new = _at_least_float32(values[mask])
    old, target = old_values[mask].to(new.dtype), returns[mask].to(new.dtype)
    plain = (new - target) ** 2
    errors = plain
    if clip_range is not None:
        errors = torch.maximum(plain, (new.clamp(old - clip_range, old + clip_range) - target) ** 2)
    return ValueLoss(
        loss=0.5 * errors.sum() / denominator,
        num_values=mask.sum(),
        num_clipped=(errors > plain).sum(),
    )


def kl_k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Estimate of KL(policy || reference) for each token sampled from the policy.

    It is exp(d) - d - 1 with d = log q - log p: never negative, unbiased, of low variance (k3 of Schulman,
    "Approximating KL Divergence", 2020; arXiv:2402.03300, eq. 4). d is clamped like the ratios, see `MAX_LOG_RATIO`.

    Args:
        log_probs: (...) float, under the policy (p).
        reference_log_probs: (...) float, under the reference (q).

    Returns:
        (...) float, one per token; not masked.

    Raises:
        ValueError: shapes differ.
    """
    _check_shapes(log_probs=log_probs, reference_log_probs=reference_log_probs)
    difference = _at_least_float32(reference_log_probs) - _at_least_float32(log_probs)
    difference = difference.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return torch.expm1(difference) - difference


def _per_step(
    z: Tensor, advantages: Tensor, steps: Tensor, ratio: Ratio, center: Tensor | float | None
) -> tuple[Tensor, Tensor]:
    """Log ratio and advantage of each step, (S,), from those of its tokens, (M,)."""
    _, inverse, counts = torch.unique(steps, return_inverse=True, return_counts=True)
    lengths = counts.to(z.dtype)
    zeros = torch.zeros_like(lengths)
    step_advantages = zeros.index_add(0, inverse, advantages) / lengths
    sums = zeros.index_add(0, inverse, z)
    if ratio == "geometric":
        return sums / lengths, step_advantages
    if ratio != "sqrt_centered":
        raise ValueError(f"ratio must be one of {', '.join(RATIOS)}, got {ratio!r}.")
    if center is None:
        raise ValueError(
            'The "sqrt_centered" ratio needs center, the mean log ratio over the tokens of the update; got None.'
        )
    mu = torch.as_tensor(center, device=z.device).detach().to(z.dtype)
    return mu + (sums - lengths * mu) / lengths.sqrt(), step_advantages


def _log_ratios(log_probs: Tensor, old_log_probs: Tensor, trained: Tensor) -> Tensor:
    return _at_least_float32(log_probs[trained]) - _at_least_float32(old_log_probs[trained])


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _check_shapes(**tensors: Tensor) -> None:
    if len({x.shape for x in tensors.values()}) > 1:
        found = ", ".join(f"{name} {tuple(x.shape)}" for name, x in tensors.items())
        raise ValueError(f"Expected equal shapes, got {found}.")


def _check_denominator(denominator: float) -> None:
    if not denominator > 0:
        raise ValueError(f"denominator must be positive, got {denominator}.")
