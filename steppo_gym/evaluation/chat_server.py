"""A policy behind a chat server (OpenAI's `/v1/chat/completions`): messages in, text out. For evaluation alone.

    with ChatServerPolicy("http://localhost:8000/v1", "gpt-oss-20b", max_tokens=512, tools=pool.tools) as policy:
        rollout = collect(policy, pool, ChatTextCodec(), assignments)

There are no token ids and no log-probabilities of what was sampled, so nothing can be trained on these episodes. In the
tool-call format the environment's tools are sent as `tools`; the calls of an answer become the
`<tool_call>{..}</tool_call>` texts that environments read, and go back as calls, with what the environment said as the
tool's answer. Texts of `reasoning_content` are not read: an environment reads what the model says, not what it thinks.
A model whose thoughts take all of `max_tokens` says nothing, which `num_cut` tells from one that has nothing to say.
Observations are sent as they are: whether the text of a special token in one becomes that token is the server's to say.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

from steppo_gym.actions import Invalid, parse_tool_calls, served_call
from steppo_gym.errors import InfrastructureError
from steppo_gym.evaluation.chat_codec import ROLES, ChatTextCodec, Message, read_messages
from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.served.http_policy import ClientOptions, HTTPPolicy
from steppo_gym.storage.retrying_client import shorten

_NEWER_NAME = "max_completion_tokens"
"""Of `max_tokens`: OpenAI's models that think first refuse the older one, and name this."""
_SEED_REFUSED = re.compile(r"refused the request with HTTP 4.*(?<![\w-])seed(?![\w-])", re.DOTALL)
"""Names of models may have the word in them."""
_MOST_CALLS = 64
"""Calls of one response that are taken back to the server as calls."""


