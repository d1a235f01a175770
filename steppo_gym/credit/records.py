"""What a credit rule reads and what it returns.

All rules read the same `Records` and return the same `Credit`. Algorithms differ in the unit of a decision (a step or a
token), in whether there is a critic, and in the formula. The rules themselves are in `trainers/rules.py`; one of your
own is a class in a file of yours (`docs/own_credit_rule.md`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.modulation import step_entropies
from steppo_gym.credit.ragged import Array, sum_per_episode
from steppo_gym.errors import SteppoGymError
from steppo_gym.rollouts.episode import Episode

Unit = Literal["step", "token"]

NO_CREDIT = 1e-9
"""What rounding may leave where there is no credit: where all returns of a group are equal, for example."""


@dataclass(frozen=True)
class Records:
    """The episodes of this process in one iteration: E episodes, N steps, M response tokens.

    In a loop of your own: `GiGPO()(Records(episodes)).advantages`, or with a critic's values
    `StepPO()(Records(episodes, values))`. docs/own_credit_rule.md lists what a rule reads here.

    Raises:
        ValueError: an episode failed.
    """

    episodes: Sequence[Episode]
    """Terminated or truncated: `[episode for episode in rollout.episodes if episode.ended != "failed"]`."""
    values: Array = field(default_factory=lambda: np.zeros(0))
    """What a rule with a critic asks for: one for each step (N) or each response token (M), then one for each episode's
    final state, 0 if it terminated. Empty for rules without a critic.
    """
    token_rewards: Array | None = None
    """(M,) to be added to the rewards of tokens: the KL penalty, where it is part of the reward."""
    log_probs: Array | None = None
    """(M,) of the response tokens under the policy before the updates; None: as the steps have them, which are the
    sampler's own. The two differ where older weights or another engine sampled."""
    forked_at: Sequence[int] = ()
    """(E,) for each episode the number (0 to N - 1) of the step that its first step is an alternative to, -1 if it is
    from the task's start. Empty if all are.
    """
    continuations: Sequence[tuple[int, Episode]] = ()
    """Further episodes that are not trained, and the number of the step from whose state each was played."""
    end_token: int | None = None
    """What ends a message: sampled with its response, or put in front of the next observation where a response was cut.
    Observations are equal in both cases if it is known; `codec.encode_response("")[-1]`."""

    def __post_init__(self) -> None:
        # Read more than once, which an iterator such as that of `read_episodes` cannot be.
        object.__setattr__(self, "episodes", tuple(self.episodes))
        for name in ("values", "token_rewards", "log_probs"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, _fixed(given))
        for number, episode in enumerate(self.episodes):
            if episode.ended == "failed":
                raise ValueError(f"Episode {number} failed; leave failed episodes out.")

    @cached_property
    def steps_per_episode(self) -> list[int]:
        """Lengths (E,)."""
        return [episode.num_steps for episode in self.episodes]

    @cached_property
    def tokens_per_step(self) -> list[int]:
        """Lengths (N,)."""
        return [len(step.response_ids) for episode in self.episodes for step in episode.steps]

    @cached_property
    def environment_rewards(self) -> Array:
        """(N,) as the environment gave them."""
        return _fixed(np.array([step.reward for episode in self.episodes for step in episode.steps], np.float64))

    @cached_property
    def rewards(self) -> Array:
        """(N,) rewards of whole steps, what is added to their tokens included."""
        if self.token_rewards is None:
            return self.environment_rewards
        added = sum_per_episode(self.token_rewards, np.array(self.tokens_per_step, np.int64))
        return _fixed(self.environment_rewards + added)

    @cached_property
    def returns(self) -> Array:
        """(E,) undiscounted sums of `rewards`."""
        return _fixed(sum_per_episode(self.rewards, np.array(self.steps_per_episode, np.int64)))

    @cached_property
    def group_ids(self) -> list[int]:
        """The group of each episode (E,)."""
        return [episode.group for episode in self.episodes]

    @cached_property
    def state_keys(self) -> list[str]:
        """(N,) equal exactly for equal hidden states."""
        return [step.state_key for episode in self.episodes for step in episode.steps]

    @cached_property
    def observation_keys(self) -> list[tuple[int, ...]]:
        """(N,) the tokens that the environment added to the prompt before each step.

        In the append context that is the observation; in the rebuilt context the whole prompt, history included.
        """
        keys: list[tuple[int, ...]] = []
        for episode in self.episodes:
            before: tuple[int, ...] = ()
            for step in episode.steps:
                keys.append(self._what_is_new(step.prompt_ids, before))
                before = step.prompt_ids + step.response_ids
        return keys

    def _what_is_new(self, prompt_ids: tuple[int, ...], before: tuple[int, ...]) -> tuple[int, ...]:
        if not before or prompt_ids[: len(before)] != before:
            return prompt_ids
        new = prompt_ids[len(before) :]
        return new[1:] if self.end_token is not None and new[:1] == (self.end_token,) else new

    @cached_property
    def succeeded(self) -> list[bool]:
        """Whether each episode reached what its task asks for (E,)."""
        return [episode.success for episode in self.episodes]

    @cached_property
    def final_state_keys(self) -> list[str | None]:
        """(E,) keys of the states that episodes were cut off in; None for one that ended by its task's own rules."""
        return [e.final_state_key if e.ended == "truncated" else None for e in self.episodes]

    @cached_property
    def final_observation_keys(self) -> list[tuple[int, ...] | None]:
        """(E,) the same by observations."""
        keys: list[tuple[int, ...] | None] = []
        ends = np.cumsum(self.steps_per_episode)
        for episode, end in zip(self.episodes, ends.tolist(), strict=True):
            last = episode.steps[-1] if episode.steps else None
            before = () if last is None else last.prompt_ids + last.response_ids
            if episode.timed_out and last is not None:
                # Its final prompt is the last one that there was, answered already.
                keys.append(self.observation_keys[end - 1])
            elif episode.final_prompt_ids is not None:
                keys.append(self._what_is_new(episode.final_prompt_ids, before))
            else:
                keys.append(None)
        return keys

    @cached_property
    def entropies(self) -> Array:
        """(N,) the mean over each response's tokens of -log p, an estimate of their mean entropy.

        Raises:
            ValueError: neither `log_probs` nor the steps have log-probabilities.
        """
        log_probs = self.log_probs
        if log_probs is None:
            steps = [step for episode in self.episodes for step in episode.steps]
            if any(step.log_probs is None for step in steps):
                raise ValueError(
                    "The entropies of steps are needed, and the policy does not say the log-probabilities of what it "
                    "samples. Use a policy that does."
                )
            log_probs = np.array([x for step in steps for x in step.log_probs or ()], np.float64)
        return _fixed(step_entropies(log_probs, tokens_per_step=self.tokens_per_step))

    def split_values(self, number: int) -> tuple[Array, Array]:
        """Values of the `number` decisions, (number,), and those of the final states, (E,).

        Raises:
            ValueError: there are more or fewer values.
        """
        if len(self.values) != number + len(self.episodes):
            raise ValueError(
                f"values must have one entry for each of the {number} decisions and then one for the final state of "
                f"each of the {len(self.episodes)} episodes, got {len(self.values)}."
            )
        return self.values[:number], self.values[number:]


