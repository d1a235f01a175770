"""Dropout and the noise of routers, switched off.

A policy that drops units in updates is another one than sampled the responses: on an unchanged policy, importance
ratios are then spread around 1 and many are clipped before anything has been learned. So it is with the noise that some
mixtures of experts add in front of their routers while they are trained (`router_jitter_noise`).
"""

from __future__ import annotations

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Set every rate of dropout and of router noise of a model to 0, in place; its configuration stays as it is.

    Rates are those of dropout modules, adapters' included, and the numbers that layers keep under a name with "drop" in
    it, such as `attention_dropout`, or with "jitter".
    """
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
        for name, value in vars(module).items():
            if ("drop" in name or "jitter" in name) and isinstance(value, float):
                setattr(module, name, 0.0)
