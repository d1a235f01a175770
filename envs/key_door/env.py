"""`steppo/KeyDoor-v0`: wires rules, texts and rewards to the common base.

>>> env = gymnasium.make("steppo/KeyDoor-v0", split="validation")
>>> observation, info = env.reset(options={"task_id": "validation-7"})
>>> observation, reward, terminated, truncated, info = env.step("<action>read note</action>")
"""

from __future__ import annotations

import dataclasses
import json
import random
from typing import Any, Unpack

from steppo_gym.actions import Invalid, format_text, parse_text
from steppo_gym.env import TextEnv
from steppo_gym.envs.key_door import render
from steppo_gym.envs.key_door.actions import action_text, parse_action
from steppo_gym.envs.key_door.game import (
    State,
    apply_action,
    expert_action,
    first_state,
    hasty_action,
    possible_actions,
    require_state,
)
from steppo_gym.envs.key_door.generate import SPLIT_SIZES, Task, generate_task, task_ids
from steppo_gym.envs.key_door.passages import (
    MAX_PASSAGES,
    Passage,
    Progress,
    expert_way,
    generate_passages,
    read_way,
    require_progress,
    take_way,
    way_texts,
)
from steppo_gym.envs.key_door.reward import PROTOCOLS, metrics, step_reward
from steppo_gym.keywords import CommonArguments, check_split
from steppo_gym.protocol import named_protocol, overridden
from steppo_gym.snapshot import canonical_json, restored
from steppo_gym.transition import Transition

EXPERTS = ("expert", "hasty")
MAX_THOUGHT_WORDS = 10_000
INVALID_ACTION = "invalid"
"""How the history shows a response that was no action."""


@dataclasses.dataclass(frozen=True)
class _WithWay:
    """The task's part of a snapshot where there is a way to the hall."""

    hall: State
    way: Progress


