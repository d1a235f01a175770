"""The further episodes that a rule asks for: played from the states of an iteration's steps, and counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steppo_gym.credit.records import CreditRule, Records
from steppo_gym.env import TextEnv
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Assignment, Rollout
from steppo_gym.rollouts.snapshots import snapshots_of_steps


@dataclass(frozen=True)
class Branches:
    """The episodes of an iteration with those that were played from their states."""

    episodes: tuple[Episode, ...]
    """All that are trained: those from the tasks' starts, then, if the rule trains them, those from other states."""
    forked_at: tuple[int, ...] = ()
    """As in `Records`."""
    continuations: tuple[tuple[int, Episode], ...] = ()
    """As in `Records`."""
    played: tuple[Episode, ...] = ()
    """All that were played from other states, failed ones included."""
    replayed: int = 0
    """Environment steps that were made to come into those states."""

    def for_records(self) -> dict[str, Any]:
        """What `Records` hold of them."""
        return {"forked_at": self.forked_at, "continuations": self.continuations}


def branch_metrics(everywhere: Sequence[Branches]) -> dict[str, float]:
    """What the branches of all processes cost; nothing where no rule asked for any."""
    played = [episode for branches in everywhere for episode in branches.played]
    if not played:
        return {}
    return {
        "branch_episodes": float(len(played)),
        "branch_steps": float(sum(episode.num_steps for episode in played)),
        "replayed_steps": float(sum(branches.replayed for branches in everywhere)),
    }


def play_branches(
    rule: CreditRule,
    episodes: Sequence[Episode],
    factory: EnvFactory,
    play: Callable[[Sequence[Assignment]], Rollout],
    seed: int,
) -> Branches:
    """Ask a rule what it wants to have played from the states of these episodes, and play it.

    Args:
        rule: of the run.
        episodes: that did not fail.
        factory: of the environment they were played in.
        play: plays assignments with the same policy.
        seed: recorded with the new episodes.
    """
    steps = rule.branches(Records(episodes, np.zeros(0)))
    if not len(steps):
        return Branches(tuple(episodes))
    env = factory.make()
    try:
        todo, replayed = branch_assignments(env, episodes, steps, seed=seed)
    finally:
        env.close()
    played = play(todo).episodes
    useful = tuple((step, e) for step, e in zip(steps, played, strict=True) if e.ended != "failed" and e.steps)
    if not rule.trains_branches:
        return Branches(tuple(episodes), (), useful, tuple(played), replayed)
    forked_at = (*(-1 for _ in episodes), *(step for step, _ in useful))
    return Branches((*episodes, *(e for _, e in useful)), forked_at, (), tuple(played), replayed)


def branch_assignments(
    env: TextEnv, episodes: Sequence[Episode], steps: Sequence[int], *, seed: int
) -> tuple[list[Assignment], int]:
    """What is to be played so that every step has an episode from its state on.

    The states come from playing the episodes' recorded responses again, up to the last step that is wanted of each.
    Those are environment steps as well, without a policy.

    Args:
        env: like the one the episodes were played in.
        episodes: from their tasks' starts, with their seeds.
        steps: numbers of steps, each as often as episodes are wanted from it.
        seed: recorded with the new episodes, each has another.

    Returns:
        assignments: one for each entry of `steps`, with the task and the group of the episode it goes on from.
        replayed: environment steps that were made for the snapshots.

    Raises:
        ValueError: there is no such step.
        DataError: an episode does not repeat itself.
    """
    snapshots, replayed = snapshots_of_steps(env, episodes, steps)
    starts = np.cumsum([0, *(episode.num_steps for episode in episodes)])
    owners = [episodes[owner] for owner in np.searchsorted(starts, steps, side="right") - 1]
    return [
        Assignment(owner.task_id, (seed + number) % 2**31, owner.group, start=snapshots[step])
        for number, (owner, step) in enumerate(zip(owners, steps, strict=True))
    ], replayed
