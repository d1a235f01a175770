"""Rounds in two halves: while the policy generates for one half of the slots, the environments of the other step.

Or of all slots together. Which slot plays what and which requests share a batch depends on that choice and on the
lengths of the episodes, and on nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import Command, StepCommand
from steppo_gym.rollouts.policies import Policy, Response
from steppo_gym.rollouts.pool import Batch, EnvPool
from steppo_gym.rollouts.schedules.choice import Choice
from steppo_gym.rollouts.schedules.open_rollout import OpenRollout

MAX_FAILED_CALLS = 3
"""Calls of the policy that may fail in a row; the last one's error is raised."""


@dataclass
class _Half:
    """Slots that are generated for together."""

    slots: Sequence[int]
    batch: Batch | None = None
    """What its environments are doing."""
    actions: list[StepCommand] = field(default_factory=list)
    """What they are to do next."""


class Lockstep:
    """Plays an open rollout with a policy that answers in batches.

    Args:
        policy: writes the responses; one call has the waiting slots of one half.
        pool: the environments.
        rollout: what is played.
    """

    def __init__(self, policy: Policy, pool: EnvPool, rollout: OpenRollout) -> None:
        self._policy, self._pool, self._rollout = policy, pool, rollout
        self._failed_calls = 0

    def run(self, overlap: bool | None) -> bool | None:
        """Play to the end.

        Args:
            overlap: in two halves or not; None tries both and keeps to the faster.

        Returns:
            The same, or what was found out; None if the rollout was too short for that.
        """
        choice = Choice(overlap)
        halves = choice.halves
        first, second = self._divided(halves)
        starts = self._assign(range(self._pool.num_slots))
        for half in (first, second):
            half.batch = self._submit(start for start in starts if start.slot in half.slots)
        while self._rollout.goes_on:
            started, answered = time.perf_counter(), self._rollout.timing.num_requests
            if halves != choice.halves:
                halves = choice.halves
                self._come_to_rest(first, second)
                first, second = self._divided(halves)
            self._round(first, second)
            self._round(second, first)
            choice.note(time.perf_counter() - started, self._rollout.timing.num_requests - answered)
        return choice.overlap

    def _divided(self, halves: bool) -> tuple[_Half, _Half]:
        slots = range(self._pool.num_slots)
        # Every second slot, not the first half of them, so that each half spreads over all workers.
        return (_Half(slots[0::2]), _Half(slots[1::2])) if halves else (_Half(slots), _Half(()))

    def _come_to_rest(self, *halves: _Half) -> None:
        """Wait for all environments, those that have not been set going yet among them."""
        for half in halves:
            self._receive(half.batch)
            self._receive(self._submit(half.actions))

    def _round(self, half: _Half, other: _Half) -> None:
        """Set the environments of the other half going and generate for this one."""
        self._receive(half.batch)
        half.batch = self._submit(self._assign(half.slots))
        if other.actions:
            # After the resets of this half, which are waited for below, and before generating.
            other.batch, other.actions = self._submit(other.actions), []
        while half.batch is not None:
            self._receive(half.batch)
            half.batch = self._submit(self._assign(half.slots))
        half.actions = self._generate([slot for slot in half.slots if self._rollout.is_open(slot)])

    def _assign(self, slots: Iterable[int]) -> list[Command]:
        return self._rollout.assign(filter(self._pool.has, slots))

    def _submit(self, commands: Iterable[Command]) -> Batch | None:
        commands = list(commands)
        if not commands:
            return None
        started = time.perf_counter()
        batch = self._pool.submit(commands)
        self._rollout.timing.environment_wait_seconds += time.perf_counter() - started
        return batch

    def _receive(self, batch: Batch | None) -> None:
        if batch is None:
            return
        started = time.perf_counter()
        results = self._pool.wait(batch)
        self._rollout.timing.environment_wait_seconds += time.perf_counter() - started
        self._rollout.receive(results)

    def _generate(self, slots: Sequence[int]) -> list[StepCommand]:
        if not slots:
            return []
        rollout, timing, started = self._rollout, self._rollout.timing, time.perf_counter()
        try:
            responses = list(self._policy.respond([rollout.request(slot) for slot in slots]))
        except InfrastructureError as error:
            self._fail_call(slots, error)
            return []
        finally:
            seconds = time.perf_counter() - started
            timing.generation_seconds += seconds
            timing.request_seconds += seconds * len(slots)
            timing.num_calls += 1
            timing.num_requests += len(slots)
        if len(responses) != len(slots):
            raise ValueError(f"The policy must give one response per request, gave {len(responses)} for {len(slots)}.")
        for found in responses:
            if not isinstance(found, Response):
                raise TypeError(f"The policy must give a Response for each request, gave {type(found).__name__}.")
        self._failed_calls = 0
        share = seconds / len(slots)
        return [rollout.respond(slot, response, share) for slot, response in zip(slots, responses, strict=True)]

    def _fail_call(self, slots: Sequence[int], error: InfrastructureError) -> None:
        self._failed_calls += 1
        if self._failed_calls >= MAX_FAILED_CALLS:
            raise error
        for slot in slots:
            self._rollout.fail(slot, error)