@dataclass(frozen=True)
class Credit:
    """What a rule returns of its decisions, numbered as in `steppo_gym.credit.rows`."""

    unit: Unit
    """Whether decisions are steps (N) or response tokens (M)."""
    advantages: Array
    """(N,) or (M,) as the formula gives them."""
    values: Array | None = None
    """The critic's values before the update; None for rules without a critic."""
    returns: Array | None = None
    """The critic's targets."""
    state_group_sizes: npt.NDArray[np.int64] | None = None
    """(N,) how many steps each step was compared with, itself included, in rules that compare equal states."""
    whiten: bool = False
    """Whether the trainer brings the advantages to mean 0 and standard deviation 1, over the decisions of the iteration
    in all processes, before they enter the loss.
    """

    def __post_init__(self) -> None:
        # Rules of one's own may give lists or tensors, or arrays of the records, which cannot be written to.
        for name in ("advantages", "values", "returns"):
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(given, np.float64).copy())

    def of_tokens(self, tokens_per_step: Sequence[int]) -> Array:
        """(M,) the advantage of each response token."""
        return self.advantages if self.unit == "token" else np.repeat(self.advantages, tokens_per_step)


@dataclass(frozen=True)
class CreditRule(ABC):
    """How an algorithm assigns credit: its settings, as fields of a frozen dataclass, and its formula, as a call.

    The fields are the flags that the algorithm's script has beside those of every run. A value that is wrong is refused
    in `__post_init__` with a ValueError that says why.
    """

    critic: ClassVar[Unit | None] = None
    """Where it needs the critic's values: before each step, before each token, or nowhere."""
    needs_groups: ClassVar[bool] = False
    """Whether it compares the episodes of a task with each other, so that groups of one are refused."""
    defaults: ClassVar[Mapping[str, Any]] = {}
    """What it changes in the defaults of the settings that all rules share (`num_generations`, `ratio`, ...)."""

    trains_branches: ClassVar[bool] = False
    """Whether the episodes it asks for in `branches` are trained like the others (`Records.forked_at`), or are there to
    be looked at (`Records.continuations`).
    """

    @classmethod
    def title(cls) -> str:
        """Its name in help, summaries and tables."""
        return cls.__name__

    def branches(self, records: Records) -> Sequence[int]:
        """Steps from whose states further episodes are to be played before credit is assigned.

        Args:
            records: without values.

        Returns:
            Numbers of steps (0 to N - 1) in order, each as often as episodes are wanted from it. None by default.
        """
        return ()

    @abstractmethod
    def __call__(self, records: Records) -> Credit:
        """Assign credit to all decisions of this process."""


