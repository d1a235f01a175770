"""A rollout while it is played: assignments that wait, episodes that are open, and records of those that ended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import Command, StepCommand
from steppo_gym.rollouts.episode import Episode, Failure
from steppo_gym.rollouts.open_episode import Assignment, OpenEpisode, PromptRules
from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.step_result import Result

MAX_FAILED_STARTS = 10
"""Episodes that may fail in a row before their first prompt, those of lost workers not counted."""


@dataclass
class Timing:
    """Where the time of a rollout went, and what was asked of its policy."""

    num_calls: int = 0
    num_requests: int = 0
    generation_seconds: float = 0.0
    environment_wait_seconds: float = 0.0
    request_seconds: float = 0.0


class OpenRollout:
    """What all schedules share: which slot plays what, and how it ends.

    Args:
        rules: how prompts are made.
        assignments: what to play.
        needs_expert: whether environments say what their expert would write.
        on_episode: called with each episode when it ends.
    """

    def __init__(
        self,
        rules: PromptRules,
        assignments: Sequence[Assignment],
        *,
        needs_expert: bool,
        on_episode: Callable[[Episode], object] | None,
    ) -> None:
        self._rules, self._needs_expert, self._on_episode = rules, needs_expert, on_episode
        self._waiting = deque(enumerate(assignments))
        self._open: dict[int, OpenEpisode] = {}
        self._positions: dict[int, int] = {}
        self._failed_starts = 0
        self.ended: dict[int, Episode] = {}
        """By position of their assignments."""
        self.timing = Timing()

    @property
    def goes_on(self) -> bool:
        """Whether anything is left to play."""
        return bool(self._open or self._waiting)

    def is_open(self, slot: int) -> bool:
        """Whether a slot is in the middle of an episode."""
        return slot in self._open

    def assign(self, slots: Iterable[int]) -> list[Command]:
        """Give the free ones among some slots the next assignments; what their environments have to do first."""
        starts: list[Command] = []
        for slot in slots:
            if slot not in self._open and self._waiting:
                self._positions[slot], assignment = self._waiting.popleft()
                self._open[slot] = OpenEpisode(assignment, self._rules)
                starts.append(assignment.command(slot, self._needs_expert))
        return starts

    def request(self, slot: int) -> Request:
        """What the policy is asked for a slot."""
        return self._open[slot].request(slot, self._positions[slot])

    def respond(self, slot: int, response: Response, seconds: float) -> StepCommand:
        """Take a response and the seconds it took; what the slot's environment has to do next."""
        return StepCommand(slot, self._open[slot].respond(response, seconds), self._needs_expert)

    def receive(self, results: Mapping[int, Result]) -> None:
        """Take what environments answered, in the order of the slots: that of arrival depends on timing."""
        for slot in sorted(results):
            self._end(slot, self._open[slot].receive(results[slot]))

    def fail(self, slot: int, error: InfrastructureError) -> None:
        """End a slot's episode: its request could not be answered."""
        self._end(slot, self._open[slot].fail(Failure(error.boundary, error.message)))

    def _end(self, slot: int, episode: Episode | None) -> None:
        """Put away the record of a slot's episode, if it has one."""
        if self._open[slot].has_begun:
            self._failed_starts = 0
        elif episode is not None and episode.failure is not None and episode.failure.boundary != "worker":
            self._count_failed_start(episode.failure)
        if episode is None:
            return
        del self._open[slot]
        self.ended[self._positions[slot]] = episode
        if self._on_episode is not None:
            self._on_episode(episode)

    def _count_failed_start(self, failure: Failure) -> None:
        self._failed_starts += 1
        if self._failed_starts >= MAX_FAILED_STARTS:
            raise InfrastructureError(
                failure.boundary,
                f"{self._failed_starts} episodes in a row failed before their first prompt, the last one with: "
                f"{failure.message}",
            )
