"""Policy, critic and reference, built in parts: no process ever holds a whole model but to sample with it.

A model is first made on the meta device, where weights have shapes and take no memory; then it is sharded, and each
process reads its own rows from the files. So the peak of memory falls with the number of processes, as what is held
does. A policy that is given as an object is whole in every process to begin with.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel, set_seed

from steppo_gym.trainers.critic_config import CriticKind
from steppo_gym.trainers.dropout import disable_dropout
from steppo_gym.trainers.policy.critic import Critic, default_kind
from steppo_gym.trainers.sharding.layout import make_mesh, shard
from steppo_gym.trainers.sharding.weights import FileWeights, ModelWeights, Weights, fill

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd")
"""Whose states are tensors like the weights, which can be sharded with them."""

NOT_WITH = (
    "use_vllm", "fp16", "use_liger_kernel", "torch_compile", "cast_lm_head_to_fp32", "sync_ref_model",
)  # fmt: skip
"""Settings of TRL that take a model to be whole in every process."""


@dataclass(frozen=True)
class ShardedModels:
    """What is trained and what it is compared with, each sharded on its own."""

    policy: Any
    critic: Critic | None
    reference: Any
    """None without a KL term, and where the policy without its adapters is the reference."""
    compute: torch.dtype | None
    _skeleton: Any
    """The policy on the meta device, which is filled for sampling."""

    @contextlib.contextmanager
    def whole_policy(self) -> Iterator[Any]:
        """The policy with all of its weights, in every process and in the type it computes in, for sampling.

        A model of its own, so that the processes need not sample in step; its memory is given back at the end.
        """
        parts = dict(self.policy.named_parameters())
        empty: dict[str, nn.Parameter] = dict(self._skeleton.named_parameters())
        whole = {}
        for name in empty:
            tensor = parts[name].detach().full_tensor()
            whole[name] = nn.Parameter(tensor.to(self.compute or tensor.dtype), requires_grad=False)
        device = next(iter(whole.values())).device
        model = copy.deepcopy(self._skeleton, {id(empty[name]): whole[name] for name in empty})
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(device)
        yield model

    def all(self) -> dict[str, nn.Module]:
        """Those that learn, by name."""
        learning: dict[str, nn.Module] = {"policy": self.policy}
        return learning if self.critic is None else learning | {"critic": self.critic}


def refuse_unsharded(args: Any, model: Any, peft_config: Any = None, quantization_config: Any = None) -> None:
    """Raise a ValueError for what has not been made to work with sharded models."""
    kind = str(getattr(getattr(peft_config, "peft_type", "LORA"), "value", "LORA"))
    if kind != "LORA" or getattr(peft_config, "use_dora", False):
        raise ValueError("--shard makes adapters of the plain LoRA kind alone.")
    if getattr(peft_config, "init_lora_weights", True) not in (True, False, "gaussian"):
        raise ValueError("--shard begins adapters at zero: init_lora_weights that read the model's are not possible.")
    if args.world_size < 2:
        raise ValueError("--shard spreads models over processes, found one. Start it with torchrun --nproc_per_node.")
    wrong = [name for name in NOT_WITH if getattr(args, name, None)]
    if wrong:
        raise ValueError(f"--shard cannot be combined with {', '.join(wrong)}.")
    if str(getattr(args.optim, "value", args.optim)) not in OPTIMIZERS:
        raise ValueError(f"--shard needs --optim {', '.join(OPTIMIZERS)}, got {args.optim}.")
    if quantization_config is not None:
        raise ValueError("--shard cannot be combined with quantized weights.")
    if hasattr(model, "peft_config"):
        raise ValueError("--shard makes adapters itself: give the model without them, and a peft_config.")


def build_sharded(model: Any, args: Any, *, peft_config: Any, critic: CriticKind | None, has_critic: bool) -> Any:
    """Build and shard all models of a run.

    Args:
        model: name, folder, or an object of transformers.
        args: settings of the run.
        peft_config: of the policy's adapters, None for none.
        critic: its kind, None for the default.
        has_critic: whether the rule has one.

    Raises:
        DataError: the files cannot be read in parts.
    """
    device = args.device
    skeleton, weights = _skeleton(model, args)
    prefix = skeleton.base_model_prefix
    reference = copy.deepcopy(skeleton).requires_grad_(False).eval() if args.beta and peft_config is None else None
    start = True if peft_config is None else peft_config.init_lora_weights
    if peft_config is not None:
        from peft import get_peft_model

        skeleton = get_peft_model(skeleton, peft_config)
        begin_adapters(skeleton, args.seed, start)
    if args.disable_dropout:
        disable_dropout(skeleton)
    valued = None
    if has_critic:
        valued = Critic(skeleton, critic or default_kind(skeleton))
        begin_adapters(valued, args.seed, start)
    policy = copy.deepcopy(skeleton)
    if valued is not None:
        valued.follow(policy)
    mesh, compute = make_mesh(args.shard, device.type), torch.bfloat16 if args.bf16 else None
    if valued is not None:
        # Apart, in float32: values are small differences.
        shard(valued.head, mesh, None)
    for part in (policy, reference, valued):
        if part is not None:
            shard(part, mesh, compute)
            fill(part, weights, prefix, device)
    return ShardedModels(policy, valued, reference, compute, skeleton.requires_grad_(False).eval())


def begin_adapters(model: nn.Module, seed: int, start: bool | str) -> None:
    """Give LoRA adapters that were put on a model without memory the weights they would have had on a whole one.

    Args:
        model: holds them.
        seed: of the weights that are random.
        start: `init_lora_weights` of their settings.
    """
    try:
        from peft.tuners.lora import LoraLayer
    except ImportError:
        return
    set_seed(seed)
    for layer in [module for module in model.modules() if isinstance(module, LoraLayer)]:
        for adapter in layer.lora_A:
            # As PEFT does: both are linear layers first, and A is drawn again.
            parts: tuple[Any, ...] = (layer.lora_A[adapter], layer.lora_B[adapter])
            for part in parts:
                part.to_empty(device="cpu")
                part.reset_parameters()
            layer.reset_lora_parameters(adapter, start)


def _skeleton(model: Any, args: Any) -> tuple[PreTrainedModel, Weights]:
    """A policy without memory, and where its weights are."""
    if not isinstance(model, str):
        with init_empty_weights(include_buffers=False):
            empty = AutoModelForCausalLM.from_config(
                copy.deepcopy(model.config), dtype=model.dtype, attn_implementation=model.config._attn_implementation
            )
        empty.generation_config = model.generation_config
        return _tied(empty), ModelWeights(model)
    given = dict(args.model_init_kwargs or {})
    dtype, revision = given.pop("dtype", "float32"), given.pop("revision", None)
    where = {"revision": revision, "trust_remote_code": given.pop("trust_remote_code", args.trust_remote_code)}
    config = AutoConfig.from_pretrained(model, **where)
    chosen = config.dtype if dtype == "auto" else getattr(torch, dtype) if isinstance(dtype, str) else dtype
    with init_empty_weights(include_buffers=False):
        empty = AutoModelForCausalLM.from_config(config, dtype=chosen or torch.float32, **given)
    empty.name_or_path = model
    # A model without such a file has what its configuration says.
    with contextlib.suppress(OSError):
        empty.generation_config = GenerationConfig.from_pretrained(model, revision=revision)
    return _tied(empty), FileWeights(model, revision)


def _tied(empty: Any) -> Any:
    """Made on the meta device, weights that are one are two."""
    empty.tie_weights()
    return empty
