"""The environments in TRL's own `GRPOTrainer`, as `environment_factory`.

    from steppo_gym.adapters.trl import environment_class, rows, score

    trainer = GRPOTrainer(
        model,
        environment_factory=environment_class("steppo/KeyDoor-v0"),
        reward_funcs=[score],
        train_dataset=Dataset.from_list(rows("steppo/KeyDoor-v0")),
        args=GRPOConfig(max_tool_calling_iterations=10, ...),
    )

TRL knows tools, not steps. Each call is a step of the environment, whose observation is the tool's answer; the first
response without a call ends the conversation, and `score` plays it as the last step, because tasks are answered so. A
reward is given once, at the end: the sum over the steps. Nothing here imports TRL.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, cast

from steppo_gym.actions import format_tool_call
from steppo_gym.adapters.conversation import checked_tasks, make_conversation
from steppo_gym.env import TextEnv
from steppo_gym.errors import InfrastructureError


class ToolEnvironment:
    """One environment as TRL uses it: `reset`, and a method for each tool that `environment_class` adds.

    Attributes:
        env: the environment, for reward functions of your own; `env.num_steps`, `env.history`.
        total_reward: sum over the steps so far.
        ending: "terminated" or "truncated"; None while the episode goes on.
        failure: what broke while it was played, None if nothing did.
    """

    _env_id = ""
    _arguments: dict[str, Any] = {}  # noqa: RUF012 - set anew on each class, never changed

    def __init__(self) -> None:
        self.env = _made(self._env_id, self._arguments)
        self.total_reward, self.ending = 0.0, cast(str | None, None)
        self.failure: InfrastructureError | None = None

    def reset(self, task_id: str | None = None, seed: int | None = None, **_row: object) -> str:
        """Start the episode of a row of the data set; what it returns is put behind the row's prompt.

        Args:
            task_id: of the task; None draws one.
            seed: of the environment.
        """
        self.total_reward, self.ending, self.failure = 0.0, None, None
        options = None if task_id is None else {"task_id": task_id}
        return self.env.reset(seed=seed, options=options)[0]

    def _play(self, response: str) -> str:
        """One step.

        Raises:
            EpisodeOverError: the episode has ended; TRL shows the model what the error says.
            InfrastructureError: something broke. TRL goes on, but no score comes of it.
        """
        try:
            observation, reward, terminated, truncated, _ = self.env.step(response)
        except InfrastructureError as error:
            self.failure = error
            raise
        self.total_reward += reward
        self.ending = "terminated" if terminated else "truncated" if truncated else None
        return observation


def environment_class(env_id: str, **arguments: Any) -> type[ToolEnvironment]:
    """What `GRPOTrainer(environment_factory=..)` takes: a class whose methods are the environment's tools.

    Args:
        env_id: for example "steppo/KeyDoor-v0".
        arguments: of `gymnasium.make`; the format is always tool calls, and the prompt the conversation so far.

    Raises:
        ValueError: an argument that TRL's conversation cannot serve, or a tool with an argument that is no text.
    """
    env = _made(env_id, arguments)
    try:
        methods = {tool["function"]["name"]: _method(tool["function"]) for tool in env.tools}
    finally:
        env.close()
    attributes = {"_env_id": env_id, "_arguments": arguments, "__doc__": f"{env_id} as tools."}
    return type(type(env).__name__, (ToolEnvironment,), attributes | methods)


def rows(
    env_id: str, task_ids: Sequence[str] | None = None, *, seed: int = 0, **arguments: Any
) -> list[dict[str, Any]]:
    """The data set of a task: a row for each, in order, with the prompt, the task's id and the environment's seed.

    Args:
        env_id: as in `environment_class`.
        task_ids: all tasks of the split if None.
        seed: of the first row; it grows by one a row.
        arguments: as in `environment_class`.

    Raises:
        UnknownTaskError: a task that the split does not have.
    """
    env = _made(env_id, arguments)
    try:
        prompt = [{"role": "system", "content": env.system_prompt}, {"role": "user", "content": ""}]
        ids = checked_tasks(env, task_ids)
        return [{"prompt": prompt, "task_id": task_id, "seed": seed + i} for i, task_id in enumerate(ids)]
    finally:
        env.close()


def score(
    completions: Sequence[Sequence[dict[str, Any]]], environments: Sequence[ToolEnvironment], **_columns: object
) -> list[float]:
    """The reward function: the sum of each episode's step rewards.

    The response without a call that ended a conversation is played first, as the step that it is. An episode that TRL
    cut (`max_completion_length`, `max_tool_calling_iterations`) keeps what it earned.

    Raises:
        InfrastructureError: an episode failed. TRL has no word for that, and would train on a reward of 0.
    """
    for messages, environment in zip(completions, environments, strict=True):
        last = messages[-1] if messages else {}
        spoken = last.get("role") == "assistant" and not last.get("tool_calls")
        if environment.failure is None and environment.ending is None and spoken:
            environment._play(str(last.get("content") or ""))
        if environment.failure is not None:
            raise environment.failure
    return [environment.total_reward for environment in environments]


def _made(env_id: str, arguments: dict[str, Any]) -> TextEnv:
    return make_conversation(env_id, arguments, action_format="tool_call")


def _method(tool: dict[str, Any]) -> Callable[..., str]:
    """A method whose signature and docstring give back the tool's own JSON schema."""
    name, schema = tool["name"], tool["parameters"]
    others = [argument for argument, said in schema["properties"].items() if said.get("type") != "string"]
    if others or set(schema["properties"]) != set(schema.get("required", ())):
        raise ValueError(f"The tool {name!r} must have required arguments of texts alone, found {schema}.")

    # Whatever a model calls its arguments, "self" too, is the environment's to judge.
    def method(self: ToolEnvironment, /, **given: Any) -> str:
        return self._play(format_tool_call(name, given))

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    texts = [inspect.Parameter(a, inspect.Parameter.KEYWORD_ONLY, annotation=str) for a in schema["properties"]]
    method.__name__ = name
    method.__signature__ = inspect.Signature([itself, *texts], return_annotation=str)  # type: ignore[attr-defined]
    method.__annotations__ = dict.fromkeys(schema["properties"], str) | {"return": str}
    described = [f"    {argument}: {said['description']}" for argument, said in schema["properties"].items()]
    method.__doc__ = "\n".join(
        [tool["description"], "", "Args:", *described, "", "Returns:", "    What the environment says."]
    )
    return method
