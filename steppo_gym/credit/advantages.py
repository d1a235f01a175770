"""Credit from rewards and values over time: one advantage for every step or token. Pure numpy, float64.

Episodes have different lengths, so arrays are flat: the steps of the first episode, then those of the second, and so
on, with the length of each beside them. That is the order of the step and token numbers in `steppo_gym.credit.rows`, so
a result is used by indexing. Rules that compare episodes with each other are in `steppo_gym.credit.groups`.

Normalizing over the batch (`steppo_gym.credit.whitening`) is left to the caller; so is leaving out failed episodes.

    advantages, returns = step_advantages(
        rewards, values, final_values, steps_per_episode=[3, 2], gamma=0.99, lam=1.0
    )
    advantages = whiten(advantages)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.ragged import (
    Array,
    Integers,
    checked_lengths,
    one_per,
    ragged_gae,
    ragged_returns,
    same_shape,
    sum_per_episode,
)


def gae(
    rewards: npt.ArrayLike, values: npt.ArrayLike, *, final_value: float, gamma: float, lam: float
) -> tuple[Array, Array]:
    """Generalized advantage estimation over one episode (arXiv:1506.02438, eq. 16).

    T counts decisions: environment steps for StepPO, tokens for token PPO.

    Args:
        rewards: (T,) float, reward received after decision t.
        values: (T,) float, V(s_t) before decision t.
        final_value: V(s_T): 0.0 if nothing could come after it, else what the critic says.
        gamma: discount per decision.
        lam: the lambda of GAE.

    Returns:
        advantages: (T,) float, not normalized.
        returns: (T,) float, advantages + values.

    Raises:
        ValueError: rewards and values differ in shape or have more than one axis.
    """
    rewards, values = same_shape(rewards=rewards, values=values)
    return ragged_gae(rewards, values, np.array([final_value], np.float64), np.array([len(rewards)]), gamma, lam)


def discounted_returns(rewards: npt.ArrayLike, gamma: float) -> Array:
    """Discounted reward-to-go of each decision of one episode: R_t = sum over k >= t of gamma^(k-t) r_k.

    Args:
        rewards: (T,) float.
        gamma: discount per decision.

    Returns:
        (T,) float.

    Raises:
        ValueError: rewards have more than one axis.
    """
    (rewards,) = same_shape(rewards=rewards)
    return ragged_returns(rewards, np.array([len(rewards)]), gamma)


def step_advantages(
    rewards: npt.ArrayLike,
    values: npt.ArrayLike,
    final_values: npt.ArrayLike,
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    lam: float,
) -> tuple[Array, Array]:
    """StepPO: GAE whose decisions are whole responses, over several episodes (arXiv:2604.18401, step-level GAE).

    The released code takes 0 for every ending; here the state that an episode stopped in can have a value.

    Args:
        rewards: (N,) float, reward of each step.
        values: (N,) float, V at the last prompt token of each step.
        final_values: (E,) float, of the state that each episode stopped in: 0.0 if nothing could come after it, else
            what the critic says.
        steps_per_episode: (E,) int, sums to N; an episode may have no steps.
        gamma: discount per step.
        lam: the lambda of GAE.

    Returns:
        advantages: (N,) float, not normalized.
        returns: (N,) float, advantages + values: the critic's targets.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rewards, values = same_shape(rewards=rewards, values=values)
    (final_values,) = same_shape(final_values=final_values)
    lengths = checked_lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    one_per("episode", len(lengths), final_values=final_values)
    return ragged_gae(rewards, values, final_values, lengths, gamma, lam)


def token_advantages(
    rewards: npt.ArrayLike,
    values: npt.ArrayLike,
    final_values: npt.ArrayLike,
    *,
    tokens_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
    gamma: float,
    lam: float,
    token_rewards: npt.ArrayLike | None = None,
) -> tuple[Array, Array]:
    """Token PPO: GAE over all response tokens of an episode, across step boundaries.

    The equation is that of `gae` with tokens as decisions (arXiv:1506.02438, eq. 16). Tokens of the environment are no
    decisions: the token after the last one of a step is the first one of the next step. The reward of a step sits on
    its last token.

    Args:
        rewards: (N,) float, reward of each step.
        values: (M,) float, V before each response token.
        final_values: (E,) float, as in `step_advantages`.
        tokens_per_step: (N,) int, each at least 1, sums to M.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per token.
        lam: the lambda of GAE.
        token_rewards: (M,) float, added to the tokens' rewards, such as a KL penalty; None for none.

    Returns:
        advantages: (M,) float, not normalized.
        returns: (M,) float, advantages + values: the critic's targets.

    Raises:
        ValueError: the shapes do not fit together, or a step has no tokens.
    """
    (values,) = same_shape(values=values)
    (final_values,) = same_shape(final_values=final_values)
    on_tokens, lengths = _on_tokens(rewards, token_rewards, tokens_per_step, steps_per_episode)
    if len(on_tokens) != len(values):
        raise ValueError(f"tokens_per_step must sum to the {len(values)} token values given, got {len(on_tokens)}.")
    one_per("episode", len(lengths), final_values=final_values)
    return ragged_gae(on_tokens, values, final_values, lengths, gamma, lam)


def token_returns(
    rewards: npt.ArrayLike,
    *,
    tokens_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
    gamma: float,
    token_rewards: npt.ArrayLike | None = None,
) -> Array:
    """REINFORCE++: discounted reward-to-go of each response token, across the whole episode (arXiv:2501.03262).

    The paper has one response per episode, gamma 1, and subtracts a KL penalty from every token's reward; here the
    reward-to-go of a token goes on through all later steps.

    Args:
        rewards: (N,) float, reward of each step, received at its last token.
        tokens_per_step: (N,) int, each at least 1, sums to M.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per token.
        token_rewards: (M,) float, added to the tokens' rewards, such as a KL penalty; None for none.

    Returns:
        (M,) float, not normalized.

    Raises:
        ValueError: the shapes do not fit together, or a step has no tokens.
    """
    return ragged_returns(*_on_tokens(rewards, token_rewards, tokens_per_step, steps_per_episode), gamma)


def _on_tokens(
    rewards: npt.ArrayLike,
    token_rewards: npt.ArrayLike | None,
    tokens_per_step: Sequence[int],
    steps_per_episode: Sequence[int],
) -> tuple[Array, Integers]:
    """Rewards of all tokens (M,), and the number of tokens of each episode (E,)."""
    (rewards,) = same_shape(rewards=rewards)
    steps = checked_lengths(steps_per_episode, len(rewards), "steps_per_episode", "steps")
    tokens = np.asarray(tokens_per_step, np.int64)
    if len(tokens) != len(rewards):
        raise ValueError(f"tokens_per_step must have one entry per step, got {len(tokens)} for {len(rewards)} rewards.")
    if (tokens < 1).any():
        raise ValueError(
            f"Every step needs at least one response token to carry its reward, step {int(tokens.argmin())} has none."
        )
    on_tokens = np.zeros(int(tokens.sum()))
    if token_rewards is not None:
        (added,) = same_shape(token_rewards=token_rewards)
        one_per("token", len(on_tokens), token_rewards=added)
        on_tokens += added
    on_tokens[np.cumsum(tokens) - 1] += rewards
    return on_tokens, sum_per_episode(tokens, steps).astype(np.int64)
