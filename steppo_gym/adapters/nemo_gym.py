"""The environments as a resources server of NVIDIA's NeMo Gym, for its `gymnasium_agent`.

    from steppo_gym.adapters.nemo_gym import TextServer

    class KeyDoorServer(TextServer):
        env_id: str = "steppo/KeyDoor-v0"

    if __name__ == "__main__":
        KeyDoorServer.run_webserver()

NeMo Gym's contract is Gymnasium's: reset once, then the 5-tuple after every response. A row of its data names the task:
`{"task_id": "validation-3", "seed": 0, "responses_create_params": {"input": [{"role": "system", ...}]}}`; `rows` makes
them. In the tool-call format the calls of a response are one step, and what the environment says answers them; a
response without a call is answered by a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar

from resources_servers.gymnasium import GymnasiumServer, extract_text  # pyright: ignore[reportMissingImports]

from steppo_gym.actions import served_call
from steppo_gym.adapters.conversation import checked_tasks, make_conversation
from steppo_gym.env import TextEnv


class TextServer(GymnasiumServer):
    """One environment for each rollout, from its reset to its end."""

    env_id: ClassVar[str] = ""
    """For example "steppo/KeyDoor-v0"; a subclass sets it."""
    env_arguments: ClassVar[dict[str, Any]] = {}
    """Of `gymnasium.make`. The conversation grows, so the context is always "append"."""

    async def reset(self, metadata: dict[str, Any], session_id: str | None = None) -> tuple[str, dict[str, Any]]:
        """Start the episode of a row.

        Args:
            metadata: what the row has beside its prompt: `task_id`, and `seed` of the environment.
            session_id: of the rollout.
        """
        await self.close_session(session_id)
        env = await asyncio.to_thread(make_conversation, self.env_id, self.env_arguments)
        self.session_state[session_id] = env
        task_id = metadata.get("task_id")
        options = None if task_id is None else {"task_id": task_id}
        observation, info = await asyncio.to_thread(env.reset, seed=metadata.get("seed"), options=options)
        return observation, _shown(info)

    async def step(
        self, action: Any, metadata: dict[str, Any], session_id: str | None = None
    ) -> tuple[str | None, float, bool, bool, dict[str, Any]]:
        """Carry out one response.

        Raises:
            InfrastructureError: something broke. The server answers with status 500 and the rollout fails for the agent
                as well; no reward comes of it.
        """
        del metadata
        env: TextEnv = self.session_state[session_id]
        calls = [item for item in action.output if item.type == "function_call"]
        response = extract_text(action) + "".join(served_call(call.name, call.arguments) for call in calls)
        observation, reward, terminated, truncated, info = await asyncio.to_thread(env.step, response)
        shown = _shown(info) | {"last_observation": observation}
        if terminated or truncated:
            return None, reward, terminated, truncated, shown
        if not calls:
            return observation, reward, False, False, shown
        # Every call must have an answer; what the environment said answers all of them together.
        answers = [observation, *["Answered with the first call."] * (len(calls) - 1)]
        outputs = [{"call_id": call.call_id, "output": text} for call, text in zip(calls, answers, strict=True)]
        return None, reward, False, False, shown | {"tool_outputs": outputs}

    async def close_session(self, session_id: str | None) -> None:
        """Close the rollout's environment; a second call changes nothing."""
        env = self.session_state.pop(session_id, None)
        if env is not None:
            await asyncio.to_thread(env.close)


def rows(
    env_id: str, task_ids: Sequence[str] | None = None, *, seed: int = 0, **arguments: Any
) -> list[dict[str, Any]]:
    """NeMo Gym's data of a task: a row for each, in order; written as JSON lines.

    Args:
        env_id: for example "steppo/KeyDoor-v0".
        task_ids: all tasks of the split if None.
        seed: of the first row; it grows by one a row.
        arguments: those of the server.

    Raises:
        UnknownTaskError: a task that the split does not have.
    """
    env = make_conversation(env_id, arguments)
    try:
        params: dict[str, Any] = {"input": [{"role": "system", "content": env.system_prompt}]}
        if env.tools:
            # The Responses API has a tool's parts side by side, not under "function".
            params["tools"] = [{"type": "function", "strict": False} | tool["function"] for tool in env.tools]
        ids = checked_tasks(env, task_ids)
        return [{"task_id": name, "seed": seed + i, "responses_create_params": params} for i, name in enumerate(ids)]
    finally:
        env.close()


def _shown(info: dict[str, Any]) -> dict[str, Any]:
    actions = info["admissible_actions"]
    return info | {"admissible_actions": None if actions is None else list(actions)}
