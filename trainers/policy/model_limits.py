"""Which models can be sampled from here, and how long their contexts may be."""

from __future__ import annotations

import inspect
from typing import Any

import torch

ATTENTION = ("sdpa", "eager")
"""Implementations of attention that take a mask of numbers, which a row for each slot needs."""

NEEDED = ("position_ids", "past_key_values", "logits_to_keep")
"""What the model's forward must accept."""

PLAIN_BEGINNINGS = ("gaussian", "orthogonal", "eva")
"""Values of LoRA's `init_lora_weights` that leave the model's weights as they are."""

OTHERWISE = "Use --use_vllm, or another model."


def check_model(model: Any) -> None:
    """Raise a ValueError, one line with the family's name, unless the slot cache can serve a model.

    Every layer must attend to the whole context: layers that see a window, or keep a state instead of keys, cannot be
    cut back to a prefix or start over row by row.

    Args:
        model: a causal language model of transformers, without PEFT around it.
    """
    name, config = type(model).__name__, model.config.get_text_config()
    # GPT-Neo has its own words for them.
    layers = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None) or ["full_attention"]
    kinds = sorted({"full_attention" if kind == "global" else kind for kind in layers})
    if kinds != ["full_attention"]:
        raise ValueError(f"Sampling here needs full attention in every layer, {name} has {kinds}. {OTHERWISE}")
    window = getattr(config, "sliding_window", None)
    positions = positions_of(model.config)
    # A window that no context outgrows hides nothing.
    if window and getattr(config, "use_sliding_window", True) and (positions is None or window < positions):
        raise ValueError(
            f"Sampling here needs full attention in every layer, {name} has a sliding window of {window} tokens. "
            f"{OTHERWISE}"
        )
    missing = [part for part in NEEDED if part not in inspect.signature(type(model).forward).parameters]
    if missing:
        raise ValueError(f"Sampling here needs {', '.join(missing)}, which {name}.forward does not take. {OTHERWISE}")
    attention = model.config._attn_implementation
    if attention not in ATTENTION:
        raise ValueError(
            f"Sampling here needs --attn_implementation {' or '.join(ATTENTION)}, {name} has {attention!r}. "
            "Choose one of them, or --use_vllm."
        )


def base_of(model: Any) -> Any:
    """The model of transformers, without PEFT around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def check_adapters(model: Any) -> None:
    """Raise a ValueError for adapters that would not be sampled with, not be trained, or not be found again.

    In training, log-probabilities are computed from the output layer's weight alone, so that adapters in it would never
    learn.

    Args:
        model: a causal language model, with or without PEFT around it.
    """
    for name, config in getattr(model, "peft_config", {}).items():
        begins = getattr(config, "init_lora_weights", True)
        if config.is_prompt_learning:
            kind = type(config).__name__
            raise ValueError(f"{kind}: prompts of vectors in place of tokens are not sampled with here. Use LoRA.")
        if isinstance(begins, str) and begins not in PLAIN_BEGINNINGS:
            raise ValueError(
                f"init_lora_weights={begins!r} changes the weights of the model itself, to which neither the adapters "
                f"that are saved nor the reference of --beta would belong. Use {', '.join(PLAIN_BEGINNINGS)} or True."
            )
        if name not in ("default", "ref"):
            raise ValueError(
                f"The adapters are called {name!r}, under which they are not found again. Call them 'default'."
            )
    if hasattr(base_of(model).get_output_embeddings(), "lora_A"):
        raise ValueError(
            "Adapters of the output layer would not be trained. Leave lm_head out of --lora_target_modules; "
            "--lora_modules_to_save lm_head trains all of it."
        )


@torch.no_grad()
def begin_reference(reference: Any, model: Any) -> None:
    """Give the reference of a KL term the weights of the policy it is to be compared with.

    TRL loads it anew by the model's name, which is another model where an object has learned since it was loaded.

    Args:
        reference: changed in place; None does nothing.
        model: the policy, before the first update.

    Raises:
        ValueError: the two differ in size.
    """
    if reference is None:
        return
    own = dict(model.named_parameters())
    for name, weight in reference.named_parameters():
        if name not in own or own[name].shape != weight.shape:
            raise ValueError(
                f"The reference of --beta is loaded from {model.name_or_path}, whose {name} differs in size from that "
                "of the model. Save the model and give its folder."
            )
        weight.copy_(own[name])


def check_vocabulary(model: Any, pad_token_id: int, codec: Any) -> None:
    """Raise a ValueError unless the model has an embedding for the tokens that every conversation is made of.

    Tokenizers to which tokens were added for a model that was not resized have some more.

    Args:
        model: a causal language model, with or without PEFT around it.
        pad_token_id: of its tokenizer.
        codec: a `ChatCodec` of its tokenizer.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    token = max(pad_token_id, *codec.stop_token_ids, *codec.first_prompt("", (), "-"))
    if token >= rows:
        raise ValueError(
            f"The tokenizer's {codec.tokenizer.convert_ids_to_tokens(token)!r} is token {token}, and the model has "
            f"embeddings for {rows}. Resize it by model.resize_token_embeddings(len(tokenizer)) and save both."
        )


def positions_of(config: Any) -> int | None:
    """The longest context that a model was made for, None if its configuration does not say.

    Under "longrope" (Phi-3 of 128k) no further than what it was first made for. As soon as one row of a batch is longer
    than that, all positions of all rows are rotated otherwise, and do not go with the keys in a cache.
    """
    text = config.get_text_config()
    positions, rope = getattr(text, "max_position_embeddings", None), getattr(text, "rope_parameters", None) or {}
    if positions and rope.get("rope_type") == "longrope":
        positions = min(positions, rope.get("original_max_position_embeddings") or positions)
    return int(positions) if positions else None


def context_limits(model: Any, given: int | None, max_response_tokens: int) -> tuple[int | None, int | None]:
    """The longest prompt after which a response still fits the model, and the longest row of a forward pass.

    Args:
        model: a causal language model, with or without PEFT around it.
        given: the limit of prompts that is asked for, None for the model's own.
        max_response_tokens: of one response.

    Returns:
        Both in tokens, None for no limit.

    Raises:
        ValueError: what is asked for does not fit, or no prompt does.
    """
    model = base_of(model)
    positions = positions_of(model.config)
    if positions is None:
        return given, None if given is None else given + max_response_tokens
    room = positions - max_response_tokens
    if room < 1 or (given is not None and given > room):
        asked = "" if given is None else f"{given} tokens of a prompt (max_prompt_tokens) and "
        raise ValueError(
            f"{type(model).__name__} has {positions} positions, too few for {asked}{max_response_tokens} of a response "
            "(max_completion_length). Lower them."
        )
    return room if given is None else given, positions
