"""An expert that errs at random: a policy of any strength, without a model, whose probabilities are known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from steppo_gym.actions import format_listed
from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.policies import Request, Response


class NoisyExpert:
    """Writes what the expert writes, but for a share of its responses: those are drawn from the admissible actions.

    Each response is drawn from its request's stream alone, so it is the same whatever else is played beside it.

    Args:
        codec: the rollout's codec.
        noise: the share, 0 to 1. A drawn action may happen to be the expert's.
        seed: of the draws.
        tools: the environment's.

    Raises:
        ValueError: `noise` is no share.
    """

    needs_expert = True

    def __init__(self, codec: Codec, noise: float, *, seed: int = 0, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        if not 0 <= noise <= 1:
            raise ValueError(f"noise must be between 0 and 1, got {noise}.")
        self.codec, self.noise, self.seed, self.tools = codec, noise, seed, tuple(tools)

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """A response for each request; the log-probability of all of it stands at its first token.

        Raises:
            ValueError: a request carries no response of the expert, or no admissible actions where one is needed.
        """
        return [self._respond(request) for request in requests]

    def _respond(self, request: Request) -> Response:
        if request.expert_response is None or request.stream is None:
            raise ValueError(f"The request of slot {request.slot} carries no expert_response or no stream.")
        if self.noise and not request.admissible_actions:
            raise ValueError("NoisyExpert needs an environment that lists its admissible actions; this one lists none.")
        written = [format_listed(action, self.tools) for action in request.admissible_actions or ()]
        rng = np.random.default_rng([self.seed, *request.stream])
        errs, drawn = rng.random(2)  # two at once, so that a shared stream errs at the same place everywhere
        text = written[int(drawn * len(written))] if errs < self.noise else request.expert_response
        chance = (1 - self.noise) * (text == request.expert_response)
        chance += self.noise * written.count(text) / max(len(written), 1)
        ids = self.codec.encode_response(text)
        return Response(ids, (math.log(chance), *(0.0 for _ in ids[1:])))
