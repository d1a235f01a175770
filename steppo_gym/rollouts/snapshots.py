"""States of played episodes from which other episodes start.

    (episode,) = collect(policy, pool, codec, [Assignment(task_id, seed=0)]).episodes
    snapshots = take_snapshots(factory.make(), episode, [3, 7])
    starts = [Assignment(task_id, seed=0, start=snapshots[3]) for _ in range(8)]
    branches = collect(policy, pool, codec, starts).episodes

Nothing is recorded while an episode is played: a snapshot is taken by playing the recorded responses again, in this
process and without a policy, so that it costs a fraction of the episode and works for episodes read from a file too. An
episode that starts from the snapshot of step k has the bytes of the one that was played, from step k on, if the policy
writes the same responses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from steppo_gym.env import TextEnv
from steppo_gym.errors import DataError
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.step_result import StepResult, read_answer

_SHOWN_CHARS = 100


class NotRepeatedError(DataError):
    """An episode that was played again took another way: its environment is not the same, or not deterministic."""


@dataclass(frozen=True)
class Snapshot:
    """A state of an episode, with all that goes on from it. Immutable, picklable, and the same in every process."""

    state: str
    """What `TextEnv.get_state` returned, as JSON."""
    result: StepResult
    """What the environment answered when it came into this state."""
    prompt_ids: tuple[int, ...]
    """The prompt of this state; in the append context with the conversation before it."""
    num_steps: int
    """Steps that led here."""


def take_snapshots(
    env: TextEnv,
    episode: Episode,
    steps: Iterable[int],
    *,
    start: Snapshot | None = None,
    needs_expert: bool = False,
) -> dict[int, Snapshot]:
    """Play the responses of an episode again and stop over in some of its states.

    Args:
        env: an environment like the one the episode was played in; any number of episodes may use it in turn.
        episode: with the seed it was played with.
        steps: positions in `episode.steps`; the snapshot is of the state in which that response was given.
        start: where the episode started, if it started from a snapshot itself.
        needs_expert: whether the policy that played it was shown the expert's responses. An expert that errs now and
            then may draw whenever it is asked, so it has to be asked again.

    Returns:
        A snapshot for each of `steps`.

    Raises:
        ValueError: there is no such step, or the episode carries no seed.
        NotRepeatedError: the same responses lead to other states than those in the record.
        Exception: whatever the environment raises.
    """
    wanted = set(steps)
    beyond = sorted(number for number in wanted if not 0 <= number < episode.num_steps)
    if beyond:
        raise ValueError(f"The episode has steps 0 to {episode.num_steps - 1}, asked for was {beyond[0]}.")
    snapshots: dict[int, Snapshot] = {}
    result = _begin(env, episode, start)
    for number, step in enumerate(episode.steps[: max(wanted, default=-1) + 1]):
        if result.state_key != step.state_key:
            raise NotRepeatedError(
                f"An episode of task {episode.task_id!r} does not repeat itself: step {number} was taken in the state "
                f"{step.state_key[:_SHOWN_CHARS]!r}, now it is {result.state_key[:_SHOWN_CHARS]!r}. Use the "
                "environment's version and arguments it was played with."
            )
        if number in wanted:
            num_steps = number + (0 if start is None else start.num_steps)
            snapshots[number] = Snapshot(json.dumps(env.get_state()), result, step.prompt_ids, num_steps)
        if needs_expert:
            env.expert_response()
        if len(snapshots) < len(wanted):
            result = read_answer(*env.step(step.response))
    return snapshots


def snapshots_of_steps(
    env: TextEnv, episodes: Sequence[Episode], steps: Iterable[int], *, needs_expert: bool = False
) -> tuple[dict[int, Snapshot], int]:
    """Snapshots of the states in which some of the steps of several episodes were taken.

    Args:
        env: like the one the episodes were played in.
        episodes: from their tasks' starts, with their seeds.
        steps: numbers of steps; those of the first episode come first, then those of the second, and so on.
        needs_expert: as for `take_snapshots`.

    Returns:
        snapshots: by the number of the step.
        replayed: environment steps that were made for them.

    Raises:
        ValueError: there is no such step, or an episode carries no seed.
        NotRepeatedError: an episode does not repeat itself.
        Exception: whatever the environment raises.
    """
    starts = np.cumsum([0, *(episode.num_steps for episode in episodes)])
    wanted: dict[int, list[int]] = {}
    for step in sorted(set(steps)):
        if not 0 <= step < starts[-1]:
            raise ValueError(f"The episodes have steps 0 to {starts[-1] - 1}, asked for was {step}.")
        wanted.setdefault(int(np.searchsorted(starts, step, side="right")) - 1, []).append(step)
    snapshots: dict[int, Snapshot] = {}
    replayed = 0
    for owner, numbers in wanted.items():
        first = int(starts[owner])
        found = take_snapshots(env, episodes[owner], [n - first for n in numbers], needs_expert=needs_expert)
        snapshots |= {first + place: snapshot for place, snapshot in found.items()}
        replayed += numbers[-1] - first
    return snapshots, replayed


def _begin(env: TextEnv, episode: Episode, start: Snapshot | None) -> StepResult:
    if start is not None:
        env.set_state(json.loads(start.state))
        return start.result
    if episode.seed is None:
        raise ValueError("The episode carries no seed, so it cannot be played again.")
    observation, info = env.reset(seed=episode.seed, options={"task_id": episode.task_id})
    return read_answer(observation, 0.0, False, False, info)
