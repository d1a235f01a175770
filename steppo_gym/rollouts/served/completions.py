"""Reading the answers of an OpenAI-compatible `/v1/completions` endpoint that was asked for token ids.

The fields are vLLM's (vllm/entrypoints/openai/completion/protocol.py): `choices[0].token_ids`,
`choices[0].prompt_token_ids`, `choices[0].logprobs.token_logprobs`, `choices[0].finish_reason`; `weights_version` is
ours, for servers that know which weights they have. Whatever else arrives is an `InfrastructureError` at the boundary
"model" that says what was expected.
"""

from __future__ import annotations

import json
from typing import Any, TypeGuard

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.policies import Response
from steppo_gym.storage.retrying_client import is_number, shorten


def read_completion(
    text: str,
    prompt_ids: tuple[int, ...],
    *,
    max_tokens: int,
    vocab_size: int | None = None,
    keep_log_probs: bool,
    version: int | None = None,
) -> Response:
    """The response in the body of a successful answer.

    Args:
        text: the body.
        prompt_ids: what was asked; a server that reports another prompt has changed it.
        max_tokens: longest response that was asked for.
        vocab_size: tokens that the model has embeddings for; None does not check them.
        keep_log_probs: whether to read the log-probabilities.
        version: of the weights that the server should have; None takes what it says, if it does.

    Raises:
        InfrastructureError: the body is not what `return_token_ids` promises.
    """
    data = _data(text)
    choice = data["choices"][0]
    token_ids = choice.get("token_ids")
    if not _is_token_list(token_ids):
        raise _error(
            f"The server's answer has no token ids (choices[0].token_ids is {shorten(token_ids)}). "
            "Use a server that supports return_token_ids, such as vLLM 0.10.2 or newer."
        )
    if not token_ids:
        raise _error("The server's answer has no token, not even one that ends it. Check the length of its contexts.")
    if len(token_ids) > max_tokens:
        raise _error(f"The server answered with {len(token_ids)} tokens, asked for at most {max_tokens}.")
    if vocab_size is not None and max(token_ids) >= vocab_size:
        raise _error(
            f"The server answered with token {max(token_ids)}, the model here has {vocab_size}. Does it serve another?"
        )
    if choice.get("finish_reason") not in ("stop", "length"):
        raise _error(f'Expected finish_reason "stop" or "length", found {shorten(choice.get("finish_reason"))}.')
    seen = choice.get("prompt_token_ids")
    if seen is not None and seen != list(prompt_ids):
        raise _error(
            f"The server changed the prompt: {len(prompt_ids)} tokens were sent, it used {_length(seen)}. "
            "Check its truncation and special-token options."
        )
    log_probs = _log_probs(choice, len(token_ids)) if keep_log_probs else None
    return Response(tuple(token_ids), log_probs, version=_version(data, version))


def _version(data: dict[str, Any], expected: int | None) -> int | None:
    found = data.get("weights_version")
    if found is None:
        return expected
    if type(found) is not int or expected not in (None, found):
        raise _error(
            f"The server samples with version {shorten(found)} of the weights, expected {expected}. Was it started "
            "anew, or does another run use it?"
        )
    return found


def _data(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise _error(f"Expected JSON from the server, found {shorten(text)}. Check the address.") from None
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise _error(f"Expected one choice in the server's answer, found {shorten(text)}. Check the address.")
    assert isinstance(data, dict)
    return data


def _log_probs(choice: dict[str, Any], num_tokens: int) -> tuple[float, ...]:
    logprobs = choice.get("logprobs")
    values = logprobs.get("token_logprobs") if isinstance(logprobs, dict) else None
    if not isinstance(values, list) or len(values) != num_tokens or not all(map(is_number, values)):
        raise _error(f"Expected one log-probability for each of {num_tokens} tokens, found {shorten(values)}.")
    return tuple(map(float, values))


def _is_token_list(value: object) -> TypeGuard[list[int]]:
    # No vocabulary is larger than an int32, and tokenizers raise at what is larger than a uint32.
    return isinstance(value, list) and all(type(token) is int and 0 <= token < 2**31 for token in value)


def _length(value: object) -> object:
    return len(value) if isinstance(value, list) else shorten(value)


def _error(message: str) -> InfrastructureError:
    return InfrastructureError("model", message)
