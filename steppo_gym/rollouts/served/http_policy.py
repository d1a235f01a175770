"""What policies behind a server have in common: one request for each response, many at a time.

A policy says what to ask and how to read the answer, see `steppo_gym.rollouts.server_policy` (token ids) and
`steppo_gym.evaluation.chat_server` (messages).
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, Self, TypedDict

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.policies import Answer, Request, Response, answer_all
from steppo_gym.storage.retrying_client import RetryingClient

API_KEY_ENV = "OPENAI_API_KEY"
"""The environment variable that holds the API key, unless another is named."""


def server_root(base_url: str) -> str:
    """The address of a server, given with or without the final "/v1"."""
    return base_url.rstrip("/").removesuffix("/v1")


def key_headers(api_key_env: str) -> dict[str, str]:
    """What shows a server the API key in an environment variable; nothing if it is not set."""
    key = os.environ.get(api_key_env)
    return {"Authorization": f"Bearer {key}"} if key else {}


class ClientOptions(TypedDict, total=False):
    """Keywords that every policy behind a server takes."""

    timeout: float
    """Seconds to wait for one answer, 300 by default."""
    max_retries: int
    """How often a request is sent again after a timeout, a broken connection, or status 408, 429 or 5xx; 5 by default.
    """
    max_concurrency: int
    """Requests under way at the same time, 64 by default."""
    api_key_env: str
    """The environment variable that holds the API key, "OPENAI_API_KEY" by default; none is sent if it is not set."""


class HTTPPolicy(ABC):
    """Asks an OpenAI-compatible server for each response, several at a time.

    Args:
        base_url: where the server is, with or without the final "/v1", or the endpoint's whole address.
        path: of the endpoint below "/v1".
        body: sent with every request.
        timeout, max_retries, max_concurrency, api_key_env: see `ClientOptions`.

    Raises:
        ValueError: an argument outside its range, `max_tokens` and `temperature` of the body included.
    """

    needs_expert = False
    prefers_streaming = True

    def __init__(
        self,
        base_url: str,
        path: str,
        body: Mapping[str, Any],
        *,
        timeout: float = 300.0,
        max_retries: int = 5,
        max_concurrency: int = 64,
        api_key_env: str = API_KEY_ENV,
    ) -> None:
        if body["max_tokens"] < 1:
            raise ValueError(f"max_tokens must be at least 1, got {body['max_tokens']}.")
        if not body["temperature"] >= 0:
            raise ValueError(f"temperature must be 0 or more, got {body['temperature']}.")
        self.url = server_root(base_url.rstrip("/").removesuffix("/" + path)) + "/v1/" + path
        self._body = dict(body)
        self._client = RetryingClient(
            self.url,
            "model",
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            headers=key_headers(api_key_env),
        )
        self._threads = ThreadPoolExecutor(max_concurrency, thread_name_prefix="policy")
        self._stop, self._done = threading.Event(), SimpleQueue[Future[Response]]()
        self._under_way: dict[Future[Response], int] = {}
        """The slots of the requests."""

    @abstractmethod
    def _question(self, request: Request) -> tuple[dict[str, Any], Callable[[str], Response]]:
        """What to send besides the body of every request, and how to read the answer (in another thread).

        Called once for each request, in their order.
        """

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The server's response to each request, see `answer_all`."""
        return answer_all(self, requests)

    def submit(self, request: Request) -> None:
        """Send a request."""
        own, read = self._question(request)
        future = self._threads.submit(self._ask, own, read, self._stop)
        self._under_way[future] = request.slot
        future.add_done_callback(self._done.put)

    def _ask(self, own: Mapping[str, Any], read: Callable[[str], Response], stop: threading.Event) -> Response:
        """The answer to a question; called in another thread."""
        return self._client.post({**self._body, **own}, read, stop)

    def poll(self, timeout: float) -> list[Answer]:
        """What has been answered since the last call; waits for the first, but not longer than `timeout` seconds."""
        answers: list[Answer] = []
        while self._under_way:
            try:
                future = self._done.get(block=not answers and timeout > 0, timeout=timeout)
            except Empty:
                break
            answers.append(Answer(self._under_way.pop(future), _outcome(future)))
        return answers

    def drop(self) -> None:
        """Give up what is under way: it is left to end by itself, is not sent again, and no answer to it comes."""
        self._stop.set()
        for future in self._under_way:
            future.cancel()
        self._stop, self._done, self._under_way = threading.Event(), SimpleQueue(), {}

    def close(self) -> None:
        """Close the connections; a second call changes nothing."""
        self.drop()
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _outcome(future: Future[Response]) -> Response | InfrastructureError:
    try:
        return future.result()
    except InfrastructureError as error:
        return error
