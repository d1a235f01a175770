"""A rollout in a thread of its own, one iteration ahead of the updates (`--overlap_updates`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np

from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.policies import Policy, Request, Response
from steppo_gym.rollouts.rollout import Rollout


class _Left(Exception):  # noqa: N818 - not an error: the trainer is closed while the thread plays
    """Nobody waits for the rollout any more."""


class Ahead:
    """At most one rollout under way, for an iteration that comes next."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="rollout")
        self._future: Future[Rollout] | None = None
        self._number, self._left = -1, threading.Event()

    def start(self, number: int, play: Callable[[], Rollout]) -> None:
        """Begin the rollout of an iteration, counted from 0; the one before must have been taken."""
        assert self._future is None
        self._number, self._future = number, self._threads.submit(play)

    def take(self, number: int) -> Rollout | None:
        """The rollout of an iteration, waited for; None if it was not begun.

        Raises:
            Exception: whatever ended it.
        """
        future, self._future = self._future, None
        return future.result() if future is not None and self._number == number else None

    def wait(self) -> None:
        """Let the rollout under way come to its end, if there is one."""
        if self._future is not None:
            wait([self._future])

    def watched(self, on_episode: Callable[[Episode], object] | None) -> Callable[[Episode], None]:
        """What to call with each episode of a rollout under way: as `on_episode`, and it ends when it is left."""

        def call(episode: Episode) -> None:
            if self._left.is_set():
                raise _Left
            if on_episode is not None:
                on_episode(episode)

        return call

    def close(self) -> None:
        """Leave the rollout under way; it ends with its next episode, and is waited for."""
        self._left.set()
        self.wait()
        self._future = None
        self._left.clear()


class VersionedPolicy:
    """Records the version of the weights with each response of a policy that does not count them.

    Args:
        policy: writes the responses.
        version: of its weights.
    """

    def __init__(self, policy: Policy, version: int) -> None:
        self.policy, self.version, self.needs_expert = policy, version, policy.needs_expert

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The policy's responses."""
        return [replace(response, version=self.version) for response in self.policy.respond(requests)]


def tasks_of(task_ids: Sequence[str], number: int, count: int, seed: int) -> list[str]:
    """The tasks of an iteration that is known before the data loader comes to it.

    All are dealt once, in random order, before any is dealt again.

    Args:
        task_ids: to deal.
        number: of the iteration, from 0.
        count: tasks of one iteration, over all processes.
        seed: of the order.
    """
    dealt = []
    for place in range(number * count, (number + 1) * count):
        round_, position = divmod(place, len(task_ids))
        order = np.random.default_rng(np.random.SeedSequence([seed, round_])).permutation(len(task_ids))
        dealt.append(task_ids[int(order[position])])
    return dealt
