"""The rules that one published way to run a task sets, and the choice among them.

>>> PROTOCOLS = {"short": EnvProtocol(max_steps=5), "long": EnvProtocol(max_steps=50, invalid_action_reward=-0.1)}
>>> named_protocol(PROTOCOLS, "long", max_steps=20).max_steps
20
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from steppo_gym.keywords import check_choice, check_count, check_number


@dataclass(frozen=True, kw_only=True)
class EnvProtocol:
    """The rules of one published way to run a task.

    Raises:
        ValueError: a value outside its range.
    """

    max_steps: int
    """Steps before the episode is truncated."""
    success_reward: float = 1.0
    """Reward of the step that reaches the goal."""
    invalid_action_reward: float = 0.0
    """Added to the reward of a step whose response was invalid: 0 or negative."""
    history_length: int | None = None
    """(Observation, action) pairs shown in a rebuilt prompt; None shows all."""

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps)
        check_number("invalid_action_reward", self.invalid_action_reward)
        if not -1e6 <= self.invalid_action_reward <= 0:
            raise ValueError(f"invalid_action_reward must be 0 or negative, got {self.invalid_action_reward}.")
        for name, value in list(vars(self).items()):
            if isinstance(value, np.generic):
                # Numbers of NumPy make others in steps and snapshots, which are to be plain.
                object.__setattr__(self, name, value.item())


P = TypeVar("P", bound=EnvProtocol)


def overridden(protocol: P, **changes: float | None) -> P:
    """The protocol with the values that were given; None keeps the protocol's.

    Raises:
        ValueError: a value outside its range.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(protocol, **given)  # type: ignore[arg-type]


def named_protocol(protocols: Mapping[str, P], name: str, **changes: float | None) -> P:
    """The protocol of this name, `overridden`.

    Raises:
        ValueError: there is none of this name, or a value is outside its range.
    """
    check_choice("protocol", name, tuple(protocols))
    return overridden(protocols[name], **changes)
