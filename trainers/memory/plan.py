"""The memory of one process of a run: what it holds all the time, what an update adds, and what sampling adds.

| part | bytes |
|---|---|
| weights | of policy, critic and reference, each in its type; a `lora` critic shares what the policy has frozen |
| gradients | of what is trained, in its type |
| buckets | under DDP as much again, in which gradients are exchanged; they stay while it is sampled |
| optimizer | see `OPTIMIZERS` |
| update | what the forward pass keeps and the backward pass makes, for one micro-batch; the output layer's tiles |
| sampling | keys and values of all slots, logits, the reading of prompts; under `--shard` the whole policy |

Sharding divides the first three; one layer's and the embeddings' weights and gradients are whole while they are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM

from steppo_gym.trainers.critic_config import CriticKind
from steppo_gym.trainers.memory.passes import Pass, run_pass
from steppo_gym.trainers.policy.critic import Critic, default_kind, run_layers_again
from steppo_gym.trainers.policy.model_limits import base_of
from steppo_gym.trainers.policy.output_layer import COPIES, TILE_BYTES
from steppo_gym.trainers.policy.prefill import MAX_PASS_TOKENS
from steppo_gym.trainers.policy.slot_cache import grown

OPTIMIZERS: Mapping[str, float] = {
    "adamw_torch": 2.0, "adamw_torch_fused": 2.0, "adamw_bnb_8bit": 0.5, "adamw_8bit": 0.5, "paged_adamw_32bit": 0.0,
    "paged_adamw": 0.0, "paged_adamw_8bit": 0.0, "sgd": 0.0,
}  # fmt: skip
"""State of an optimizer in units of what it trains, in float32 for those of 8 bits; paged ones keep it elsewhere."""

HEAD_TILE = (4096, 32_768)
"""Positions and words of TRL's output layer that are computed at once by Triton's kernels."""

GIB = 2**30


@dataclass(frozen=True)
class Needs:
    """What decides the memory of a run."""

    config: Any
    """Of the model, as transformers reads it."""
    dtype: torch.dtype
    """Of the weights."""
    autocast: bool
    """Matrix products in bfloat16."""
    peft_config: Any
    critic: CriticKind | None
    """None for the default kind."""
    has_critic: bool
    has_reference: bool
    optimizer: str
    checkpointing: bool
    tokens: int
    """Of one micro-batch."""
    context: int
    """The longest prompt and response."""
    slots: int
    processes: int
    parts: int
    """Processes that share one copy of sharded models; 1 without sharding."""
    triton: bool = True
    """Whether its kernels compute the output layer, as on a card."""


@dataclass(frozen=True)
class Plan:
    """Bytes of one process."""

    weights: float
    gradients: float
    buckets: float
    optimizer: float
    update: float
    keys: float
    sampling: float
    """Without the keys."""

    @property
    def updating(self) -> float:
        """The most during an update."""
        return self.weights + self.gradients + self.buckets + self.optimizer + self.update

    @property
    def rollout(self) -> float:
        """The most while sampling; gradients are given back before."""
        return self.weights + self.buckets + self.optimizer + self.keys + self.sampling

    @property
    def peak(self) -> float:
        """The most of all."""
        return max(self.updating, self.rollout)


def plan(needs: Needs) -> Plan:
    """What a process of a run needs.

    Raises:
        ValueError: an optimizer whose state is not known.
    """
    if needs.optimizer not in OPTIMIZERS:
        raise ValueError(f"The state of --optim {needs.optimizer} is not known. Known: {', '.join(OPTIMIZERS)}.")
    policy, critic = _models_without_memory(needs)
    held = [policy, *([] if critic is None else [critic])]
    sharded = needs.parts > 1
    # Sharded models share nothing.
    weights = sum(map(_bytes, held)) if sharded else _bytes(nn.ModuleList(held))
    if needs.has_reference and needs.peft_config is None:
        weights += _bytes(policy)
    trained = [p for model in held for p in model.parameters() if p.requires_grad]
    gradients = sum(p.numel() * p.element_size() for p in trained)
    units = OPTIMIZERS[needs.optimizer]
    optimizer = sum(units * p.numel() * (4 if units == 0.5 else p.element_size()) for p in trained)
    return Plan(
        weights=weights / needs.parts,
        gradients=gradients / needs.parts,
        buckets=0.0 if sharded or needs.processes == 1 else gradients,
        optimizer=optimizer / needs.parts,
        update=_update(needs, critic is not None) + (_gathered(needs, base_of(policy)) if sharded else 0),
        keys=_keys(needs),
        sampling=_sampling(needs) + (_compute_size(needs) * _count(policy.parameters()) if sharded else 0),
    )


def _models_without_memory(needs: Needs) -> tuple[Any, Critic | None]:
    """Policy and critic on the meta device."""
    with init_empty_weights(include_buffers=False):
        policy = AutoModelForCausalLM.from_config(needs.config, dtype=needs.dtype)
    policy.tie_weights()
    return _with_adapters_and_critic(needs, policy)


def _with_adapters_and_critic(needs: Needs, policy: Any) -> tuple[Any, Critic | None]:
    """The policy as it is trained, and its critic."""
    if needs.peft_config is not None:
        from peft import get_peft_model

        policy = get_peft_model(policy, needs.peft_config)
    if not needs.has_critic:
        return policy, None
    return policy, Critic(policy, needs.critic or default_kind(policy))


def _update(needs: Needs, has_critic: bool) -> float:
    """Both models' graphs are there when the backward pass begins; it goes through one after the other."""
    passes = [_pass(needs, which) for which in (["policy", "critic"] if has_critic else ["policy"])]
    kept = sum(part.kept for part in passes)
    return kept + max(*(part.peak - part.kept for part in passes), _head(needs))


