"""What a forward and a backward pass keep, found by running two and three layers on tensors without memory.

Every further layer adds the same, so the figures of any depth follow. What is run is the model's own code under the
run's own settings; only where kernels of a card keep something else than those of a CPU the figures are off.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from steppo_gym.trainers.memory.meter import Meter

CAUSAL = "steppo_gym_causal"
"""Attention of rows without padding. Of tensors without memory transformers cannot see that there is none, and would
make a mask, which every layer keeps.
"""
AttentionInterface.register(CAUSAL, sdpa_attention_forward)
AttentionMaskInterface.register(CAUSAL, lambda *_, **__: None)


@dataclass(frozen=True)
class Pass:
    """Bytes beside weights and their gradients."""

    kept: float
    """At the end of the forward pass, for the backward pass."""
    peak: float
    """The most of both."""


def shallow(config: Any, layers: int) -> Any:
    """The configuration of a model of fewer layers and with few words."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    text.num_hidden_layers, text.vocab_size = layers, 256
    # They may be out of the vocabulary now.
    text.pad_token_id = text.bos_token_id = text.eos_token_id = None
    if getattr(text, "layer_types", None):
        # A model of one or two layers has fewer kinds than are asked for.
        text.layer_types = (text.layer_types * 3)[:layers]
    return config


def run_pass(
    config: Any,
    make: Callable[[Any], tuple[nn.Module, Callable[[Tensor], Tensor]]],
    *,
    tokens: int,
    dtype: torch.dtype,
    autocast: bool,
) -> Pass:
    """The pass of a model with the configuration's number of layers over one row.

    Args:
        config: of the policy.
        make: from a policy of fewer layers to the model that is trained, and what it computes from (1, T) ids.
        tokens: T.
        dtype: of the weights.
        autocast: whether matrix products are in bfloat16.
    """
    two, three = (_measure(config, n, make, tokens, dtype, autocast) for n in (2, 3))
    more = config.get_text_config().num_hidden_layers - 2
    return Pass(*(a + more * (b - a) for a, b in zip(two, three, strict=True)))


def _measure(config: Any, layers: int, make: Any, tokens: int, dtype: torch.dtype, autocast: bool) -> tuple[int, int]:
    with init_empty_weights(include_buffers=False):
        policy = AutoModelForCausalLM.from_config(shallow(config, layers), dtype=dtype, attn_implementation=CAUSAL)
    model, compute = make(policy)
    with FakeTensorMode():
        _without_memory(policy, model)
        ids = torch.zeros(1, tokens, dtype=torch.long)
        gradients = [torch.empty_like(p) for p in model.parameters() if p.requires_grad]
        for parameter, gradient in zip([p for p in model.parameters() if p.requires_grad], gradients, strict=True):
            # There from an earlier micro-batch.
            parameter.grad = gradient
        with Meter([*model.parameters(), *model.buffers(), *gradients, ids]) as meter:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                out = compute(ids)
            kept = meter.now
            out.float().sum().backward()
        return kept, meter.peak


def _without_memory(*models: nn.Module) -> None:
    """Replace weights and buffers by tensors of the current `FakeTensorMode`; what is shared stays shared."""
    made: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_weight = isinstance(tensor, nn.Parameter)
            # The old one is kept too, so that its address is not used again.
            made[id(tensor)] = tensor, nn.Parameter(empty, tensor.requires_grad) if is_weight else empty
            made[id(made[id(tensor)][1])] = made[id(tensor)]
        return made[id(tensor)][1]

    for module in (module for model in models for module in model.modules()):
        held: Any
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    held[name] = fake(tensor)
