"""No rounds: a slot asks again as soon as its environment has answered, whatever the other slots wait for.

The records of the episodes do not depend on the order in which things happen, if the policy's answer is a function of
the request (its stream numbers among it) and the weights. The order in which episodes end does.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import Command
from steppo_gym.rollouts.policies import Answer, StreamingPolicy
from steppo_gym.rollouts.pool import Batch, EnvPool
from steppo_gym.rollouts.schedules.lockstep import MAX_FAILED_CALLS
from steppo_gym.rollouts.schedules.open_rollout import OpenRollout

_BOTH_SECONDS = 0.002
"""How long the policy is waited for before the environments are looked at, while both are at work."""
_ONE_SECONDS = 1.0


class Streaming:
    """Plays an open rollout with a policy that answers requests one by one.

    Args:
        policy: writes the responses.
        pool: the environments.
        rollout: what is played.
    """

    def __init__(self, policy: StreamingPolicy, pool: EnvPool, rollout: OpenRollout) -> None:
        self._policy, self._pool, self._rollout = policy, pool, rollout
        self._asked: dict[int, tuple[float, int]] = {}
        """By slot, when its request was handed in, and in which bout of failures."""
        self._batches: list[Batch] = []
        self._bout = self._failed_bouts = 0

    def run(self) -> None:
        """Play to the end."""
        try:
            self._step(self._assign(range(self._pool.num_slots)))
            while self._rollout.goes_on:
                self._look()
        except BaseException:
            self._policy.drop()
            raise

    def _look(self) -> None:
        """Take what the policy and the environments have finished, and hand out what follows from it."""
        started, asked, stepping = time.perf_counter(), len(self._asked), bool(self._batches)
        if asked:
            answers = self._policy.poll(_BOTH_SECONDS if stepping else _ONE_SECONDS)
            self._step([command for answer in answers for command in self._take(answer)])
        if self._batches:
            self._observe(self._pool.poll(self._batches, 0.0 if self._asked else _ONE_SECONDS))
        seconds, timing = time.perf_counter() - started, self._rollout.timing
        timing.request_seconds += asked * seconds
        if asked:
            timing.generation_seconds += seconds
        else:
            timing.environment_wait_seconds += seconds

    def _take(self, answer: Answer) -> list[Command]:
        """What the environments have to do after one answer of the policy."""
        asked_at, bout = self._asked.pop(answer.slot)
        if isinstance(answer.outcome, InfrastructureError):
            self._count_failure(bout, answer.outcome)
            self._rollout.fail(answer.slot, answer.outcome)
            return self._assign([answer.slot])
        self._failed_bouts = 0
        return [self._rollout.respond(answer.slot, answer.outcome, time.perf_counter() - asked_at)]

    def _count_failure(self, bout: int, error: InfrastructureError) -> None:
        """Requests that were under way together when the first of them failed count once, as those of one call do."""
        if bout == self._bout:
            self._bout += 1
            self._failed_bouts += 1
        if self._failed_bouts >= MAX_FAILED_CALLS:
            raise error

    def _assign(self, slots: Iterable[int]) -> list[Command]:
        return self._rollout.assign(filter(self._pool.has, slots))

    def _step(self, commands: Iterable[Command]) -> None:
        # One batch a slot, so that none waits for another.
        self._batches += [self._pool.submit([command]) for command in commands]

    def _observe(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            self._batches.remove(batch)
            self._rollout.receive(batch.results)
            for slot in batch.results:
                if self._rollout.is_open(slot):
                    self._ask(slot)
                else:
                    self._step(self._assign([slot]))

    def _ask(self, slot: int) -> None:
        timing = self._rollout.timing
        timing.num_calls += 1
        timing.num_requests += 1
        self._asked[slot] = (time.perf_counter(), self._bout)
        self._policy.submit(self._rollout.request(slot))
