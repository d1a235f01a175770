"""Exact values of a fixed policy over the possible actions, by dynamic programming.

>>> def likes_the_note(task, state):
...     actions = possible_actions(task, state)
...     return {action: 1.0 / len(actions) for action in actions}
>>> values = ExactValues(generate_task("train-0"), likes_the_note)
>>> values.advantage(first_state(values.task), ReadNote(), steps_left=10)

The state of the game and the number of steps left decide everything that follows, so a value is a sum over the actions
of what the policy does with which probability. It is what estimates from played episodes are tested against.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from steppo_gym.envs.key_door.actions import Action
from steppo_gym.envs.key_door.game import State, apply_action, expert_action, possible_actions
from steppo_gym.envs.key_door.generate import Task

ActionProbabilities = Callable[[Task, State], Mapping[Action, float]]


class ExactValues:
    """Values of one task.

    Args:
        task: the game, without a way to the hall.
        policy: the probability of each action in a state that is not over; they sum to 1.
        gamma: discount per step.
        success_reward: of the step that opens the right door.
    """

    def __init__(
        self, task: Task, policy: ActionProbabilities, *, gamma: float = 1.0, success_reward: float = 1.0
    ) -> None:
        self.task, self.policy, self.gamma, self.success_reward = task, policy, gamma, success_reward
        self._known: dict[tuple[State, int], float] = {}

    def value(self, state: State, steps_left: int) -> float:
        """V(s): what is expected to be earned from here on, 0 where the game is over or no step is left."""
        if state.outcome != "playing" or steps_left < 1:
            return 0.0
        key = (state, steps_left)
        if key not in self._known:
            chances = self.policy(self.task, state)
            self._known[key] = sum(p * self.action_value(state, a, steps_left) for a, p in chances.items() if p)
        return self._known[key]

    def action_value(self, state: State, action: Action, steps_left: int) -> float:
        """Q(s, a): the same after an action, whose own reward counts."""
        after = apply_action(self.task, state, action).state
        reward = self.success_reward if after.outcome == "opened" else 0.0
        return reward + self.gamma * self.value(after, steps_left - 1)

    def advantage(self, state: State, action: Action, steps_left: int) -> float:
        """A(s, a) = Q(s, a) - V(s)."""
        return self.action_value(state, action, steps_left) - self.value(state, steps_left)


def noisy_expert(noise: float) -> ActionProbabilities:
    """The expert, but for a share of its actions that are drawn from all possible ones, each as likely."""

    def probabilities(task: Task, state: State) -> dict[Action, float]:
        actions = possible_actions(task, state)
        chances = dict.fromkeys(actions, noise / len(actions))
        expert = expert_action(task, state)
        chances[expert] = chances.get(expert, 0.0) + 1.0 - noise
        return chances

    return probabilities
