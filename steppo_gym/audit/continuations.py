"""Playing on from decision points: the response that was taken, others that the policy supports, and its own choice.

    points = choose_points(episodes, 60, seed=0)
    for point, played in audit_points(table, points, episodes, Plan()):
        print(point.advantage(reach=1.0))

For each point n continuations are played freely: V*(s) is their mean. Their first responses show what the policy
supports; the most frequent beside the taken one are tried as well, n continuations each. The free continuations say
which responses are tried but nothing about what those are worth, so that nothing is chosen by the numbers it is then
judged by.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steppo_gym.audit.forced import ForcedPolicy
from steppo_gym.audit.points import Arm, AuditedPoint
from steppo_gym.credit.advantages import discounted_returns
from steppo_gym.env import TextEnv
from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.policies import Policy
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import Assignment, collect, require_played
from steppo_gym.rollouts.snapshots import snapshots_of_steps

FIRST_STREAM = 2**40
"""Above the numbers of ordinary assignments: a continuation must not meet the random numbers of its own episode."""


@dataclass(frozen=True)
class Plan:
    """How much is played at a decision point."""

    continuations: int = 16
    """Of each response, and as many that the policy begins itself."""
    alternatives: int = 3
    """Responses tried at most beside the one that was taken."""
    gamma: float = 1.0
    """Discount per step in returns, values and advantages."""
    points_at_once: int = 8
    """Points that are played together."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, least in (("continuations", 2), ("alternatives", 0), ("points_at_once", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}.")
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"gamma must be between 0 and 1, got {self.gamma}.")


@dataclass(frozen=True)
class Table:
    """Where episodes are played: the same for the audited episodes and for what goes on from them."""

    policy: Policy
    pool: EnvPool
    codec: Codec
    env: TextEnv
    """Like those of the pool, for coming into the states of steps."""
    max_prompt_tokens: int | None = None
    on_episode: Callable[[Episode], object] | None = None
    """Called with every episode when it ends."""

    def play(
        self, assignments: Sequence[Assignment], firsts: Sequence[tuple[int, ...] | None], streams: Sequence[int]
    ) -> tuple[Episode, ...]:
        """Play assignments whose first responses may be given, with named streams of random numbers.

        Raises:
            AllEpisodesFailedError: nothing was played.
        """
        policy = ForcedPolicy(self.policy, firsts, streams)
        rollout = collect(
            policy,
            self.pool,
            self.codec,
            assignments,
            max_prompt_tokens=self.max_prompt_tokens,
            on_episode=self.on_episode,
        )
        require_played(rollout.episodes)
        return rollout.episodes


def audit_points(
    table: Table, points: Sequence[int], episodes: Sequence[Episode], plan: Plan
) -> Iterator[tuple[AuditedPoint, tuple[Episode, ...]]]:
    """Play on from the states of steps.

    Args:
        table: with the policy that played the episodes.
        points: numbers of steps.
        episodes: from their tasks' starts, with their seeds.
        plan: how much is played.

    Yields:
        Each point in order, and the continuations of the response that was taken: episodes that begin with its step.

    Raises:
        ValueError: there is no such step.
        DataError: an episode does not repeat itself.
        AllEpisodesFailedError: nothing could be played.
    """
    for first in range(0, len(points), plan.points_at_once):
        yield from _audit_some(table, points[first : first + plan.points_at_once], episodes, plan)


def _audit_some(
    table: Table, points: Sequence[int], episodes: Sequence[Episode], plan: Plan
) -> Iterator[tuple[AuditedPoint, tuple[Episode, ...]]]:
    snapshots, _ = snapshots_of_steps(table.env, episodes, points, needs_expert=table.policy.needs_expert)
    starts = np.cumsum([0, *(episode.num_steps for episode in episodes)])
    owners = {point: int(np.searchsorted(starts, point, side="right")) - 1 for point in points}
    taken = {point: episodes[owners[point]].steps[point - starts[owners[point]]].response_ids for point in points}
    starting = {p: Assignment(episodes[owners[p]].task_id, 0, episodes[owners[p]].group, snapshots[p]) for p in points}
    free = _play_all(table, [(point, None) for point in points], starting, plan)
    begun = {
        point: Counter(e.steps[0].response_ids for e in played if e.steps)
        for point, played in zip(points, free, strict=True)
    }
    arms = {
        point: [
            taken[point],
            *[ids for ids, _ in begun[point].most_common() if ids != taken[point]][: plan.alternatives],
        ]
        for point in points
    }
    tried = [(point, ids) for point in points for ids in arms[point]]
    played = dict(zip(tried, _play_all(table, tried, starting, plan), strict=True))
    for point, own in zip(points, free, strict=True):
        episode, place = episodes[owners[point]], int(point - starts[owners[point]])
        found = tuple(
            Arm(
                ids,
                table.codec.decode_response(ids),
                begun[point][ids],
                tuple(_return(e, plan.gamma) for e in played[point, ids]),
            )
            for ids in arms[point]
        )
        returns = tuple(_return(e, plan.gamma) for e in own)
        yield (
            AuditedPoint(point, owners[point], place, episode.num_steps, episode.group, returns, found),
            played[point, taken[point]],
        )


def _play_all(
    table: Table,
    branches: Sequence[tuple[int, tuple[int, ...] | None]],
    starting: Mapping[int, Assignment],
    plan: Plan,
) -> list[tuple[Episode, ...]]:
    """The continuations of each branch, a point and the response it begins with."""
    n = plan.continuations
    assignments, firsts, streams = [], [], []
    for point, ids in branches:
        for number in range(n):
            assignments.append(dataclasses.replace(starting[point], seed=number))
            firsts.append(ids)
            streams.append(FIRST_STREAM + point * n + number)
    episodes = table.play(assignments, firsts, streams)
    return [episodes[i : i + n] for i in range(0, len(episodes), n)]


def _return(episode: Episode, gamma: float) -> float | None:
    if episode.ended == "failed" or not episode.steps:
        return None
    return float(discounted_returns([step.reward for step in episode.steps], gamma)[0])
