"""Several servers as one policy: slots are dealt out to them, and those of a server that is lost go to the others."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.policies import Answer, Request, Response, StreamingPolicy, answer_all

MAX_FAILURES = 3
"""Requests in a row that a server may fail; one alone may be the request's own fault."""

_SLICE_SECONDS = 0.002


class ServerGroup:
    """Streams from several policies.

    A slot keeps its server, which has its prompt in the cache. A request that could not be answered costs its episode,
    as with one server; a server that failed `MAX_FAILURES` times in a row is asked no more, unless it is the last.

    Args:
        servers: at least one; what they report as failed was tried as often as they try.

    Raises:
        ValueError: there are none.
    """

    needs_expert = False
    prefers_streaming = True

    def __init__(self, servers: Sequence[StreamingPolicy]) -> None:
        if not servers:
            raise ValueError("servers must hold at least one policy, got none.")
        self._servers = list(servers)
        self._live = list(range(len(servers)))
        self._num_under_way = [0] * len(servers)
        self._failures = [0] * len(servers)

    def submit(self, request: Request) -> None:
        """Hand the request to the slot's server."""
        number = request.slot % len(self._servers)
        if number not in self._live:
            number = self._live[request.slot % len(self._live)]
        self._num_under_way[number] += 1
        self._servers[number].submit(request)

    def poll(self, timeout: float) -> list[Answer]:
        """What any of them has answered; waits for the first, but not longer than `timeout` seconds."""
        end = time.monotonic() + timeout
        while True:
            busy = [number for number, count in enumerate(self._num_under_way) if count]
            answers: list[Answer] = []
            for number in busy:
                wait = _SLICE_SECONDS / len(busy) if timeout > 0 else 0.0
                found = self._servers[number].poll(timeout if len(busy) == 1 else wait)
                self._num_under_way[number] -= len(found)
                for answer in found:
                    self._note(number, answer)
                answers += found
            if answers or not busy or time.monotonic() >= end:
                return answers

    def drop(self) -> None:
        """Give up all that is under way."""
        for server in self._servers:
            server.drop()
        self._num_under_way = [0] * len(self._servers)

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """One response per request, in order, see `answer_all`."""
        return answer_all(self, requests)

    def _note(self, number: int, answer: Answer) -> None:
        failed = isinstance(answer.outcome, InfrastructureError)
        self._failures[number] = self._failures[number] + 1 if failed else 0
        if self._failures[number] >= MAX_FAILURES and len(self._live) > 1 and number in self._live:
            self._live.remove(number)
            print(f"A server is not asked any more: {answer.outcome}", file=sys.stderr, flush=True)
