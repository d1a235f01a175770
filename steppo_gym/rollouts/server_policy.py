"""A policy behind an OpenAI-compatible completions server, such as vLLM.

    vllm serve Qwen/Qwen3-1.7B --logprobs-mode processed_logprobs

    policy = ServerPolicy("http://localhost:8000/v1", "Qwen/Qwen3-1.7B", max_tokens=512, stop_token_ids=(151645,))

Prompts are sent as token ids and the sampled ids come back (`return_token_ids`, in vLLM since 0.10.2), so no text is
tokenized twice. One request is sent per prompt, because the server batches better than its clients can. Sampling
options that a server may take from the model's own generation config (top_k, min_p, repetition penalty) are sent
switched off, so that the distribution is the one given here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Unpack

from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.served.completions import read_completion
from steppo_gym.rollouts.served.http_policy import ClientOptions, HTTPPolicy

_FIXED_OPTIONS = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "logprobs": 1,
    "return_token_ids": True,
    # A server without a tokenizer (--skip-tokenizer-init) has no other names for them.
    "return_tokens_as_token_ids": True,
    "add_special_tokens": False,
}


class ServerPolicy(HTTPPolicy):
    """Asks a server for each response, several at a time.

    Log-probabilities are recorded only if they belong to the distribution that was sampled from. vLLM reports those of
    the bare model unless it is started with `--logprobs-mode processed_logprobs`; the two are the same at temperature 1
    and top_p 1.

    Args:
        base_url: where the server is, with or without the final "/v1".
        model: the model's name on the server.
        max_tokens: longest response.
        temperature: 0 is greedy.
        top_p: nucleus of the distribution to sample from.
        seed: seeds all samples: that of a request follows from it and the request's stream, so a response does not
            depend on when it is asked for; requests without a stream are counted. None leaves the server's own
            randomness.
        stop_token_ids: tokens that end a response, besides the model's own.
        vocab_size: tokens that the model has embeddings for, of which a tokenizer may know fewer; answers with others
            are errors. None takes all.
        processed_log_probs: the server reports log-probabilities after temperature and top_p.
        version: of the weights that the server was given, recorded with each response. Servers that name theirs
            (`weights_version` of the answer; vLLM does not) must name this one.
        **client: `timeout`, `max_retries`, `max_concurrency` and `api_key_env`, see `ClientOptions`.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        max_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        seed: int | None = None,
        stop_token_ids: Sequence[int] = (),
        vocab_size: int | None = None,
        processed_log_probs: bool = False,
        version: int | None = None,
        **client: Unpack[ClientOptions],
    ) -> None:
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {top_p}.")
        body = {
            "model": model,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "stop_token_ids": list(stop_token_ids),
            **_FIXED_OPTIONS,
        }
        super().__init__(base_url, "completions", body, **client)
        self._keeps_log_probs = processed_log_probs or (temperature == 1.0 and top_p == 1.0)
        self._seed, self._num_unnamed, self._version = seed, 0, version
        self._max_tokens, self._vocab_size = max_tokens, vocab_size

    def _question(self, request: Request) -> tuple[dict[str, Any], Callable[[str], Response]]:
        own: dict[str, Any] = {"prompt": list(request.prompt_ids)}
        if self._seed is not None:
            self._num_unnamed += request.stream is None
            drawn = hashlib.sha256(repr((self._seed, request.stream or self._num_unnamed)).encode()).digest()
            own["seed"] = int.from_bytes(drawn[:8]) >> 1
        read = partial(
            read_completion,
            prompt_ids=request.prompt_ids,
            max_tokens=self._max_tokens,
            vocab_size=self._vocab_size,
            keep_log_probs=self._keeps_log_probs,
            version=self._version,
        )
        return own, read
