"""A trained critic as what an audit's rules read: values of steps or tokens, each computed once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file

from steppo_gym.credit.records import Unit
from steppo_gym.rollouts.episode import Episode
from steppo_gym.trainers.critic_config import CriticKind, has_final_value
from steppo_gym.trainers.policy.critic import Critic, default_kind

Tokens = tuple[int, ...]


class TrainedCritic:
    """Values as training would read them, of any batch of episodes.

    Args:
        policy: the model it was made from, for its shape.
        file: its weights.
        kind: what is trained of it.
        unit: whether it was trained on steps or on tokens.
        bootstrap_truncated: as in training, see `has_final_value`.
        max_tokens: of a row in training, whose last ones are all that is read of a longer final prompt; None for no
            limit.

    Raises:
        ValueError: the weights are those of a critic of another kind.
    """

    def __init__(
        self,
        policy: Any,
        file: Path,
        unit: Unit,
        *,
        kind: CriticKind | None,
        bootstrap_truncated: bool,
        max_tokens: int | None = None,
    ) -> None:
        self.unit, self.bootstrap_truncated, self.max_tokens = unit, bootstrap_truncated, max_tokens
        self._critic = Critic(policy, kind or default_kind(policy)).eval()
        self._critic.load_trained_state(load_file(file))
        self._critic.to(policy.device)
        self._known: dict[tuple[Tokens, Tokens], tuple[float, ...]] = {}

    def __call__(self, episodes: Sequence[Episode]) -> npt.NDArray[np.float64]:
        """(N + E,) or (M + E,): of each step or response token, then of the final states."""
        values = [
            value
            for episode in episodes
            for step in episode.steps
            for value in self._values(step.prompt_ids, step.response_ids if self.unit == "token" else ())
        ]
        for episode in episodes:
            final = (episode.final_prompt_ids or ())[-(self.max_tokens or 0) :]
            has_value = has_final_value(episode, bootstrap_truncated=self.bootstrap_truncated)
            values.append(self._values(final, ())[0] if final and has_value else 0.0)
        return np.array(values, np.float64)

    @torch.no_grad()
    def _values(self, prompt_ids: Tokens, response_ids: Tokens) -> tuple[float, ...]:
        """At the last prompt token, or before each response token."""
        if (prompt_ids, response_ids) not in self._known:
            ids = torch.tensor([[*prompt_ids, *response_ids[:-1]]], device=self._critic.head.weight.device)
            values = self._critic(ids, torch.ones_like(ids))[0, len(prompt_ids) - 1 :]
            self._known[prompt_ids, response_ids] = tuple(values.tolist())
        return self._known[prompt_ids, response_ids]
