"""`steppo-gym memory`: what a run would need of each card, and what to change if that is too much."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import transformers
from transformers import AutoConfig
from trl.trainer.utils import get_peft_config

from steppo_gym.errors import DataError
from steppo_gym.trainers.memory.plan import GIB, Needs, Plan, plan, table
from steppo_gym.trainers.policy.model_limits import positions_of
from steppo_gym.trainers.results.adapters import is_missing_folder
from steppo_gym.trainers.rules import ALGORITHMS
from steppo_gym.trainers.run.arguments import RunSettings, parse_arguments
from steppo_gym.trainers.run.recipes import with_recipes

BESIDE = 1.0
"""GiB of CUDA and its libraries; and a twentieth of the rest is lost between allocations."""


def run(options: argparse.Namespace) -> int:
    """The command; 1 if the run would not fit."""
    _check(options)
    transformers.utils.logging.set_verbosity_error()
    given = [*(["--env", options.env] if options.env else []), *options.flags]
    given += ["--model_name_or_path", options.model] if options.model else []
    rule = ALGORITHMS[options.algorithm]
    needs = needs_of(parse_arguments(rule, given), options.gpus, options.nodes)
    if not any(flag.partition("=")[0] == "--bf16" for flag in with_recipes(rule, given)):
        # What a card computes in where nothing is said; this machine may have none.
        needs = replace(needs, autocast=True)
    try:
        found = plan(needs)
    except (AttributeError, KeyError, TypeError) as error:
        # The sizes of a family that is not made of layers of attention have other names.
        raise ValueError(f"The memory of a {needs.config.model_type} cannot be computed here.") from error
    print(f"{needs.config.model_type}, {options.gpus} x {options.card:g} GB, on each card in GiB:")
    for name, size in table(found):
        print(f"  {name:42} {size:8.2f}")
    print(f"  {'with CUDA and gaps between allocations':42} {needed(found):8.2f}")
    if needed(found) <= options.card:
        print("It fits.")
        return 0
    print(f"It does not fit into {options.card:g} GB. What one change would do:")
    for flag, changed in changes(needs):
        size = needed(plan(changed))
        print(f"  {flag:42} {size:8.2f}{'  fits' if size <= options.card else ''}")
    return 1


def _check(options: argparse.Namespace) -> None:
    if options.algorithm not in ALGORITHMS:
        raise ValueError(f"--algorithm must be one of {', '.join(ALGORITHMS)}, got {options.algorithm!r}.")
    if not 1 <= options.nodes <= options.gpus:
        raise ValueError(
            f"--gpus must be at least --nodes, and that at least 1, got {options.gpus} and {options.nodes}."
        )
    if not options.card > 0:
        raise ValueError(f"--card must be above 0, got {options.card:g}.")


def needed(found: Plan) -> float:
    """GiB of a card."""
    return found.peak / GIB * 1.05 + BESIDE


def needs_of(settings: RunSettings, gpus: int, nodes: int = 1) -> Needs:
    """What decides the memory of a run.

    Raises:
        DataError: there is no such folder.
        ValueError: no model is named, or its contexts are shorter than what is asked for.
    """
    config, model = settings.config, settings.model
    if model.model_name_or_path is None:
        raise ValueError("The default policy fits everywhere. Name a --model.")
    if is_missing_folder(model.model_name_or_path):
        raise DataError(f"There is no folder {model.model_name_or_path}.")
    read = AutoConfig.from_pretrained(model.model_name_or_path, revision=model.model_revision)
    given: Any = config.model_init_kwargs or {}
    chosen = given.get("dtype") or model.dtype or "float32"
    dtype: Any = read.dtype if chosen == "auto" else getattr(torch, chosen)
    response = config.max_response_tokens
    positions = positions_of(read) or 4096
    context = config.max_prompt_tokens or positions - response
    if not 0 < context <= positions - response:
        raise ValueError(f"{positions} positions are too few for a prompt and {response} tokens of a response.")
    on = getattr(config, "activation_checkpointing", None) or config.gradient_checkpointing
    return Needs(
        config=read,
        dtype=dtype or torch.float32,
        autocast=bool(config.bf16 or config.fp16),
        peft_config=get_peft_config(model),
        critic=None if settings.critic is None else settings.critic.critic,
        has_critic=settings.critic is not None,
        has_reference=bool(config.beta),
        optimizer=str(getattr(config.optim, "value", config.optim)),
        checkpointing=bool(on),
        # A row that is longer than the budget is a micro-batch of its own.
        tokens=max(config.max_tokens_per_micro_batch, context + response),
        context=context + response,
        slots=config.num_slots if not config.use_vllm else 0,
        processes=gpus,
        parts={"none": 1, "full": gpus, "hybrid": math.ceil(gpus / nodes)}[config.shard],
    )


def changes(needs: Needs) -> Iterator[tuple[str, Needs]]:
    """Single changes that make a run smaller, as flags."""
    if not needs.checkpointing:
        yield "--activation_checkpointing", replace(needs, checkpointing=True)
    if needs.parts == 1 and needs.processes > 1:
        yield "--shard full", replace(needs, parts=needs.processes)
    if needs.dtype == torch.float32:
        yield "--dtype bfloat16", replace(needs, dtype=torch.bfloat16)
    if needs.has_critic and needs.peft_config is None:
        for kind in ("lora", "head"):
            if needs.critic != kind:
                yield f"--critic {kind}", replace(needs, critic=kind)
    if needs.peft_config is None:
        yield "--use_peft", replace(needs, peft_config=_usual_adapters())
    if needs.slots > 1:
        yield f"--num_slots {needs.slots // 2}", replace(needs, slots=needs.slots // 2)
    if needs.tokens > needs.context:
        fewer = max(needs.context, needs.tokens // 2)
        yield f"--max_tokens_per_micro_batch {fewer}", replace(needs, tokens=fewer)


def _usual_adapters() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