def _pass(needs: Needs, which: str) -> Pass:
    def make(policy: Any) -> tuple[nn.Module, Any]:
        trained, critic = _with_adapters_and_critic(needs, policy)
        backbone = base_of(trained).base_model
        if needs.checkpointing:
            trained.train()
            run_layers_again(policy)
            policy.enable_input_require_grads()
            if critic is not None:
                critic.checkpoint_activations()
        if which == "policy":
            return trained, lambda ids: backbone(input_ids=ids, use_cache=False).last_hidden_state
        assert critic is not None
        return critic, lambda ids: critic(ids, None)

    return run_pass(needs.config, make, tokens=needs.tokens, dtype=needs.dtype, autocast=needs.autocast)


def _head(needs: Needs) -> float:
    """The output layer: a tile of logits, and in float32 the gradients of its input and, where trained, its weight.

    Without Triton, for the vocabularies that `output_layer.py` is for.
    """
    text = needs.config.get_text_config()
    rows, words = min(HEAD_TILE[0], needs.tokens), min(HEAD_TILE[1], text.vocab_size)
    size = _compute_size(needs)
    tile = rows * words * size if needs.triton else COPIES * max(TILE_BYTES, 4 * text.vocab_size)
    total = tile + needs.tokens * text.hidden_size * (4 + 2 * size)
    if needs.peft_config is None:
        total += text.vocab_size * text.hidden_size * (4 + (needs.dtype.itemsize if needs.dtype.itemsize < 4 else 0))
    return total


def _gathered(needs: Needs, policy: Any) -> float:
    """Whole weights in use: two layers, of which one is being fetched, and what is outside of the layers."""
    layers = next(module for module in policy.modules() if isinstance(module, nn.ModuleList))
    layer = _count(layers[0].parameters())
    outside = _count(policy.parameters()) - _count(layers.parameters())
    size = _compute_size(needs)
    # Gradients are summed in float32.
    return (2 * layer + outside) * size + (layer + outside) * (size + 4)


def _keys(needs: Needs) -> float:
    """Keys and values of all slots. Under autocast a norm or a rotation leaves keys in the type of the weights."""
    text = needs.config.get_text_config()
    size = needs.dtype.itemsize if needs.parts == 1 else _compute_size(needs)
    return (
        needs.slots
        * capacity(needs.context)
        * text.num_hidden_layers
        * _width(text, "key")
        * (size + _compute_size(needs))
    )


def capacity(context: int) -> int:
    """Columns that the cache of keys has when a context is as long as this (`SlotCache`)."""
    columns = 256
    while columns < context:
        columns = grown(columns, columns + 1)
    return columns


def _sampling(needs: Needs) -> float:
    """Logits in several copies, and the larger of reading prompts and of one layer's attention."""
    text = needs.config.get_text_config()
    size = _compute_size(needs)
    logits = needs.slots * text.vocab_size * (4 + 4 + 4 + 8)
    # Keys and values of a layer, once for every head that reads them.
    attention = 2 * needs.slots * needs.context * _width(text, "query") * size
    reading = min(MAX_PASS_TOKENS, needs.slots * needs.context)
    mask = reading * needs.context * size
    passing = 2 * reading * (text.hidden_size + 2 * getattr(text, "intermediate_size", 4 * text.hidden_size)) * size
    return logits + max(attention, mask + passing)


def _width(text: Any, which: str) -> int:
    heads = text.num_attention_heads
    head = getattr(text, "head_dim", None) or text.hidden_size // heads
    return head * (heads if which == "query" else getattr(text, "num_key_value_heads", None) or heads)


def _compute_size(needs: Needs) -> int:
    return 2 if needs.autocast else needs.dtype.itemsize


def _bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


def _count(parameters: Any) -> int:
    return sum(p.numel() for p in parameters)


def table(plan: Plan) -> Sequence[tuple[str, float]]:
    """Names and GiB, in the order in which they come."""
    rows = [
        ("weights", plan.weights),
        ("gradients", plan.gradients + plan.buckets),
        ("optimizer", plan.optimizer),
        ("update: activations and output layer", plan.update),
        ("sampling: keys and values", plan.keys),
        ("sampling: logits, prompts, whole policy", plan.sampling),
        ("most during an update", plan.updating),
        ("most during a rollout", plan.rollout),
    ]
    return [(name, size / GIB) for name, size in rows]
