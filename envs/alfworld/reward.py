"""Reward and rules of the published ways to run ALFWorld.

- "steppo": `recipe/alfworld` of the official StepPO code: 20 steps, 1 for reaching the goal and 0 otherwise, no
  penalty; the two last (observation, action) pairs in the prompt, as in its later version.
- "verl-agent": the recipe of GiGPO (arXiv:2505.10978) and the papers that compare with it: 50 steps, 10 for reaching
  the goal, -0.1 for an invalid action, two pairs of history.

Scores under the two are not comparable: 50 steps allow what 20 do not.
"""

from __future__ import annotations

from steppo_gym.protocol import EnvProtocol

PROTOCOLS = {
    "steppo": EnvProtocol(max_steps=20, success_reward=1.0, invalid_action_reward=0.0, history_length=2),
    "verl-agent": EnvProtocol(max_steps=50, success_reward=10.0, invalid_action_reward=-0.1, history_length=2),
}


def step_reward(protocol: EnvProtocol, *, won: bool, invalid: bool) -> float:
    """Reward of one step, which may have reached the goal, or hold no valid action."""
    return protocol.success_reward * won + protocol.invalid_action_reward * invalid
