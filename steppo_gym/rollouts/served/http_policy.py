"""What policies behind a server have in common: one request for each response, many at a time.

They answer in batches, which are given up together, and one by one (`StreamingPolicy`).

A policy says what to ask and how to read the answer, see `steppo_gym.rollouts.server_policy` (token ids) and
`steppo_gym.evaluation.chat_server` (messages).
"""

from __future__ import annotations

import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.policies import Answer, Request, Response
from steppo_gym.storage.retrying_client import RetryingClient


class HTTPPolicy(ABC):
    """Asks an OpenAI-compatible server for each response, several at a time.

    Args:
        base_url: where the server is, with or without the final "/v1".
        path: of the endpoint below "/v1".
        body: sent with every request.
        timeout: seconds to wait for one answer.
        max_retries: how often a request is sent again after a timeout, a broken connection, or status 408, 429 or 5xx.
        max_concurrency: requests under way at the same time.
        api_key_env: the environment variable that holds the API key; none is sent if it is not set.

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
        timeout: float,
        max_retries: int,
        max_concurrency: int,
        api_key_env: str,
    ) -> None:
        if body["max_tokens"] < 1:
            raise ValueError(f"max_tokens must be at least 1, got {body['max_tokens']}.")
        if body["temperature"] < 0:
            raise ValueError(f"temperature must be 0 or more, got {body['temperature']}.")
        self.url = base_url.rstrip("/").removesuffix("/v1") + "/v1/" + path
        self._body = dict(body)
        key = os.environ.get(api_key_env)
        self._client = RetryingClient(
            self.url,
            "model",
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=max_concurrency,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )
        self._threads = ThreadPoolExecutor(max_concurrency, thread_name_prefix="policy")
        self._stop, self._done = threading.Event(), SimpleQueue[Future[Response]]()
        self._under_way: dict[Future[Response], int] = {}
        """The slots of the requests that were handed in one by one."""

    @abstractmethod
    def _question(self, request: Request) -> tuple[dict[str, Any], Callable[[str], Response]]:
        """What to send besides the body of every request, and how to read the answer (in another thread).

        Called once for each request, in their order.
        """

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The server's response to each request.

        Raises:
            InfrastructureError: one of them could not be had, boundary "model"; the others are given up.
        """
        stop = threading.Event()
        questions = [self._question(request) for request in requests]
        futures = [self._send(*question, stop) for question in questions]
        try:
            for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                future.result()
            return [future.result() for future in futures]
        finally:
            # After a failure the requests under way are left to end by themselves, and no other is sent.
            stop.set()
            for future in futures:
                future.cancel()

    def submit(self, request: Request) -> None:
        """Send a request."""
        future = self._send(*self._question(request), self._stop)
        self._under_way[future] = request.slot
        future.add_done_callback(self._done.put)

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
        """Give up what was sent one by one; no answer to it comes any more."""
        self._stop.set()
        for future in self._under_way:
            future.cancel()
        self._stop, self._done, self._under_way = threading.Event(), SimpleQueue(), {}

    def _send(self, own: dict[str, Any], read: Callable[[str], Response], stop: threading.Event) -> Future[Response]:
        return self._threads.submit(self._client.post, self._body | own, read, stop)

    def close(self) -> None:
        """Close the connections; a second call changes nothing."""
        self.drop()
        self._threads.shutdown(cancel_futures=True)
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _outcome(future: Future[Response]) -> Response | InfrastructureError:
    try:
        return future.result()
    except InfrastructureError as error:
        return error