class KeyDoorEnv(TextEnv):
    """Find the key that opens the door of the goal.

    Args:
        split: "train", "validation" or "test".
        data: must be None; the tasks are generated.
        protocol: "steppo" (reward 1) or "verl-agent" (reward 10, -0.1 for an invalid response, last two actions shown).
        decisive_steps: steps on the way to the hall at which a sign tells the right way; a wrong one is paid for at the
            end, where no key fits.
        routine_steps: steps on the way whose choice changes nothing. Both make episodes longer by as much, and raise
            the step limit unless `max_steps` is given; what else the task is stays the same.
        thought_words: words that the expert thinks before each action, for longer responses; 0 for no thought.
        common: see `TextEnv`. "expert" takes the shortest way that reads the note first, "hasty" mostly reads the note
            once more where it should take a key, a fault to be unlearnt.

    Raises:
        UnknownTaskError: no such split.
        ValueError: another argument outside its range.
    """

    def __init__(
        self,
        *,
        split: str = "train",
        data: None = None,
        protocol: str = "steppo",
        decisive_steps: int = 0,
        routine_steps: int = 0,
        thought_words: int = 0,
        **common: Unpack[CommonArguments],
    ) -> None:
        check_split(split, SPLIT_SIZES)
        if data is not None:
            raise ValueError(f"KeyDoor generates its tasks and reads no files: data must be None, got {data!r}.")
        for name, number in (("decisive_steps", decisive_steps), ("routine_steps", routine_steps)):
            _check_count(name, number, MAX_PASSAGES)
        _check_count("thought_words", thought_words, MAX_THOUGHT_WORDS)
        self.decisive_steps, self.routine_steps, self.thought_words = decisive_steps, routine_steps, thought_words
        known = named_protocol(PROTOCOLS, protocol)
        longer = overridden(known, max_steps=known.max_steps + decisive_steps + routine_steps)
        super().__init__(longer, experts=EXPERTS, **common)
        self.task_ids = task_ids(split)
        self._passages: tuple[Passage, ...] = ()
        self._progress = Progress()
        self._task: Task
        self._state: State

    @property
    def system_prompt(self) -> str:
        """The rules and how to answer."""
        return render.system_prompt(self.action_format, with_way=self._has_way)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """One tool, `action`, in the tool-call format."""
        return render.tools(self.action_format, with_way=self._has_way)

    def expert_response(self) -> str:
        """What the expert writes in the current state."""
        self._require_episode("ask the expert about")
        return render.thought(self.thought_words) + format_text(self._expert_text(), self.action_format)

    @property
    def _has_way(self) -> bool:
        return self.decisive_steps + self.routine_steps > 0

    @property
    def _passage(self) -> Passage | None:
        """Where the agent stands on the way, None in the hall."""
        passed = self._progress.passed
        return self._passages[passed] if passed < len(self._passages) else None

    def _expert_text(self) -> str:
        if self._passage is not None:
            return f"go {expert_way(self._passage)}"
        action = expert_action(self._task, self._state)
        if self.expert == "hasty":
            # From the state alone, so that a restored environment goes on with the same responses.
            action = hasty_action(self._task, self._state, random.Random(f"{self.task_id} {len(self.history)}"))
        return action_text(action)

    def task_content(self, task_id: str) -> bytes:
        """Doors, containers, keys and where they are, as JSON."""
        self.require_task(task_id)
        return canonical_json(dataclasses.asdict(generate_task(task_id)))

    def _start(self, task_id: str) -> str:
        self._begin_task(task_id)
        self._state, self._progress = first_state(self._task), Progress()
        return render.arrival(self._task, self._passage)

    def _begin_task(self, task_id: str) -> None:
        self._task = generate_task(task_id)
        self._passages = generate_passages(task_id, forks=self.decisive_steps, bends=self.routine_steps)

    def _apply(self, response: str) -> Transition:
        if self._passage is not None:
            return self._go(self._passage, response)
        action = parse_action(response, self.action_format)
        if isinstance(action, Invalid):
            feedback = render.invalid_feedback(action.reason)
            penalty = self.protocol.invalid_action_reward
            return Transition(feedback, INVALID_ACTION, penalty, invalid_action=action.reason)
        effect = apply_action(self._task, self._state, action, astray=self._progress.astray)
        self._state = effect.state
        return Transition(
            effect.feedback,
            action_text(action),
            step_reward(self._state, self.protocol),
            terminated=self._state.outcome != "playing",
            success=self._state.outcome == "opened",
        )

    def _go(self, passage: Passage, response: str) -> Transition:
        text = parse_text(response, self.action_format)
        way = None if isinstance(text, Invalid) else read_way(passage, text)
        if way is None:
            reason = text.reason if isinstance(text, Invalid) else f"Expected one of: {', '.join(way_texts(passage))}."
            penalty = self.protocol.invalid_action_reward
            return Transition(render.invalid_feedback(reason), INVALID_ACTION, penalty, invalid_action=reason)
        self._progress = take_way(passage, self._progress, way)
        return Transition(render.arrival(self._task, self._passage), f"go {way}", 0.0)

    def _observation(self, feedback: str) -> str:
        if self.context == "append":
            return feedback
        return render.rebuilt_prompt(
            self._task,
            self._state,
            done=[exchange.action for exchange in self._shown_history()],
            feedback=feedback if self.history else "",
            admissible=self._admissible_actions(),
            way=render.way_line(self._passage, self._progress) if self._has_way else None,
        )

    def _state_key(self) -> str:
        way = dataclasses.astuple(self._progress) if self._has_way else ()
        return json.dumps([self.task_id, *dataclasses.asdict(self._state).values(), *way])

    def _admissible_actions(self) -> tuple[str, ...]:
        if self._passage is not None:
            return way_texts(self._passage)
        return tuple(action_text(action) for action in possible_actions(self._task, self._state))

    def _metrics(self) -> dict[str, float]:
        return metrics(self._state)

    def _get_task_state(self) -> dict[str, Any]:
        hall = dataclasses.asdict(self._state)
        return {"hall": hall, "way": dataclasses.asdict(self._progress)} if self._has_way else hall

    def _set_task_state(self, state: object) -> None:
        self._begin_task(self.task_id)
        known = restored(state, _WithWay) if self._has_way else _WithWay(restored(state, State), Progress())
        require_state(self._task, known.hall)
        require_progress(self._passages, known.way)
        self._check_end(known.hall.outcome != "playing")
        self._state, self._progress = known.hall, known.way


def _check_count(name: str, number: object, most: int) -> None:
    """Raise a ValueError unless a number counts something and is at most `most`."""
    if type(number) is not int or not 0 <= number <= most:
        raise ValueError(f"{name} must be a number from 0 to {most}, got {number!r}.")
