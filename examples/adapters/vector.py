"""Several episodes at once with nothing but Gymnasium: `python examples/adapters/vector.py`.

`make_vec` steps all environments together and begins the next episode of one that has ended at the next step
(`AutoresetMode.NEXT_STEP`): the action of that step is not used, its reward is 0. For a rollout that waits for nobody
use `steppo_gym.rollouts.rollout.collect`.
"""

from typing import Any

import gymnasium
import numpy as np

import steppo_gym  # noqa: F401 - registers the environments


def main(num_envs: int = 4, steps: int = 12) -> None:
    """Play some steps of the expert."""
    # The type that `make_vec` names is that of all vector environments.
    envs: Any = gymnasium.make_vec("steppo/KeyDoor-v0", num_envs=num_envs, vectorization_mode="sync", context="append")
    envs.reset(seed=[10 * number for number in range(num_envs)])
    returns, over = np.zeros(num_envs), np.zeros(num_envs, bool)
    for _ in range(steps):
        # What your model writes. An environment that begins anew reads nothing.
        experts = (env.unwrapped for env in envs.envs)
        responses = ["" if done else env.expert_response() for env, done in zip(experts, over, strict=True)]
        _, rewards, terminated, truncated, info = envs.step(responses)
        returns += rewards
        over = terminated | truncated
        for number in np.flatnonzero(over):
            print(f"{info['task_id'][number]}: return {returns[number]:g}, success {bool(info['success'][number])}")
            returns[number] = 0.0
    envs.close()


if __name__ == "__main__":
    main()
