"""An episode while it is played: from what the environment answers to prompts, steps and the finished record."""

from __future__ import annotations

from dataclasses import dataclass

from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.env_host import EnvDescription, ResetCommand, RestoreCommand
from steppo_gym.rollouts.episode import Ending, Episode, Failure, Step
from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.snapshots import Snapshot
from steppo_gym.rollouts.step_result import Result, StepResult, StepTimeout


@dataclass(frozen=True)
class Assignment:
    """An episode to play: the task and the seed of its `reset`, and the group it is compared in."""

    task_id: str
    seed: int
    group: int = 0
    start: Snapshot | None = None
    """Where the episode starts instead of at the task's beginning, at about the cost of a reset. Its record holds the
    steps from there on; the randomness of the environment is the snapshot's, and `seed` is only recorded."""

    def command(self, slot: int, needs_expert: bool) -> ResetCommand | RestoreCommand:
        """What the environment of a slot has to do first."""
        if self.start is None:
            return ResetCommand(slot, self.task_id, self.seed, needs_expert)
        return RestoreCommand(slot, self.start.state, self.start.result, needs_expert)


@dataclass(frozen=True)
class PromptRules:
    """How the observations of one environment become prompts."""

    codec: Codec
    environment: EnvDescription
    max_tokens: int | None

    def first(self, observation: str) -> tuple[int, ...]:
        """The prompt of a first observation, and of every one in the "rebuilt" context."""
        return self.codec.first_prompt(self.environment.system_prompt, self.environment.tools, observation)

    def next(self, conversation: tuple[int, ...], observation: str) -> tuple[int, ...]:
        """The prompt of a later observation; `conversation` is the prompt before it and the ids that were sampled."""
        if self.environment.context == "rebuilt":
            return self.first(observation)
        return self.codec.next_prompt(conversation, observation)

    def is_too_long(self, prompt_ids: tuple[int, ...]) -> bool:
        """Whether a prompt is over the limit."""
        return self.max_tokens is not None and len(prompt_ids) > self.max_tokens


class OpenEpisode:
    """The episode of one slot, from its assignment to its record.

    Args:
        assignment: what is played.
        rules: how prompts are made.
    """

    def __init__(self, assignment: Assignment, rules: PromptRules) -> None:
        self.assignment = assignment
        self._rules = rules
        self._state: StepResult | None = None
        self._prompt_ids: tuple[int, ...] = ()
        self._response = Response(())
        self._text = ""
        self._generation_seconds = 0.0
        self._steps: list[Step] = []
        self._actions: dict[str, str] = {}

    @property
    def has_begun(self) -> bool:
        """Whether there was a first prompt."""
        return self._state is not None

    def request(self, slot: int, number: int) -> Request:
        """What the policy is asked now; `number` is that of the assignment."""
        assert self._state is not None
        return Request(
            slot=slot,
            prompt_ids=self._prompt_ids,
            admissible_actions=self._state.admissible_actions,
            expert_response=self._state.expert_response,
            expert_slip=self._state.expert_slip,
            seed=self.assignment.seed,
            stream=(number, len(self._steps)),
        )

    def respond(self, response: Response, seconds: float) -> str:
        """Take the policy's response, and its share of the generation call; return its text for the environment."""
        self._response, self._generation_seconds = response, seconds
        self._text = self._rules.codec.decode_response(response.token_ids)
        return self._text

    def receive(self, result: Result) -> Episode | None:
        """Take what the environment answered to the reset or the response.

        Returns:
            The record if the episode is over now.
        """
        if isinstance(result, Failure):
            return self.fail(result)
        if isinstance(result, StepTimeout):
            return self._run_out(result)
        if self._state is None:
            return self._begin(result)
        self._steps.append(self._step(self._state, result.reward, result.invalid_action, result.seconds))
        self._state = result
        if result.terminated:
            return self._record("terminated", result)
        conversation = self._prompt_ids + self._response.token_ids
        self._prompt_ids = self._rules.next(conversation, result.observation)
        if result.truncated or self._rules.is_too_long(self._prompt_ids):
            return self._record("truncated", result, final_prompt_ids=self._prompt_ids)
        return None

    def fail(self, failure: Failure) -> Episode:
        """The record of an episode that something broke; it keeps the steps made so far."""
        return self._record("failed", None, failure=failure)

    def _run_out(self, timeout: StepTimeout) -> Episode:
        """The record of an episode whose last response the environment did not finish with in time.

        A response can bring that about, so it must not be a way out: it counts as invalid for all the steps that were
        left, is truncated in the last state that is known, and is trained on. docs/endings.md has the reasons.
        """
        assert self._state is not None
        start = self.assignment.start
        num_steps = len(self._steps) + (0 if start is None else start.num_steps)
        reward = self._rules.environment.invalid_action_reward * max(self._rules.environment.max_steps - num_steps, 1)
        self._steps.append(self._step(self._state, reward, timeout.message, 0.0))
        return self._record("truncated", self._state, final_prompt_ids=self._prompt_ids, timed_out=True)

    def _begin(self, state: StepResult) -> Episode | None:
        start = self.assignment.start
        prompt_ids = self._rules.first(state.observation) if start is None else start.prompt_ids
        if self._rules.is_too_long(prompt_ids):
            message = (
                f"The first prompt has {len(prompt_ids)} tokens and max_prompt_tokens is {self._rules.max_tokens}. "
                "Raise max_prompt_tokens or shorten the observations."
            )
            return self.fail(Failure("prompt", message))
        self._state, self._prompt_ids = state, prompt_ids
        return None

    def _step(self, state: StepResult, reward: float, invalid_action: str | None, seconds: float) -> Step:
        """The step that the last response makes of the state it was given in."""
        return Step(
            prompt_ids=self._prompt_ids,
            response_ids=self._response.token_ids,
            log_probs=self._response.log_probs,
            response=self._text,
            reward=reward,
            state_key=state.state_key,
            invalid_action=invalid_action,
            generation_seconds=self._generation_seconds,
            environment_seconds=seconds,
            slip=self._response.slip,
            version=self._response.version,
            admissible_actions=self._kept(state.admissible_actions),
        )

    def _kept(self, actions: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """The same actions, each in memory once however many states list it."""
        return None if actions is None else tuple(self._actions.setdefault(action, action) for action in actions)

    def _record(
        self,
        ended: Ending,
        last: StepResult | None,
        *,
        final_prompt_ids: tuple[int, ...] | None = None,
        timed_out: bool = False,
        failure: Failure | None = None,
    ) -> Episode:
        return Episode(
            task_id=self.assignment.task_id,
            steps=tuple(self._steps),
            ended=ended,
            final_prompt_ids=final_prompt_ids,
            timed_out=timed_out,
            success=last is not None and last.success,
            metrics={} if last is None else last.metrics,
            failure=failure,
            seed=self.assignment.seed,
            group=self.assignment.group,
            final_state_key=None if last is None else last.state_key,
        )
