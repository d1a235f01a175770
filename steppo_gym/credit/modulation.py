"""Group credit modulated by what else is known of a step: its entropy, or its length. Pure numpy, float64."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.groups import group_advantages
from steppo_gym.credit.ragged import (
    Array,
    checked_lengths,
    episode_of,
    last_decisions,
    numbered,
    one_per,
    same_shape,
    sum_per_episode,
)


def step_entropies(log_probs: npt.ArrayLike, *, tokens_per_step: Sequence[int]) -> Array:
    """Estimate of the mean entropy of each step's tokens: the mean of -log p of the tokens that were sampled.

    Unbiased at temperature 1, and free of cost; EMPG computes the entropies from the whole distributions.

    Args:
        log_probs: (M,) float, of the sampled tokens under the policy that sampled them.
        tokens_per_step: (N,) int, each at least 1, sums to M.

    Returns:
        (N,) float, in nats.

    Raises:
        ValueError: the shapes do not fit together, or a step has no tokens.
    """
    (log_probs,) = same_shape(log_probs=log_probs)
    tokens = _checked_tokens(tokens_per_step, len(log_probs))
    return -sum_per_episode(log_probs, tokens) / tokens


def empg_advantages(
    advantages: npt.ArrayLike,
    entropies: npt.ArrayLike,
    *,
    steps_per_episode: Sequence[int],
    k: float = 1.0,
    k_future: float = 1.0,
    zeta: float = 0.05,
) -> Array:
    """EMPG: A' = A g(H_t) + zeta f(H_t+1), minus the mean of all steps (arXiv:2509.09265, eq. 8-12).

    H is scaled to lie between 0 and 1 over all steps. g = exp(-k H) over its mean: sure steps count more.
    f = exp(-k' H) of the next step: a bonus for leading to where the policy is sure; the last step of an episode has
    none. Steps of groups of equal returns get that bonus as well, so that they are not 0.

    Checked against the transcription of the equations in another project (ARLArena, compute_EMPG_advantage); the
    authors' code was not at hand.

    Args:
        advantages: (N,) float, those of the episodes (GRPO in the paper), repeated for their steps.
        entropies: (N,) float, mean token entropy of each step's response.
        steps_per_episode: (E,) int, sums to N.
        k: how much entropy weakens a step.
        k_future: k'.
        zeta: weight of the bonus.

    Returns:
        (N,) float with mean 0.

    Raises:
        ValueError: the shapes do not fit together.
    """
    advantages, entropies = same_shape(advantages=advantages, entropies=entropies)
    lengths = checked_lengths(steps_per_episode, len(advantages), "steps_per_episode", "steps")
    if not len(advantages):
        return advantages
    scaled = (entropies - entropies.min()) / (entropies.max() - entropies.min() + 1e-8)
    weights = np.exp(-k * scaled)
    bonus = np.roll(np.exp(-k_future * scaled), -1)
    bonus[last_decisions(lengths)] = 0.0
    modulated = advantages * weights / weights.mean() + zeta * bonus
    return modulated - modulated.mean()


def planpo_advantages(
    returns: npt.ArrayLike,
    succeeded: Sequence[bool],
    group_ids: Sequence[Hashable],
    *,
    tokens_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
    alpha: float = 0.1,
    normalize_std: bool = True,
) -> Array:
    """PlanPO: short successes are better than long ones, A = A_episode + alpha * A_step (arXiv:2608.17289).

    A_episode compares R / T within the group, T the number of steps, with 0 for an episode that failed. A_step compares
    R / L among all steps of the group's successful episodes, L the number of tokens of the response; it is 0 for the
    steps of failures. The paper lowers alpha linearly over training, from 0.1.

    The equations come from a page about the paper that quotes them; paper and code were not at hand. Its set of steps
    carries an index t, its text speaks of all steps of the task's successes, and the text is followed here.

    Args:
        returns: (E,) float, R of each episode.
        succeeded: (E,) bool.
        group_ids: (E,) hashable, the group of each episode.
        tokens_per_step: (N,) int, each at least 1.
        steps_per_episode: (E,) int, sums to N.
        alpha: weight of A_step.
        normalize_std: divide both terms by the standard deviation of what is compared.

    Returns:
        (N,) float. A term is 0 where there is nothing to compare with.

    Raises:
        ValueError: the shapes do not fit together, or a step has no tokens.
    """
    (returns,) = same_shape(returns=returns)
    one_per("episode", len(returns), succeeded=succeeded, group_ids=group_ids)
    tokens = _checked_tokens(tokens_per_step, None)
    lengths = checked_lengths(steps_per_episode, len(tokens), "steps_per_episode", "steps")
    one_per("episode", len(lengths), returns=returns)
    success = np.asarray(succeeded, bool)
    per_step = np.where(success, returns / np.maximum(lengths, 1), 0.0)
    episodes = group_advantages(per_step, group_ids, normalize_std=normalize_std)

    group, episode = numbered(group_ids), episode_of(lengths)
    chosen = success[episode]
    steps = np.zeros(len(tokens))
    per_token = returns[episode][chosen] / tokens[chosen]
    steps[chosen] = group_advantages(per_token, group[episode][chosen].tolist(), normalize_std=normalize_std)
    return episodes[episode] + alpha * steps


def _checked_tokens(tokens_per_step: Sequence[int], total: int | None) -> np.ndarray:
    given = int(np.sum(tokens_per_step)) if total is None else total
    tokens = checked_lengths(tokens_per_step, given, "tokens_per_step", "tokens")
    if (tokens < 1).any():
        raise ValueError(f"Every step needs at least one response token, step {int(tokens.argmin())} has none.")
    return tokens
