"""How long the contexts of a completions server may be, as far as it says.

vLLM's `/v1/models` has `max_model_len` for each model that is served (vllm/entrypoints/openai/engine/protocol.py,
ModelCard). Other servers of this kind have other fields or none.
"""

from __future__ import annotations

import json

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.served.http_policy import API_KEY_ENV, key_headers, server_root
from steppo_gym.storage.retrying_client import RetryingClient


def context_length(base_url: str, model: str, *, api_key_env: str = API_KEY_ENV) -> int | None:
    """The most tokens of a prompt and its response together, None if the server does not say.

    Args:
        base_url: where the server is, with or without the final "/v1".
        model: the model's name on the server.
        api_key_env: the environment variable that holds the API key.
    """
    client = RetryingClient(
        server_root(base_url),
        "model",
        timeout=10.0,
        max_retries=2,
        max_concurrency=1,
        headers=key_headers(api_key_env),
    )
    try:
        return client.request("GET", "/v1/models", lambda _, text: _length_of(model, text))
    except InfrastructureError:
        return None
    finally:
        client.close()


def _length_of(model: str, text: str) -> int | None:
    try:
        cards = json.loads(text)["data"]
        lengths = [card["max_model_len"] for card in cards if card["id"] == model]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return lengths[0] if lengths and type(lengths[0]) is int else None
