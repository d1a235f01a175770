"""Credit rules: from the records of an iteration to advantages and value targets.

All rules read the same records and fill the same `Credit`; what differs between algorithms is the unit a decision is (a
step or a token) and the formula in `steppo_gym.advantages`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from steppo_gym.advantages import step_advantages
from steppo_gym.episode import Episode
from steppo_gym.whitening import Moments, merge_moments, moments, whiten

Array = npt.NDArray[np.float64]
Unit = Literal["step", "token"]
GatherMoments = Callable[[Moments], Sequence[Moments]]
"""From this process's moments to those of all processes, in the order of the ranks."""


@dataclass(frozen=True)
class Credit:
    """What a rule says of N decisions, numbered as in `steppo_gym.rows`."""

    unit: Unit
    """Whether decisions are steps or response tokens."""
    advantages: Array
    """(N,) as they enter the loss."""
    values: Array | None = None
    """(N,) the critic's values before the update; None for rules without a critic."""
    returns: Array | None = None
    """(N,) the critic's targets."""
    raw: Moments | None = None
    """Count, mean and spread of the advantages before whitening, over all processes."""


class CreditRule(Protocol):
    """How an algorithm assigns credit."""

    needs_critic: bool

    def __call__(self, episodes: Sequence[Episode], values: Array, gather: GatherMoments) -> Credit:
        """Assign credit to all decisions of `episodes`.

        Args:
            episodes: terminated or truncated.
            values: by number as in `steppo_gym.rows`: one for each step, then one for each episode's final state (0 if
                it terminated); empty for rules without a critic.
            gather: collects moments from all processes.
        """
        ...


@dataclass(frozen=True)
class StepLevelGAE:
    """StepPO: GAE over steps, one advantage per step, whitened over the steps of the iteration (arXiv 2604.18401)."""

    gamma: float
    gae_lambda: float
    whiten_advantages: bool = True
    needs_critic = True

    def __call__(self, episodes: Sequence[Episode], values: Array, gather: GatherMoments) -> Credit:
        """See `CreditRule`."""
        rewards = np.array([step.reward for episode in episodes for step in episode.steps], np.float64)
        advantages, returns = step_advantages(
            rewards,
            values[: len(rewards)],
            values[len(rewards) :],
            steps_per_episode=[episode.num_steps for episode in episodes],
            gamma=self.gamma,
            lam=self.gae_lambda,
        )
        raw = merge_moments(gather(moments(advantages)))
        whitened = whiten(advantages, raw) if self.whiten_advantages else advantages
        return Credit("step", whitened, values[: len(rewards)], returns, raw)


def explained_variance(values: Array, returns: Array) -> float:
    """1 - Var(returns - values) / Var(returns): 1 if perfect, 0 for a constant, NaN if all returns are equal."""
    variance = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / variance if variance > 1e-12 else float("nan")
