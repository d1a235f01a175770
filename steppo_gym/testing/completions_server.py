"""A token-level completions server on this machine's loopback interface, for tests of what samples from such servers.

    with CompletionsServer(lambda folder: TableModel(seed=0)) as server:
        policy = ServerPolicy(server.url, "fake", max_tokens=16)

It speaks real HTTP and follows vLLM where a trainer depends on it: `/v1/completions` takes and gives token ids with the
log-probabilities of what was sampled, `/v1/models` says how long contexts may be, `/collective_rpc` with the method
`reload_weights` loads weights from the folder it was started from, `/reset_prefix_cache` says whether it could, which
is not while a request is under way; `/sleep` and `/wake_up` are there. Beyond vLLM, every answer names the version of
the weights it was sampled with (`weights_version`, read from `VERSION_FILE` beside them). Answers come in an order that
is mixed up on purpose, and the server can be killed in the middle of them and started anew.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from steppo_gym.rollouts.served.weights import VERSION_FILE
from steppo_gym.storage.http_server import JsonServer, RefusedError
from steppo_gym.storage.json_handler import JsonHandler

MAX_BODY_BYTES = 16 * 2**20
_PATHS = ("/v1/completions", "/collective_rpc", "/reset_prefix_cache", "/sleep", "/wake_up")


class TokenModel(Protocol):
    """What the server samples from."""

    def log_probs(self, token_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """(V,) log-probabilities of the token after some tokens; called by one thread at a time."""
        ...


class TableModel:
    """Log-probabilities that follow from the last token alone, drawn once."""

    def __init__(self, seed: int, num_tokens: int = 32) -> None:
        logits = np.random.default_rng(seed).normal(size=(num_tokens, num_tokens))
        self.table = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))

    def log_probs(self, token_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """The row of the last token."""
        return self.table[token_ids[-1] % len(self.table)]


class CompletionRequest(TypedDict):
    """What a client sends, as far as it is read here."""

    model: str
    prompt: list[int]
    max_tokens: int
    temperature: float
    stop_token_ids: NotRequired[list[int]]
    seed: NotRequired[int]


class CompletionsServer:
    """Samples from a model token by token; listens while the `with` block lasts.

    Args:
        load: makes the model, of the weights in a folder or, before any were given, of None.
        folder: where weights are loaded from.
        most_delay: seconds that an answer may be held back; how long follows from its prompt and its seed.
        distort: what is sampled from instead of the model's log-probabilities (V,), for a sampler that is wrong on
            purpose; it is what the answers report.
        max_model_len: longest prompt with its response; longer ones are refused. None for any.
        name: of the model; requests may have another.
    """

    def __init__(
        self,
        load: Callable[[Path | None], TokenModel],
        *,
        folder: Path | None = None,
        most_delay: float = 0.01,
        distort: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]] | None = None,
        max_model_len: int | None = None,
        name: str | None = None,
    ) -> None:
        self.requests: list[CompletionRequest] = []
        """All that was asked, in the order of arrival."""
        self.finished: list[CompletionRequest] = []
        """The same in the order of the answers."""
        self.commands: list[str] = []
        """Paths of all else that was asked."""
        self.version: int | None = None
        """Of the weights that answers are sampled with, None before any were loaded."""
        self._max_model_len, self._name = max_model_len, name or str(folder)
        self._load, self._folder, self._most_delay, self._distort = load, folder, most_delay, distort
        self._model = load(None)
        self._lock, self._port, self._num_under_way = threading.Lock(), 0, 0
        self._server: JsonServer | None = None

    @property
    def url(self) -> str:
        """The address for clients; it stays when the server is started anew."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen; after `kill` with the weights that it was first started with, as a server would."""
        outer = self

        class Handler(JsonHandler):
            def check(self, method: str, path: str) -> None:
                if (method, path) != ("GET", "/v1/models") and (method != "POST" or urlsplit(path).path not in _PATHS):
                    raise RefusedError(HTTPStatus.NOT_FOUND, f"Expected POST and {_PATHS}, found {method} {path}.")

            def answer(self, path: str, body: bytes) -> tuple[HTTPStatus, object]:
                if path == "/v1/models":
                    return HTTPStatus.OK, outer._models()
                if urlsplit(path).path == "/v1/completions":
                    with outer._under_way():
                        return HTTPStatus.OK, outer._complete(_read(body))
                return HTTPStatus.OK, outer._obey(path, body)

        self._model, self.version = self._load(None), None
        self._server = JsonServer(Handler, host="127.0.0.1", port=self._port, max_body_bytes=MAX_BODY_BYTES)
        self._port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def kill(self) -> None:
        """End in the middle of whatever is under way; a second call changes nothing."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            self._thread.join()
            server.abort()
            server.server_close()

    def __enter__(self) -> CompletionsServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @contextlib.contextmanager
    def _under_way(self) -> Iterator[None]:
        with self._lock:
            self._num_under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_under_way -= 1

    def _models(self) -> dict[str, Any]:
        return {"object": "list", "data": [{"id": self._name, "max_model_len": self._max_model_len}]}

    def _complete(self, request: CompletionRequest) -> dict[str, Any]:
        size, most = len(request["prompt"]) + request["max_tokens"], self._max_model_len
        if most is not None and size > most:
            raise RefusedError(HTTPStatus.BAD_REQUEST, f"Expected at most {most} tokens in all, found {size}.")
        rng = np.random.default_rng([request.get("seed", 0), *request["prompt"]])
        with self._lock:
            self.requests.append(request)
            token_ids, log_probs = self._sample(request, rng)
            version = self.version
        time.sleep(self._most_delay * rng.random())
        with self._lock:
            self.finished.append(request)
        stopped = bool(token_ids) and token_ids[-1] in request.get("stop_token_ids", ())
        choice = {
            "index": 0,
            "text": "",
            "token_ids": token_ids,
            "prompt_token_ids": request["prompt"],
            "logprobs": {"token_logprobs": log_probs},
            "finish_reason": "stop" if stopped else "length",
        }
        answer = {"object": "text_completion", "model": request["model"], "choices": [choice]}
        return answer if version is None else answer | {"weights_version": version}

    def _sample(self, request: CompletionRequest, rng: np.random.Generator) -> tuple[list[int], list[float]]:
        context, token_ids, log_probs = list(request["prompt"]), [], []
        for _ in range(request["max_tokens"]):
            found = self._tempered(self._model.log_probs(context), request["temperature"])
            if request["temperature"] == 0:
                token = int(found.argmax())
            else:
                token = int(np.searchsorted(np.exp(found).cumsum(), rng.random() * np.exp(found).sum(), side="right"))
                token = min(token, len(found) - 1)
            context.append(token)
            token_ids.append(token)
            log_probs.append(float(found[token]))
            if token in request.get("stop_token_ids", ()):
                break
        return token_ids, log_probs

    def _tempered(self, log_probs: npt.NDArray[np.float64], temperature: float) -> npt.NDArray[np.float64]:
        scaled = log_probs / (temperature or 1.0)
        scaled = scaled - scaled.max()
        scaled = scaled - np.log(np.exp(scaled).sum())
        return scaled if self._distort is None else self._distort(scaled)

    def _obey(self, path: str, body: bytes) -> dict[str, Any]:
        with self._lock:
            self.commands.append(path)
            if path == "/collective_rpc":
                with contextlib.suppress(ValueError, AttributeError):
                    if json.loads(body).get("method") == "reload_weights" and self._folder is not None:
                        self._model = self._load(self._folder)
                        self.version = json.loads((self._folder / VERSION_FILE).read_text())["version"]
                        return {"results": [None]}
                raise RefusedError(HTTPStatus.BAD_REQUEST, "Expected the method reload_weights, and a folder of mine.")
            return {"success": not self._num_under_way} if path == "/reset_prefix_cache" else {}


def _read(body: bytes) -> CompletionRequest:
    try:
        request: CompletionRequest = json.loads(body)
        if not all(type(token) is int for token in request["prompt"]) or not request["prompt"]:
            raise ValueError("expected a prompt of token ids")
        if request["max_tokens"] < 1 or request["temperature"] < 0:
            raise ValueError("expected max_tokens of 1 or more and a temperature of 0 or more")
        return request
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"No request for a completion: {error}.") from None
