"""A chat server on this machine's loopback interface, for tests of what talks to such servers.

    with ScriptedChatServer(lambda request: {"content": "<action>look</action>"}) as server:
        policy = ChatServerPolicy(server.url, "scripted", max_tokens=64)

It speaks real HTTP and answers `/v1/chat/completions` with what a function makes of each request.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NotRequired, TypedDict

from steppo_gym.storage.http_server import JsonServer, RefusedError
from steppo_gym.storage.json_handler import JsonHandler

PATH = "/v1/chat/completions"
MAX_BODY_BYTES = 16 * 2**20


class ChatRequest(TypedDict):
    """What a client sends, as far as it is read here."""

    model: str
    messages: list[dict[str, Any]]
    tools: NotRequired[list[dict[str, Any]]]
    temperature: NotRequired[float]
    max_tokens: NotRequired[int]
    seed: NotRequired[int]


class ChatAnswer(TypedDict):
    """The message of the answer."""

    content: str | None
    tool_calls: NotRequired[Sequence[Mapping[str, Any]]]
    finish_reason: NotRequired[str]
    """Of the choice, not of the message; otherwise it follows from that."""


class ScriptedChatServer:
    """Answers each request as it is told; listens while the `with` block lasts.

    Args:
        answer: the message for a request; called from several threads. A `RefusedError` becomes the status it names.
    """

    def __init__(self, answer: Callable[[ChatRequest], ChatAnswer]) -> None:
        self.requests: list[ChatRequest] = []
        """All that was asked, in the order of arrival."""
        requests, lock = self.requests, threading.Lock()

        class Handler(JsonHandler):
            def check(self, method: str, path: str) -> None:
                if (method, path) != ("POST", PATH):
                    raise RefusedError(HTTPStatus.NOT_FOUND, f"Expected POST {PATH}, found {method} {path}.")

            def answer(self, path: str, body: bytes) -> tuple[HTTPStatus, object]:
                del path
                request = _read(body)
                with lock:
                    requests.append(request)
                message: dict[str, Any] = {"role": "assistant", **answer(request)}
                reason = "tool_calls" if message.get("tool_calls") else "stop"
                reason = message.pop("finish_reason", reason)
                choice = {"index": 0, "message": message, "finish_reason": reason}
                return HTTPStatus.OK, {"object": "chat.completion", "model": request["model"], "choices": [choice]}

        self._server = JsonServer(Handler, host="127.0.0.1", port=0, max_body_bytes=MAX_BODY_BYTES)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        """The address for clients."""
        return self._server.url

    def __enter__(self) -> ScriptedChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _read(body: bytes) -> ChatRequest:
    """A request whose conversation a server would take: calls are answered, each by its id, before anything else."""
    try:
        request: ChatRequest = json.loads(body)
        waiting: list[str] = []
        for message in request["messages"]:
            if message["role"] == "tool":
                waiting.remove(message["tool_call_id"])
            elif waiting:
                raise ValueError(f"the calls {waiting} are not answered")
            waiting += [call["id"] for call in message.get("tool_calls", ())]
        if waiting or not isinstance(request["model"], str):
            raise ValueError("expected a model's name and an answer to every call")
        return request
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"No conversation: {error}.") from None
