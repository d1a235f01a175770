"""Stops a run before a number that is none reaches an optimizer: NaN, infinity, or what float32 cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from steppo_gym.errors import NonFiniteError
from steppo_gym.rollouts.episode import Episode
from steppo_gym.trainers.step_data import Iteration


def require_finite(value: Any, what: str, where: str) -> None:
    """Raise a NonFiniteError unless a number, or one of a tensor of one element, is finite."""
    number = float(value)
    if not math.isfinite(number):
        raise NonFiniteError(f"{where}: {what} is {number}. The update was not made.")


def require_finite_rewards(episodes: Sequence[Episode], where: str) -> None:
    """Raise a NonFiniteError that names the task unless every reward can be trained on in float32."""
    for episode in episodes:
        for number, step in enumerate(episode.steps, 1):
            if not np.isfinite(_as_float32(step.reward)):
                raise NonFiniteError(
                    f"{where}: step {number} of task {episode.task_id} has the reward {step.reward:g}, which float32 "
                    "cannot hold. Nothing was trained on it."
                )


def require_finite_credit(iteration: Iteration, where: str) -> None:
    """Raise a NonFiniteError unless all that enters the loss of an iteration is finite in float32."""
    credit = iteration.credit
    parts: Mapping[str, Any] = {
        "advantages": iteration.weighted_advantages,
        "returns": credit.returns,
        "values of the critic": credit.values,
        "log-probabilities": iteration.old_log_probs,
        "log-probabilities of the reference": iteration.reference_log_probs,
    }
    for what, numbers in parts.items():
        if numbers is None:
            continue
        bad = np.flatnonzero(~np.isfinite(_as_float32(numbers)))
        if len(bad):
            raise NonFiniteError(
                f"{where}: {len(bad)} of {np.size(numbers)} {what} are not finite, the first is "
                f"{np.ravel(numbers)[bad[0]]:g}. Nothing was trained on them."
            )


def require_finite_weights(models: Mapping[str, Any], where: str, gather: Callable[[Any], list[Any]]) -> None:
    """Raise a NonFiniteError that names the first parameter that has a NaN or an infinity, in all processes alike.

    Args:
        models: by name; None for one that is not there. A process looks at its own part of a sharded one.
        where: the run is.
        gather: collects one object of every process.
    """
    found = next((name for name in gather(_weight_that_is_not_finite(models)) if name is not None), None)
    if found is not None:
        raise NonFiniteError(
            f"{where}: the {found} is not finite. No checkpoint was written of it; a lower learning rate may help."
        )


def require_finite_model(model: Any, folder: str) -> None:
    """Raise a NonFiniteError that names the first parameter of a model that was loaded with a NaN or an infinity."""
    found = _weight_that_is_not_finite({"model": model})
    if found is not None:
        raise NonFiniteError(f"{folder}: the {found} is not finite. Take the model from before it was damaged.")


def _weight_that_is_not_finite(models: Mapping[str, Any]) -> str | None:
    for model, module in models.items():
        for name, weight in () if module is None else module.named_parameters():
            own = weight.to_local() if hasattr(weight, "to_local") else weight
            if not bool(torch.isfinite(own).all()):
                return f"{model}'s weight {name}"
    return None


def _as_float32(numbers: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.asarray(numbers, np.float64).astype(np.float32)
