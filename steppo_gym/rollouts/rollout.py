"""Rollouts: a policy plays assigned tasks in the environments of a pool until every task has its episode.

    with EnvPool(EnvFactory("steppo/KeyDoor-v0"), num_slots=16, num_workers=4) as pool:
        rollout = collect(policy, pool, codec, [Assignment(task_id, seed=0) for task_id in task_ids])

A slot whose episode ends takes the next assignment at once, and responses are generated only for slots that wait for
one. There are two schedules (`steppo_gym.rollouts.schedules`):

- Lock-step, for policies that answer in batches: for all slots at once, or for two fixed halves in turn, and then the
  environments of one half step in their workers while the policy generates for the other. Which slot plays what and
  which requests share a batch depends on that choice and the lengths of the episodes, never on timing, so the same
  policy and assignments give the same records with any number of workers. The choice can be left to the first calls;
  then it does depend on timing, which is nothing to a policy whose answers follow from the request alone.
- Streaming, for policies that answer requests one by one (`StreamingPolicy`): no slot waits for another. A policy whose
  answers follow from the request alone gives the same records as in lock-step, in the same order; only the order in
  which the episodes end is another.

An episode fails, and the others go on, when its environment raises or answers what no environment may, when its worker
dies, when its first prompt is too long, or when the policy raises `InfrastructureError`: a batch policy does not say
which request was at fault, so all requests of that call fail. A step that is not finished in time truncates its
episode. What fails again and again ends the rollout with an error: see `MAX_FAILED_CALLS` and `MAX_FAILED_STARTS` and
`steppo_gym.rollouts.pool`; `require_played` asks whether anything was played at all. All endings are listed in
`docs/endings.md`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from steppo_gym.errors import AllEpisodesFailedError
from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.open_episode import Assignment, PromptRules
from steppo_gym.rollouts.policies import Policy, StreamingPolicy
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.schedules.lockstep import MAX_FAILED_CALLS, Lockstep
from steppo_gym.rollouts.schedules.open_rollout import MAX_FAILED_STARTS, OpenRollout, Timing
from steppo_gym.rollouts.schedules.streaming import Streaming

__all__ = [
    "MAX_FAILED_CALLS",
    "MAX_FAILED_STARTS",
    "Assignment",
    "Rollout",
    "RolloutStats",
    "collect",
    "require_played",
]


@dataclass(frozen=True)
class RolloutStats:
    """What a rollout did and where its time went.

    Failed episodes are counted in `num_failed` and nowhere else; generation counts all that was asked of the policy.
    """

    num_episodes: int = 0
    num_failed: int = 0
    num_steps: int = 0
    num_tokens: int = 0
    """Prompt and response tokens of all steps."""
    num_generated_tokens: int = 0
    """Response tokens of all steps."""
    num_generation_calls: int = 0
    """In streaming, every request is a call."""
    num_requests: int = 0
    """Requests of all generation calls."""
    seconds: float = 0.0
    generation_seconds: float = 0.0
    """Time in which the policy was at work."""
    request_seconds: float = 0.0
    """Sum over the requests of the time from asking to answer."""
    environment_wait_seconds: float = 0.0
    """Time in which nothing was done but wait for environments."""
    overlap: bool | None = None
    """Whether environments stepped while responses were generated; None if the rollout was too short to find out which
    is faster."""

    @property
    def mean_batch_size(self) -> float:
        """Requests per generation call, 0.0 if there was none."""
        return self.num_requests / self.num_generation_calls if self.num_generation_calls else 0.0

    @property
    def mean_requests_under_way(self) -> float:
        """Requests that the policy was at work on, on average over `generation_seconds`; 0.0 if there was none."""
        return self.request_seconds / self.generation_seconds if self.generation_seconds else 0.0


@dataclass(frozen=True)
class Rollout:
    """The episodes in the order of their assignments, and the statistics."""

    episodes: tuple[Episode, ...]
    stats: RolloutStats


def require_played(episodes: Sequence[Episode]) -> None:
    """Stop where nothing was played, before anything is made of it.

    Raises:
        AllEpisodesFailedError: there are episodes and all of them failed; the message has the first cause.
    """
    causes = [episode.failure for episode in episodes if episode.failure is not None]
    if causes and len(causes) == len(episodes):
        raise AllEpisodesFailedError(len(causes), causes[0].boundary, causes[0].message)


def collect(
    policy: Policy,
    pool: EnvPool,
    codec: Codec,
    assignments: Iterable[Assignment],
    *,
    max_prompt_tokens: int | None = None,
    overlap: bool | None = True,
    streaming: bool | None = None,
    on_episode: Callable[[Episode], object] | None = None,
) -> Rollout:
    """Play all assignments.

    In the "rebuilt" context every prompt is `codec.first_prompt` of the observation. In the "append" context the first
    one is, and each later one is `codec.next_prompt` of the prompt before, the ids that were sampled, and the
    observation.

    Args:
        policy: writes the responses, one of your own too (docs/own_loop.md); in lock-step one call has the waiting
            slots of one half.
        pool: the environments; its slots are all used.
        codec: makes prompts and reads responses.
        assignments: what to play.
        max_prompt_tokens: an episode whose next prompt is longer is truncated, with that prompt as its
            `final_prompt_ids` (the only prompt that may be longer). If it is the first prompt, the episode fails at the
            boundary "prompt".
        overlap: in lock-step, True makes two halves of the slots and False one group: half as many calls with batches
            twice as large, and the environments step while nothing is generated. That is faster when the steps of all
            slots take less time than the part of a generation call that does not depend on its batch size. None is
            False without workers, where nothing can overlap; with workers both are tried for the first 12 responses of
            every slot, and the rollout keeps to the faster.
        streaming: whether to ask for responses one by one; None does where the policy prefers it.
        on_episode: called with each episode when it ends, failed ones included.

    Raises:
        InfrastructureError: the policy, the environments or a worker kept failing.
        ValueError: `max_prompt_tokens` is below 1, the policy gave another number of responses than it was asked for,
            or it is to stream and cannot; or the pool is closed.
        TypeError: the policy lacks a member of `Policy` or gives something else than `Response`s, or something else
            than an `Assignment` is to be played.
    """
    assignments = tuple(assignments)
    _check_call(policy, assignments)
    if max_prompt_tokens is not None and max_prompt_tokens < 1:
        raise ValueError(f"max_prompt_tokens must be at least 1 or None, got {max_prompt_tokens}.")
    if isinstance(policy, StreamingPolicy):
        # What it keeps of rollouts before may be of other weights.
        policy.drop()
    started = time.perf_counter()
    rules = PromptRules(codec, pool.description, max_prompt_tokens)
    rollout = OpenRollout(rules, assignments, needs_expert=policy.needs_expert, on_episode=on_episode)
    if isinstance(policy, StreamingPolicy) and (policy.prefers_streaming if streaming is None else streaming):
        Streaming(policy, pool, rollout).run()
        overlap = bool(pool.worker_pids)
    elif streaming:
        raise ValueError(f"{type(policy).__name__} answers in batches: it has no submit and poll to stream with.")
    else:
        overlap = Lockstep(policy, pool, rollout).run(overlap if pool.worker_pids else bool(overlap))
    episodes = tuple(rollout.ended[position] for position in range(len(assignments)))
    return Rollout(episodes, _stats(episodes, rollout.timing, time.perf_counter() - started, overlap))


def _check_call(policy: Policy, assignments: Sequence[Assignment]) -> None:
    for member in ("respond", "needs_expert"):
        if not hasattr(policy, member):
            raise TypeError(
                "A policy has respond(requests) and needs_expert, which is False unless it reads what the expert would "
                f"write; {type(policy).__name__} has no {member}. Derive it from steppo_gym.Policy."
            )
    for found in assignments:
        if not isinstance(found, Assignment):
            raise TypeError(f"What to play is a list of Assignment(task_id, seed=..), found {type(found).__name__}.")


def _stats(episodes: Sequence[Episode], timing: Timing, seconds: float, overlap: bool | None) -> RolloutStats:
    whole = [episode for episode in episodes if episode.ended != "failed"]
    steps = [step for episode in whole for step in episode.steps]
    num_generated_tokens = sum(len(step.response_ids) for step in steps)
    return RolloutStats(
        num_episodes=len(whole),
        num_failed=len(episodes) - len(whole),
        num_steps=len(steps),
        num_tokens=num_generated_tokens + sum(len(step.prompt_ids) for step in steps),
        num_generated_tokens=num_generated_tokens,
        num_generation_calls=timing.num_calls,
        num_requests=timing.num_requests,
        seconds=seconds,
        generation_seconds=timing.generation_seconds,
        request_seconds=timing.request_seconds,
        environment_wait_seconds=timing.environment_wait_seconds,
        overlap=overlap,
    )
