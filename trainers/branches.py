"""The further episodes that a rule asks for: played from the states of an iteration's steps, and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from steppo_gym.credit.records import CreditRule, Records
from steppo_gym.env import TextEnv
from steppo_gym.errors import InfrastructureError
from steppo_gym.rollouts.env_host import describe_error
from steppo_gym.rollouts.episode import Episode, Failure
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Assignment, Rollout
from steppo_gym.rollouts.snapshots import NotRepeatedError, Snapshot, take_snapshots


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
    """All that were played from other states, failed ones included, and those whose state could not be come into."""
    replayed: int = 0
    """Environment steps that were made to come into those states."""

    @property
    def cost(self) -> dict[str, float]:
        """What is logged of it, in numbers that those of other processes are added to."""
        steps = [step for episode in self.played for step in episode.steps]
        return {
            "branch_episodes": float(len(self.played)),
            "branch_steps": float(len(steps)),
            "branch_tokens": float(sum(len(step.response_ids) for step in steps)),
            "replayed_steps": float(self.replayed),
        }

    def for_records(self) -> dict[str, Any]:
        """What `Records` hold of them."""
        return {"forked_at": self.forked_at, "continuations": self.continuations}


def branch_metrics(costs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`Branches.cost` of all processes together; nothing where no rule asked for any."""
    total: dict[str, float] = {name: sum(cost[name] for cost in costs) for name in costs[0]}
    return total if total["branch_episodes"] else {}


def play_branches(
    rule: CreditRule,
    records: Records,
    factory: EnvFactory,
    play: Callable[[Sequence[Assignment]], Rollout],
    seed: int,
) -> Branches:
    """Ask a rule what it wants to have played from the states of these records, and play it.

    Args:
        rule: of the run.
        records: of the episodes from the tasks' starts, without values.
        factory: of the environment they were played in.
        play: plays assignments with the same policy; where a rule asks for branches it is called in every process, also
            for none.
        seed: recorded with the new episodes.

    Raises:
        NotRepeatedError: an episode does not repeat itself.
    """
    episodes = tuple(records.episodes)
    if type(rule).branches is CreditRule.branches:
        return Branches(episodes)
    steps = rule.branches(records)
    todo, replayed = branch_assignments(factory, episodes, steps, seed=seed)
    new = iter(play([one for one in todo if isinstance(one, Assignment)]).episodes)
    played = [next(new) if isinstance(one, Assignment) else one for one in todo]
    useful = tuple((step, e) for step, e in zip(steps, played, strict=True) if e.ended != "failed" and e.steps)
    if not rule.trains_branches:
        return Branches(episodes, (), useful, tuple(played), replayed)
    forked_at = (*(-1 for _ in episodes), *(step for step, _ in useful))
    return Branches((*episodes, *(e for _, e in useful)), forked_at, (), tuple(played), replayed)


def branch_assignments(
    factory: EnvFactory, episodes: Sequence[Episode], steps: Sequence[int], *, seed: int
) -> tuple[list[Assignment | Episode], int]:
    """What is to be played so that every step has an episode from its state on.

    The states come from playing the episodes' recorded responses again, up to the last step that is wanted of each.
    Those are environment steps as well, without a policy. An environment that raises there costs what was to go on from
    that episode.

    Args:
        factory: of the environment the episodes were played in.
        episodes: from their tasks' starts, with their seeds.
        steps: numbers of steps, each as often as episodes are wanted from it.
        seed: recorded with the new episodes, each has another.

    Returns:
        assignments: one for each entry of `steps`, with the task and the group of the episode it goes on from; or the
            record of a failure, where its state could not be come into.
        replayed: environment steps that were made for the snapshots.

    Raises:
        ValueError: there is no such step.
        NotRepeatedError: an episode does not repeat itself.
    """
    starts = np.cumsum([0, *(episode.num_steps for episode in episodes)]).tolist()
    if outside := [step for step in steps if not 0 <= step < starts[-1]]:
        raise ValueError(f"The episodes have steps 0 to {starts[-1] - 1}, asked for was {outside[0]}.")
    owners = (np.searchsorted(starts, steps, side="right") - 1).tolist()
    with contextlib.closing(_Replays(factory)) as replays:
        found = {
            owner: replays.snapshots(
                episodes[owner], [s - starts[owner] for s, o in zip(steps, owners, strict=True) if o == owner]
            )
            for owner in sorted(set(owners))
        }
    replayed = sum(max(snapshots) for snapshots in found.values() if not isinstance(snapshots, Failure))
    todo: list[Assignment | Episode] = []
    for number, (owner, step) in enumerate(zip(owners, steps, strict=True)):
        episode, snapshots, own_seed = episodes[owner], found[owner], (seed + number) % 2**31
        if isinstance(snapshots, Failure):
            todo.append(Episode(episode.task_id, (), "failed", failure=snapshots, seed=own_seed, group=episode.group))
        else:
            todo.append(Assignment(episode.task_id, own_seed, episode.group, start=snapshots[step - starts[owner]]))
    return todo, replayed


class _Replays:
    """Plays episodes again, in an environment that is made anew after it raised."""

    def __init__(self, factory: EnvFactory) -> None:
        self._factory = factory
        self._env: TextEnv | None = None

    def snapshots(self, episode: Episode, steps: Sequence[int]) -> dict[int, Snapshot] | Failure:
        """Those of some of its steps, or why there are none."""
        try:
            self._env = self._env or self._factory.make()
            return take_snapshots(self._env, episode, steps)
        except NotRepeatedError:
            raise
        except InfrastructureError as error:
            return Failure(error.boundary, error.message)
        except (Exception, SystemExit) as error:
            self.close()
            return Failure("environment", describe_error(error))

    def close(self) -> None:
        """Close the environment, whatever state it is in."""
        env, self._env = self._env, None
        if env is not None:
            with contextlib.suppress(Exception):
                env.close()
