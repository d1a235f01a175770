"""A conversation with any OpenAI-compatible chat server, its tool calls being the steps.

    from openai import OpenAI
    from steppo_gym.adapters.chat_tools import play

    episode = play(OpenAI(base_url="http://localhost:8000/v1", api_key="-"), "my-model", env, task_id="validation-3")

This is the loop that such agents are written as, to start from and to change. To evaluate a model use
`steppo-gym evaluate`, which tries again after a failure, plays many episodes at once and keeps them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from steppo_gym.env import TextEnv
from steppo_gym.evaluation.chat_codec import Message
from steppo_gym.evaluation.chat_server import chat_messages, read_answer

if TYPE_CHECKING:
    from openai import OpenAI  # pyright: ignore[reportMissingImports]


@dataclass
class ChatEpisode:
    """What was said and what it earned."""

    messages: list[Message]
    rewards: list[float] = field(default_factory=list)
    ending: str = ""
    """"terminated" or "truncated"."""
    success: bool = False


def play(
    client: OpenAI, model: str, env: TextEnv, *, task_id: str | None = None, seed: int = 0, **settings: Any
) -> ChatEpisode:
    """Play one episode.

    Args:
        client: of the `openai` package.
        model: the model's name on the server.
        env: of `gymnasium.make(..., context="append")`, unwrapped. With `action_format="tool_call"` its tools are sent.
        task_id: drawn if None.
        seed: of the environment.
        settings: of `chat.completions.create`, for example `temperature` and `max_tokens`.

    Raises:
        ValueError: the environment rebuilds its prompts, which a conversation cannot hold.
        openai.OpenAIError: the server failed. No episode comes of it, and above all no reward of 0.
    """
    if env.context != "append":
        raise ValueError(f'A conversation needs context="append", got {env.context!r}.')
    observation, info = env.reset(seed=seed, options=None if task_id is None else {"task_id": task_id})
    episode = ChatEpisode([Message("system", env.system_prompt), Message("user", observation)])
    tools = {"tools": env.tools} if env.tools else {}
    while not episode.ending:
        said = chat_messages(episode.messages, has_tools=bool(tools))
        answer = client.chat.completions.create(model=model, messages=said, **tools, **settings)  # type: ignore[arg-type]
        response = read_answer(answer.model_dump_json())
        observation, reward, terminated, truncated, info = env.step(response)
        episode.messages += [Message("assistant", response), Message("user", observation)]
        episode.rewards.append(float(reward))
        episode.ending = "terminated" if terminated else "truncated" if truncated else ""
    episode.success = bool(info["success"])
    return episode
