"""Who plays an evaluation: a model in a folder, a server that takes token ids, or one that takes messages."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pkgutil import resolve_name
from typing import Any

from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.policies import Policy
from steppo_gym.rollouts.pool import EnvPool

MAX_TOKENS = 512


@dataclass(frozen=True)
class Player:
    """A policy with what a rollout needs beside it."""

    policy: Policy
    codec: Codec
    max_prompt_tokens: int | None
    max_tokens: int
    description: dict[str, Any]
    """Which policy it is, for the record of the evaluation."""
    num_cut: Callable[[], int] = lambda: 0
    """How many responses were cut at `max_tokens`, where only the server knows."""


@contextlib.contextmanager
def open_player(options: argparse.Namespace, saved: Any, pool: EnvPool, temperature: float) -> Iterator[Player]:
    """The policy that the command line names, closed afterwards.

    Args:
        options: of `steppo-gym evaluate`.
        saved: a `steppo_gym.trainers.results.saved_policy.SavedPolicy`, None for servers.
        pool: the environments.
        temperature: of the sampling.
    """
    if saved is not None:
        limit = options.max_tokens or saved.max_response_tokens
        policy, codec, longest = saved.load(
            num_slots=pool.num_slots, temperature=temperature, seed=options.seed, max_response_tokens=limit
        )
        yield Player(policy, codec, longest, limit, {"model": str(saved.folder), "hash": saved.hash()})
        return
    limit = options.max_tokens or MAX_TOKENS
    sampling = {"max_tokens": limit, "temperature": temperature, "seed": options.seed}
    # No server says what its weights are, so there is no hash.
    description = {"server": options.server, "chat": options.chat, "model": options.model, "hash": None}
    # Only servers need the HTTP client.
    if options.chat:
        from steppo_gym.evaluation.chat_codec import ChatTextCodec
        from steppo_gym.evaluation.chat_server import ChatServerPolicy

        with ChatServerPolicy(options.server, options.model, tools=pool.tools, **sampling) as chat:
            yield Player(chat, ChatTextCodec(), None, limit, description, num_cut=lambda: chat.num_cut)
        return
    from steppo_gym.rollouts.served.context_length import context_length
    from steppo_gym.rollouts.server_policy import ServerPolicy

    # Prompts that are too long end their episodes here as with a model in a folder; the server would refuse them.
    length = context_length(options.server, options.model)
    if length is not None and length <= limit:
        raise ValueError(
            f"The server takes contexts of {length} tokens, which leaves no room for a prompt beside responses of up "
            f"to {limit}. Set a smaller --max_tokens."
        )
    codec = resolve_name("steppo_gym.trainers.results.saved_policy:load_codec")(options.tokenizer)
    with ServerPolicy(options.server, options.model, stop_token_ids=codec.stop_token_ids, **sampling) as server:
        yield Player(server, codec, None if length is None else length - limit, limit, description)
