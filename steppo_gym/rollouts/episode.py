"""Records of what was played: an `Episode` is a tuple of `Step`s and how it ended; in a file, one line of JSON.

`docs/endings.md` lists every way in which an episode ends, and what follows from it.

In the append context every prompt extends the one before it, so a line stores only the new tokens of such a prompt and
the size of a line grows with the length of the episode, not with its square.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from steppo_gym.errors import DataError

Ending = Literal["terminated", "truncated", "failed"]
ENDINGS: tuple[Ending, ...] = get_args(Ending)


@dataclass(frozen=True)
class Step:
    """One environment step: the state as a prompt, the response, and what came of it."""

    prompt_ids: tuple[int, ...]
    """Token ids of the whole prompt the response was sampled from."""
    response_ids: tuple[int, ...]
    """Token ids as sampled; these are trained on, text is only for the environment."""
    log_probs: tuple[float, ...] | None
    """Log-probability of each response token when it was sampled, None if the policy does not know them."""
    response: str
    """The response as the environment read it."""
    reward: float
    state_key: str
    """Equal exactly for equal hidden states; of the state the response was given in."""
    invalid_action: str | None = None
    """Why the response was no valid action, None if it was one."""
    generation_seconds: float = 0.0
    """Wall time of the generation call that produced the response, shared equally by its responses; where responses are
    asked for one by one, from asking to answer."""
    environment_seconds: float = 0.0
    """Wall time of the environment's own step."""
    slip: bool = False
    """Whether the response is wrong on purpose, by an expert that errs or because it was corrupted: not to be
    imitated."""
    version: int | None = None
    """Of the weights the response was sampled with, None if the policy did not say."""
    admissible_actions: tuple[str, ...] | None = field(default=None, compare=False, repr=False)
    """The actions that would have done something in this state, None if they cannot be listed. Kept only while the
    episode is in memory: a line of JSON leaves them out, as nearly all would be repeated at the next step."""

    def __post_init__(self) -> None:
        if self.log_probs is not None and len(self.log_probs) != len(self.response_ids):
            raise ValueError(
                f"log_probs must have one entry per response token, "
                f"got {len(self.log_probs)} for {len(self.response_ids)}."
            )
        if not math.isfinite(self.reward):
            raise ValueError(f"reward must be finite, got {self.reward}.")


@dataclass(frozen=True)
class Failure:
    """Why an episode is void: where the fault was and what it said."""

    boundary: str
    message: str


@dataclass(frozen=True)
class Episode:
    """Steps until the task was over ("terminated"), the limit reached ("truncated") or something broke ("failed")."""

    task_id: str
    steps: tuple[Step, ...]
    ended: Ending
    final_prompt_ids: tuple[int, ...] | None = None
    """Truncated episodes: the prompt of the state they stopped in, for the critic's bootstrap. None otherwise."""
    success: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    """Set exactly when `ended` is "failed"."""
    seed: int | None = None
    """The seed `reset` was called with."""
    group: int = 0
    """Episodes of one task that are compared with each other share a group."""
    timed_out: bool = False
    """Whether the environment did not finish the last step in time: truncated, but not by the task's own limit."""
    final_state_key: str | None = None
    """Key of the state the episode stopped in, None if it failed (and in files that were written before there was one).
    Where a step ran out of time it is the last state that is known."""

    def __post_init__(self) -> None:
        if self.ended not in ENDINGS:
            raise ValueError(f"ended must be one of {', '.join(ENDINGS)}, got {self.ended!r}.")
        if (self.ended == "failed") != (self.failure is not None):
            raise ValueError(
                f"failure must be given exactly for failed episodes, got {self.failure!r} for {self.ended!r}."
            )
        if (self.ended == "truncated") != (self.final_prompt_ids is not None):
            raise ValueError(f"final_prompt_ids must be given exactly for truncated episodes; this one {self.ended}.")

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return len(self.steps)

    @property
    def total_reward(self) -> float:
        """Undiscounted sum of rewards."""
        return math.fsum(step.reward for step in self.steps)

    def to_json(self) -> str:
        """One line of JSON without a line break; `Episode.from_json` gives back an equal record."""
        record = _plain(self, skip=("steps", "final_prompt_ids", "timed_out", "failure"))
        previous: tuple[int, ...] = ()
        record["steps"] = []
        for step in self.steps:
            record["steps"].append(
                _plain(step, skip=("prompt_ids", "admissible_actions")) | _prompt_to_json(step.prompt_ids, previous)
            )
            previous = step.prompt_ids + step.response_ids
        if self.final_prompt_ids is not None:
            record["final"] = _prompt_to_json(self.final_prompt_ids, previous)
        if self.timed_out:
            record["timed_out"] = True
        if self.failure is not None:
            record["failure"] = {"boundary": self.failure.boundary, "message": self.failure.message}
        return json.dumps(record, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Episode:
        """Read one line.

        Raises:
            DataError: the line is not an episode.
        """
        try:
            record = json.loads(line)
            steps, previous = [], ()
            for data in record.pop("steps"):
                step = _step_from_json(data, previous)
                steps.append(step)
                previous = step.prompt_ids + step.response_ids
            final = record.pop("final", None)
            failure = record.pop("failure", None)
            return cls(
                steps=tuple(steps),
                final_prompt_ids=None if final is None else _prompt_from_json(final, previous),
                failure=None if failure is None else Failure(**failure),
                **record,
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DataError(f"Expected one episode as JSON, got {line[:80]!r} ({error}).") from error


def write_episodes(path: str | Path, episodes: Iterable[Episode], *, append: bool = False) -> None:
    """Write episodes as JSON lines, creating the folder if needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if append else "w", encoding="utf-8") as file:
        file.writelines(episode.to_json() + "\n" for episode in episodes)


def read_episodes(path: str | Path) -> Iterator[Episode]:
    """Read episodes from JSON lines, one at a time: `list(read_episodes(path))` where they are needed more than once.

    Raises:
        DataError: a line is not an episode; the message names file and line.
    """
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield Episode.from_json(line.decode())
            except (DataError, UnicodeDecodeError) as error:
                raise DataError(f"{path}, line {number}: {error}") from error


def _plain(record: Step | Episode, skip: Sequence[str]) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in skip}


def _prompt_to_json(prompt: tuple[int, ...], previous: tuple[int, ...]) -> dict[str, Any]:
    if previous and prompt[: len(previous)] == previous:
        return {"extends": True, "prompt_ids": prompt[len(previous) :]}
    return {"prompt_ids": prompt}


def _prompt_from_json(data: dict[str, Any], previous: tuple[int, ...]) -> tuple[int, ...]:
    new = tuple(data["prompt_ids"])
    return previous + new if data.get("extends") else new


def _step_from_json(data: dict[str, Any], previous: tuple[int, ...]) -> Step:
    prompt_ids = _prompt_from_json(data, previous)
    rest = {name: value for name, value in data.items() if name not in ("prompt_ids", "extends")}
    rest["response_ids"] = tuple(rest["response_ids"])
    rest["log_probs"] = None if rest["log_probs"] is None else tuple(rest["log_probs"])
    return Step(prompt_ids=prompt_ids, **rest)
