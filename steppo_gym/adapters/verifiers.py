"""The environments as a task set of Prime Intellect's verifiers (its `v1` interface), for its evaluations and prime-rl.

verifiers finds a task set by the name of a module, without dots; `examples/adapters/steppo_taskset.py` is one,
four lines long, and the environment is an argument:

    vf-eval steppo_taskset --env.taskset.env-id steppo/KeyDoor-v0 --model my-model

The environment plays the user: the first observation is the task's prompt, each reply of the model is one step, and the
next observation is the next message. What an episode was is in the trace: the sum of rewards as its reward, and under
`info["episode"]` the reward of each step, the ending and the state keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import verifiers.v1 as vf  # pyright: ignore[reportMissingImports]

from steppo_gym.adapters.conversation import conversation_arguments, make_conversation


class TextTasksetConfig(vf.TasksetConfig):
    """Which environment, and which of its tasks."""

    env_id: str
    """For example "steppo/KeyDoor-v0"."""
    env_arguments: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    """Of `gymnasium.make`. The conversation grows, so the context is "append"."""
    task_ids: list[str] | None = None
    """All of the split if None."""
    seed: int = 0
    """Of the first task; it grows by one a task."""


class TextTaskData(vf.TaskData):
    """One task as it travels between processes."""

    env_id: str
    env_arguments: dict[str, Any]
    seed: int


class TextTask(vf.Task[TextTaskData]):
    """One task; its id is the environment's own."""


class TextTaskset(vf.Taskset[TextTask, TextTasksetConfig]):
    """All tasks of an environment's split, in its fixed order."""

    def load(self) -> Iterator[TextTask]:
        """The tasks, each with its first observation as the prompt.

        Raises:
            ValueError: `env_arguments` rebuild the prompts.
        """
        config = self.config
        arguments = conversation_arguments(config.env_arguments)
        env = make_conversation(config.env_id, arguments)
        try:
            for i, task_id in enumerate(env.task_ids if config.task_ids is None else config.task_ids):
                observation, _ = env.reset(seed=config.seed + i, options={"task_id": task_id})
                yield TextTask(
                    TextTaskData(
                        id=task_id,
                        name=task_id,
                        prompt=observation,
                        system_prompt=env.system_prompt,
                        env_id=config.env_id,
                        env_arguments=arguments,
                        seed=config.seed + i,
                    ),
                    config.task,
                )
        finally:
            env.close()


class TextTaskEnvConfig(vf.EnvConfig):
    """Who plays: a chat loop without tools of its own, in this process's machine, unless told otherwise."""

    player: vf.AgentConfig = vf.AgentConfig.model_validate(
        {"harness": {"id": "null"}, "runtime": {"type": "subprocess"}}
    )


class TextTaskEnv(vf.Env[TextTaskEnvConfig]):
    """Plays an episode: every reply is a step."""

    async def run(self, task: TextTask, agents: Any) -> None:
        """One episode, to its end or to a limit of verifiers' own.

        Raises:
            InfrastructureError: something broke. The episode fails for verifiers as well, which can try it again.
        """
        data = task.data
        env = await asyncio.to_thread(make_conversation, data.env_id, data.env_arguments)
        episode: dict[str, Any] = {"rewards": [], "state_keys": [], "ending": "stopped", "invalid": 0}
        try:
            observation, info = await asyncio.to_thread(env.reset, seed=data.seed, options={"task_id": data.id})
            async with agents.player.interaction(task) as interaction:
                segment = await interaction.turn()
                while not segment.terminated:
                    episode["state_keys"].append(info["state_key"])
                    step = await asyncio.to_thread(env.step, segment.last_reply)
                    observation, reward, terminated, truncated, info = step
                    episode["rewards"].append(reward)
                    episode["invalid"] += info["invalid_action"] is not None
                    if terminated or truncated:
                        episode["ending"] = "terminated" if terminated else "truncated"
                        break
                    segment = await interaction.turn(observation)
        finally:
            await asyncio.to_thread(env.close)
        trace = interaction.trace
        if trace.errors:
            # The model's server or the agent's program failed: verifiers' own failure, and nothing is earned by it.
            return
        trace.info["episode"] = episode | {"final_state_key": info["state_key"], "last_observation": observation}
        trace.record_reward("return", sum(episode["rewards"]))
        trace.record_metric("success", float(info["success"]))
        for name, value in info["metrics"].items():
            trace.record_metric(f"env_{name}", float(value))
