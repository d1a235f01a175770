"""What writes responses: token ids in, token ids and log-probabilities out, in batches or one by one.

The policies here are scripts: they need no model and give no log-probabilities. The trainer's own model and an
OpenAI-compatible server (`steppo_gym.rollouts.server_policy`) follow the same protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from steppo_gym.actions import ACTION, format_listed
from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.codec import Codec


@dataclass(frozen=True)
class Request:
    """One state that waits for a response."""

    slot: int
    """Stays the same while an episode lasts, so that a policy may keep its cache between steps."""
    prompt_ids: tuple[int, ...]
    admissible_actions: tuple[str, ...] | None = None
    expert_response: str | None = None
    """What the environment's expert would write; only filled for policies with `needs_expert`."""
    expert_slip: bool = False
    """Whether the expert errs on purpose here."""
    seed: int | None = None
    """The seed of the episode, for what a policy draws once per episode."""
    stream: tuple[int, int] | None = None
    """Numbers of the assignment and of the step. A policy that draws its randomness from these, and not from the order
    of its calls, gives the same response whatever else is played at the same time.
    """

    @property
    def step(self) -> int:
        """Steps played since the episode was assigned, 0 without a stream; at 0 another episode begins in this slot."""
        return 0 if self.stream is None else self.stream[1]


@dataclass(frozen=True)
class Response:
    """What a policy wrote.

    Raises:
        TypeError: ids or log-probabilities are no tuple of Python's own numbers, which records and their JSON need.
    """

    token_ids: tuple[int, ...]
    log_probs: tuple[float, ...] | None = None
    """Log-probability of each token under the distribution it was sampled from, None if unknown."""
    slip: bool = False
    """Wrong on purpose: an example of what may happen, not of what to do."""
    version: int | None = None
    """Of the weights it was sampled with, None where the policy does not count them."""

    def __post_init__(self) -> None:
        _check_numbers("token_ids", "ints", self.token_ids, int)
        if self.log_probs is not None:
            _check_numbers("log_probs", "floats", self.log_probs, (float, int))


def _check_numbers(name: str, kind: str, found: Any, types: type | tuple[type, ...]) -> None:
    if isinstance(found, tuple) and all(isinstance(number, types) for number in found):
        return
    what = type(found).__name__
    if isinstance(found, tuple):
        what += f" with {next(type(number).__name__ for number in found if not isinstance(number, types))}"
    raise TypeError(
        f"{name} of a Response must be a tuple of {kind}, found {what}. Write tuple(list), of an array or a tensor "
        "tuple(array.tolist())."
    )


class Policy(Protocol):
    """Writes one response for each request.

    One of your own is any object with these two members; docs/own_loop.md has some. Derived from this class it has to
    define `respond` alone.
    """

    needs_expert: bool = False
    """Whether requests must carry `expert_response`, which costs the environment a computation."""

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Responses in the order of the requests."""
        ...


@dataclass(frozen=True)
class Answer:
    """What became of a request that was handed in."""

    slot: int
    outcome: Response | InfrastructureError


@runtime_checkable
class StreamingPolicy(Policy, Protocol):
    """Answers requests one by one, in the order in which they are done."""

    prefers_streaming: bool
    """Whether rollouts stream unless they are told not to."""

    def submit(self, request: Request) -> None:
        """Hand in a request; its slot has no other one under way. Does not wait."""
        ...

    def poll(self, timeout: float) -> list[Answer]:
        """What has been done since the last call.

        Waits for the first answer, but not longer than `timeout` seconds; an engine in this process makes one of its
        own steps instead.
        """
        ...

    def drop(self) -> None:
        """Give up all that is under way, whose answers never come, and forget what was kept of earlier requests."""
        ...


def answer_all(policy: StreamingPolicy, requests: Sequence[Request]) -> list[Response]:
    """Hand in requests and wait for all answers: `respond` for a policy that streams.

    Args:
        policy: with nothing under way.
        requests: no two of one slot.

    Returns:
        One response per request, in order.

    Raises:
        InfrastructureError: one of them could not be answered; the others are given up.
    """
    done: dict[int, Response] = {}
    try:
        for request in requests:
            policy.submit(request)
        while len(done) < len(requests):
            for answer in policy.poll(1.0):
                if isinstance(answer.outcome, InfrastructureError):
                    raise answer.outcome
                done[answer.slot] = answer.outcome
    except BaseException:
        policy.drop()
        raise
    return [done[request.slot] for request in requests]


class ScriptedPolicy:
    """Gives fixed responses, in order and over again, counted per slot.

    Args:
        responses: at least one text.
        codec: the rollout's codec.

    Raises:
        ValueError: there is no response.
    """

    needs_expert = False

    def __init__(self, responses: Iterable[str], codec: Codec) -> None:
        self.responses = [codec.encode_response(text) for text in responses]
        if not self.responses:
            raise ValueError("responses must hold at least one text, got none.")
        self._given: dict[int, int] = {}

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The next scripted response of each slot."""
        out = []
        for request in requests:
            position = self._given.get(request.slot, 0)
            self._given[request.slot] = position + 1
            out.append(Response(self.responses[position % len(self.responses)]))
        return out


class ExpertPolicy:
    """Writes what the environment's expert writes."""

    needs_expert = True

    def __init__(self, codec: Codec) -> None:
        self.codec = codec

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The expert's response of each request.

        Raises:
            ValueError: a request carries none.
        """
        out = []
        for request in requests:
            if request.expert_response is None:
                raise ValueError(f"The request of slot {request.slot} carries no expert_response.")
            out.append(Response(self.codec.encode_response(request.expert_response), slip=request.expert_slip))
        return out


class RandomPolicy:
    """Writes a uniformly drawn admissible action.

    Args:
        codec: the rollout's codec.
        seed: seeds the draws.
        tools: the environment's, such as `EnvPool.tools`; empty in the tag format.
        tag: of the action in the tag format.
    """

    needs_expert = False

    def __init__(
        self,
        codec: Codec,
        *,
        seed: int,
        tools: Sequence[Mapping[str, Any]] = (),
        tag: str = ACTION,
    ) -> None:
        self.codec, self.tools, self.tag = codec, tuple(tools), tag
        self._rng = np.random.default_rng(seed)

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """A random admissible action for each request.

        Raises:
            ValueError: the environment does not list its admissible actions.
        """
        out = []
        for request in requests:
            if not request.admissible_actions:
                raise ValueError(
                    "RandomPolicy needs an environment that lists its admissible actions; this one lists none."
                )
            action = request.admissible_actions[int(self._rng.integers(len(request.admissible_actions)))]
            text = format_listed(action, self.tools, tag=self.tag)
            out.append(Response(self.codec.encode_response(text)))
        return out
