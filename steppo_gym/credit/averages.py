"""What counts the same in the loss: weights of its terms and the denominators of an update.

The weighted sum of an update's terms, divided by the update's denominator, is the average that is asked for.
`losses.py` says what a term is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from steppo_gym.credit.losses import Ratio, terms_per_step
from steppo_gym.credit.ragged import Array, sum_per_episode

LossAverage = Literal["tokens", "steps", "episodes", "constant"]
LOSS_AVERAGES: tuple[LossAverage, ...] = get_args(LossAverage)


def loss_weights(
    tokens_per_step: Sequence[int], steps_per_episode: Sequence[int], average: LossAverage, ratio: Ratio
) -> tuple[Array, Array]:
    """Weights with which sums of the loss, divided by `loss_denominator`, are the average that is asked for.

    Args:
        tokens_per_step: (N,) response tokens of each step.
        steps_per_episode: (E,) steps of each episode.
        average: what counts the same: "tokens", every token; "steps", every step; "episodes", every episode, and within
            it every term; "constant", every token again, so that long episodes count more, but over a denominator that
            does not know their lengths (Dr. GRPO, arXiv:2503.20783).
        ratio: of the policy loss.

    Returns:
        of_terms: (M,) float, for each response token the weight of its term in the policy loss.
        of_tokens: (M,) float, for each response token its own weight in a term of tokens, such as the KL divergence.
    """
    tokens = np.array(tokens_per_step, np.float64)
    terms = terms_per_step(tokens, ratio)
    steps = np.array(steps_per_episode, np.int64)
    if average == "steps":
        shares = np.ones_like(tokens)
    elif average == "episodes":
        shares = terms / np.repeat(sum_per_episode(terms, steps), steps)
    else:
        shares = tokens
    # A step divides its share equally among its terms, and in the KL term among its tokens.
    of_step = np.repeat(np.arange(len(tokens)), tokens_per_step)
    return (shares / terms)[of_step], (shares / tokens)[of_step]


def loss_denominator(
    average: LossAverage, *, steps: float, tokens: float, episodes: float, max_response_tokens: int
) -> float:
    """What the weighted sums of an update are divided by.

    Args:
        average: as in `loss_weights`.
        steps: of the update; so are the others. In distributed runs, those of all processes over their number.
        tokens: of the responses.
        episodes: with steps.
        max_response_tokens: the constant of "constant".
    """
    return float(
        {"tokens": tokens, "steps": steps, "episodes": episodes, "constant": episodes * float(max_response_tokens)}[
            average
        ]
    )
