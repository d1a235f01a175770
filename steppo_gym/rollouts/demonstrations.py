"""Episodes written by an environment's expert, for warm starts.

    messages = MessageCodec()
    episodes = demonstrate(EnvFactory("steppo/KeyDoor-v0"), task_ids, messages, seed=0)
    observation, response = messages.text(episodes[0].steps[0].prompt_ids[-1]), episodes[0].steps[0].response

They are played as all episodes are, by a policy in a pool. The tokenizer is trained on their texts, so there is none
yet when they are played: the tokens of `MessageCodec` are whole messages. A warm start encodes the texts once more when
it has the tokenizer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.env_host import EnvFactory
from steppo_gym.rollouts.episode import Episode
from steppo_gym.rollouts.open_episode import Assignment
from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.pool import EnvPool
from steppo_gym.rollouts.rollout import collect

_NUM_SLOTS = 16


class MessageCodec:
    """Every message is one token: each text is kept once, and a prompt is the list of its messages."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []

    def text(self, token_id: int) -> str:
        """The message that a token stands for."""
        return self._texts[token_id]

    def first_prompt(self, system_prompt: str, tools: Sequence[dict[str, Any]], observation: str) -> tuple[int, ...]:
        """System prompt and observation; tools are not shown."""
        del tools
        return self._id(system_prompt), self._id(observation)

    def next_prompt(self, context: tuple[int, ...], observation: str) -> tuple[int, ...]:
        """The conversation and the observation."""
        return (*context, self._id(observation))

    def encode_response(self, text: str) -> tuple[int, ...]:
        """One token."""
        return (self._id(text),)

    def decode_response(self, token_ids: Sequence[int]) -> str:
        """The message, or several one after the other."""
        return "".join(map(self.text, token_ids))

    def _id(self, text: str) -> int:
        if text not in self._ids:
            self._ids[text] = len(self._texts)
            self._texts.append(text)
        return self._ids[text]


class CorruptedExpert:
    """Writes what the environment's expert writes, but corrupts a share of it, as a weak policy might have written it.

    What the expert does after an error shows how to go on; a policy that has never seen one is lost after its first.

    Args:
        codec: the rollout's codec.
        corruption_rate: share of the responses that are corrupted, and marked as slips.

    Raises:
        ValueError: a rate outside of [0, 1).
    """

    needs_expert = True

    def __init__(self, codec: Codec, corruption_rate: float = 0.0) -> None:
        if not 0 <= corruption_rate < 1:
            raise ValueError(f"corruption_rate must be at least 0 and below 1, got {corruption_rate}.")
        self.codec, self.corruption_rate = codec, corruption_rate
        self._draws: dict[int, random.Random] = {}

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """A response for each request; what is corrupted depends on the seed of the episode and on nothing else."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Request) -> Response:
        if request.expert_response is None:
            raise ValueError(f"The request of slot {request.slot} carries no expert_response.")
        if request.step == 0:
            self._draws[request.slot] = random.Random(request.seed)
        draws = self._draws[request.slot]
        text, slip = request.expert_response, request.expert_slip
        if draws.random() < self.corruption_rate:
            text, slip = _corrupted(text, draws), True
        return Response(self.codec.encode_response(text), slip=slip)


def demonstrate(
    factory: EnvFactory,
    task_ids: Sequence[str],
    codec: Codec,
    *,
    seed: int,
    num_workers: int = 0,
    corruption_rate: float = 0.0,
    on_episode: Callable[[Episode], object] | None = None,
) -> list[Episode]:
    """Play one episode per task with the expert.

    An episode that was lost with its worker is played again, once: it follows from its task and seed, so it is the one
    that there would have been. What is lost twice, or failed for another reason, stays a failed episode.

    Args:
        factory: the environment.
        task_ids: one episode each; the i-th is reset with a seed derived from `seed` and i.
        codec: makes the prompts.
        seed: equal seeds give equal demonstrations, whatever `num_workers`.
        num_workers: processes; 0 plays in this one.
        corruption_rate: see `CorruptedExpert`.
        on_episode: called with each episode when it ends; twice for one that is played again.

    Returns:
        The episodes in the order of the tasks, failed ones included.

    Raises:
        ValueError: a rate outside of [0, 1).
        InfrastructureError: the environments or a worker kept failing.
    """
    assignments = [Assignment(task_id, seed * 1_000_003 + number) for number, task_id in enumerate(task_ids)]
    num_slots = max(1, min(_NUM_SLOTS, len(assignments)))
    with EnvPool(factory, num_slots=num_slots, num_workers=num_workers) as pool:

        def play(assignments: Sequence[Assignment]) -> tuple[Episode, ...]:
            return collect(
                CorruptedExpert(codec, corruption_rate), pool, codec, assignments, on_episode=on_episode
            ).episodes

        episodes = list(play(assignments))
        lost = [i for i, episode in enumerate(episodes) if episode.failure and episode.failure.boundary == "worker"]
        for i, episode in zip(lost, play([assignments[i] for i in lost]), strict=True):
            episodes[i] = episode
    return episodes


def _corrupted(response: str, draws: random.Random) -> str:
    """As a weak policy might write it: cut off somewhere, or without one of its words."""
    words = list(re.finditer(r"\w+", response))
    if not words or draws.random() < 0.5:
        return response[: draws.randrange(max(len(response), 1))]
    word = draws.choice(words)
    return response[: word.start()] + response[word.end() :]