class ChatServerPolicy(HTTPPolicy):
    """Asks a chat server for each response, several at a time. The rollout's codec has to be `ChatTextCodec`.

    Args:
        base_url: where the server is, with or without the final "/v1".
        model: the model's name on the server.
        max_tokens: longest response.
        temperature: 0 is greedy.
        seed: of the sampling. Each request has a seed that follows from it and the request's stream; whether equal
            seeds give equal texts is the server's. None sends none, and so does a server that refuses it.
        tools: JSON schemas, empty in the tag format.
        **client: `timeout`, `max_retries`, `max_concurrency` (16 by default) and `api_key_env`, see `ClientOptions`.

    Raises:
        ValueError: an argument outside its range.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        seed: int | None = None,
        tools: Sequence[dict[str, Any]] = (),
        **client: Unpack[ClientOptions],
    ) -> None:
        body: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        if tools:
            body["tools"] = list(tools)
        super().__init__(base_url, "chat/completions", body, **(ClientOptions(max_concurrency=16) | client))
        self.num_cut = 0
        """Responses that the server cut at `max_tokens`."""
        self._lock = threading.Lock()
        self.seed, self._has_tools, self._codec = seed, bool(tools), ChatTextCodec()

    def _question(self, request: Request) -> tuple[dict[str, Any], Callable[[str], Response]]:
        if next(iter(request.prompt_ids), None) not in ROLES:
            raise ValueError("The prompt holds no messages. Play ChatServerPolicy with the codec ChatTextCodec().")
        messages = read_messages(request.prompt_ids)
        own: dict[str, Any] = {"messages": chat_messages(messages, has_tools=self._has_tools)}
        if self.seed is not None:
            drawn = hashlib.sha256(repr((self.seed, request.stream)).encode()).digest()
            # 31 bits, which every server that takes one takes.
            own["seed"] = int.from_bytes(drawn[:4]) >> 1
        return own, self._read

    def _ask(self, own: Mapping[str, Any], read: Callable[[str], Response], stop: threading.Event) -> Response:
        body: dict[str, Any] | None = {**self._body, **own}
        while True:
            try:
                response = self._client.post(body, read, stop)
                break
            except InfrastructureError as error:
                body = _instead(body, str(error))
                if body is None:
                    raise
        self._keep(own, body)
        return response

    def _keep(self, own: Mapping[str, Any], taken: Mapping[str, Any]) -> None:
        """Ask from now on as in a request that was taken."""
        if "max_tokens" in self._body and "max_tokens" not in taken:
            # A new body, as requests of other threads are being made of the old one.
            self._body = {name: value for name, value in taken.items() if name not in own}
        if "seed" in own and "seed" not in taken:
            with self._lock:
                known, self.seed = self.seed is None, None
            if not known:
                said = "takes no seed, and is asked without one: the same command may come out otherwise another time."
                print(f"{self.url} {said}", file=sys.stderr, flush=True)

    def _read(self, text: str) -> Response:
        choice = _choice(text)
        if choice.get("finish_reason") == "length":
            with self._lock:
                self.num_cut += 1
        return Response(self._codec.encode_response(_said(choice)))


def _instead(body: Mapping[str, Any], refusal: str) -> dict[str, Any] | None:
    """What a server may take that has refused a request with these words; None where they do not say it."""
    # The newer name alone would not do: servers that do not know it answer without a limit.
    if "max_tokens" in body and _NEWER_NAME in refusal:
        return {_NEWER_NAME if name == "max_tokens" else name: value for name, value in body.items()}
    if "seed" in body and _SEED_REFUSED.search(refusal):
        return {name: value for name, value in body.items() if name != "seed"}
    return None


def chat_messages(messages: Sequence[Message], *, has_tools: bool) -> list[dict[str, Any]]:
    """A conversation as a chat server takes it.

    Args:
        messages: what was said.
        has_tools: responses that are calls go back as calls, and the next observation as the answer to them.
    """
    out: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        calls = _calls(message, number) if has_tools else []
        if calls:
            text = message.text.partition("<tool_call>")[0].strip()
            out.append({"role": "assistant", "content": text or None, "tool_calls": calls})
        elif message.role == "user" and out and out[-1].get("tool_calls"):
            # Every call must have an answer; what the environment said answers all of them together.
            ids = [call["id"] for call in out[-1]["tool_calls"]]
            answers = [message.text, *["Answered with the first call."] * (len(ids) - 1)]
            out += [
                {"role": "tool", "tool_call_id": id_, "content": text} for id_, text in zip(ids, answers, strict=True)
            ]
        else:
            out.append({"role": message.role, "content": message.text})
    return out


def _calls(message: Message, number: int) -> list[dict[str, Any]]:
    """The calls of a response as a server writes them; empty where it is no response or has none that can be read."""
    found = parse_tool_calls(message.text, max_calls=_MOST_CALLS) if message.role == "assistant" else ()
    if isinstance(found, Invalid):
        return []
    return [
        {
            "id": f"call_{number}_{position}",
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for position, call in enumerate(found)
    ]


def read_answer(text: str) -> str:
    """The response in the body of a successful answer: its text, and its calls as `<tool_call>` texts.

    Raises:
        InfrastructureError: the body is no answer of a chat server.
    """
    return _said(_choice(text))


def _choice(text: str) -> dict[str, Any]:
    """The only choice in the body of an answer, which has a message."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise _error("JSON from the server", text) from None
    choices = data.get("choices") if isinstance(data, dict) else None
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else None
    if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
        raise _error("one choice with a message in the server's answer", text)
    return choice


def _said(choice: Mapping[str, Any]) -> str:
    """The response in a choice."""
    message = choice["message"]
    # A model that refuses says so in another place.
    content = message.get("content") or message.get("refusal") or ""
    calls = message.get("tool_calls") or []
    if not isinstance(content, str) or not isinstance(calls, list):
        raise _error("a message of text and tool calls", message)
    return "\n".join(filter(None, [content, *map(_call_text, calls)]))


def _call_text(call: object) -> str:
    """A call as environments read it."""
    function = call.get("function") if isinstance(call, dict) else None
    name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else (None, None)
    if not isinstance(name, str) or not isinstance(arguments, str):
        raise _error("a tool call with a name and arguments as text", call)
    return served_call(name, arguments)


def _error(expected: str, found: object) -> InfrastructureError:
    return InfrastructureError("model", f"Expected {expected}, found {shorten(found)}. Check the address.")