def check_credit(credit: Credit, records: Records, critic: Unit | None) -> None:
    """Check that what a rule returned fits the records it read.

    Args:
        credit: what it returned.
        records: what it read.
        critic: the unit of its critic, None without one.

    Raises:
        SteppoGymError: it does not fit; the message names what is wrong.
    """
    if not isinstance(credit, Credit) or credit.unit not in get_args(Unit):
        raise SteppoGymError(f'A credit rule must return Credit("step" or "token", ...), got {str(credit)[:80]}.')
    if critic is not None and (credit.unit != critic or credit.values is None or credit.returns is None):
        raise SteppoGymError(
            f"A credit rule with a critic of {critic}s must give each {critic} an advantage, a value and a return."
        )
    lengths = {"step": len(records.environment_rewards), "token": sum(records.tokens_per_step)}
    for name in ("advantages", "values", "returns", "state_group_sizes"):
        unit = "step" if name == "state_group_sizes" else credit.unit
        numbers: Any = getattr(credit, name)
        found, wanted = np.shape(numbers), (lengths[unit],)
        if numbers is not None and found != wanted:
            raise SteppoGymError(
                f"A credit rule must give one number for each {unit}: its {name} must have shape {wanted}, got {found}."
            )


def _fixed(numbers: npt.ArrayLike) -> Array:
    """The same numbers, not to be written to: what one who reads them changed would reach all the others."""
    fixed = np.asarray(numbers).view()
    fixed.flags.writeable = False
    return fixed


def has_credit(advantages: Array) -> npt.NDArray[np.bool_]:
    """Whether each decision has credit at all, of the same shape."""
    return np.abs(advantages) > NO_CREDIT


def explained_variance(values: Array, returns: Array) -> float:
    """1 - Var(returns - values) / Var(returns): 1 if perfect, 0 for a constant, NaN if all returns are equal."""
    variance = float(np.var(returns))
    return 1.0 - float(np.var(returns - values)) / variance if variance > 1e-12 else float("nan")
