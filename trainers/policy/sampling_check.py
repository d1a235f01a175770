"""Whether what samples is what is trained: log-probabilities of sampled tokens against those of a training forward.

Sampling keeps keys from step to step, reads rows of unequal length side by side and moves them; training runs whole
rows at once and applies the output embedding by itself. A family for which one of the two is not the model (a scale of
the logits that is left out, a mask that is not understood) would be trained on ratios between two distributions, and
nothing else would show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from steppo_gym.credit.rows import ABSENT, Row, build_rows, token_budget_batches
from steppo_gym.errors import SamplingGapError
from steppo_gym.rollouts.codec import Codec
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.rollouts.policies import Policy, Request
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.policy.model_limits import OTHERWISE
from steppo_gym.trainers.reading import in_one_line

Array = npt.NDArray[np.float64]

BOUND = 1e-4
"""Mean absolute difference of log-probabilities, in nats, above which a run stops. Float32 brings about 1e-6."""

LOW_PRECISION_BOUND = 0.05
"""The same where sampling or training computes in bfloat16 or float16, which bring about 0.01."""

GAP_TOKENS = 2048
"""Of an iteration's rows that are compared: enough for a mean, few beside an update."""

PROBE_TOKENS = 64
"""Of a response of the first check at the most, which delays every start; `rows_gap` sees longer ones."""

_FOR_MODELS = (
    "Look at what the model's forward does to its logits, at its mask, at its cache and at noise in its layers; try "
    "--attn_implementation eager, or sample with --use_vllm."
)
_FOR_SERVERS = (
    "Look whether every server was started from --policy_servers_folder, loads all of its weights anew and reports "
    "processed log-probabilities (docs/scaling.md); or choose an --off_policy_correction."
)
_SAID = ("You are in a room.", "There is a door to the north, and a key on the floor.", "It is locked. What next?")


def sampling_gap(sampled: Array, trained: Array) -> float:
    """Mean absolute difference of two (M,) log-probabilities of the same tokens, in nats; 0.0 of none."""
    return float(np.abs(sampled - trained).mean()) if len(sampled) else 0.0


def check_sampling(
    policy: ModelPolicy, codec: Codec, train_log_probs: Callable[[Sequence[Row], int], Array], *, low_precision: bool
) -> None:
    """Sample a few short conversations, see `try_sampling`, and compare them with a training forward.

    Args:
        policy: samples `PROBE_TOKENS` at the most; has three slots at least and gives log-probabilities.
        codec: of the policy.
        train_log_probs: from rows and the number M of their response tokens to (M,) log-probabilities.
        low_precision: whether either side computes in 16 bits.

    Raises:
        SamplingGapError: the gap, see `sampling_gap`, is above the bound.
        ValueError: see `try_sampling`.
    """
    episodes = try_sampling(policy, codec)
    steps = [step for episode in episodes for step in episode.steps]
    sampled = np.array([log_prob for step in steps for log_prob in step.log_probs or ()])
    gap = sampling_gap(sampled, train_log_probs(build_rows(episodes), len(sampled)))
    check_gap(gap, low_precision=low_precision)


def try_sampling(policy: ModelPolicy, codec: Codec) -> list[Episode]:
    """Sample a few short conversations; a policy that did this is not the one to go on with.

    One slot goes on, one starts over and one rests, so that rows of unequal length stand side by side and move. The
    policy has three slots at least.

    Raises:
        ValueError: the model raises something when it is sampled from; one line that names its family.
    """
    try:
        return _conversations(policy, codec)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # A family that takes the arguments and does something else with them.
        name = type(policy.model).__name__
        raise ValueError(f"Sampling from {name} fails: {in_one_line(error).rstrip('.')}. {OTHERWISE}") from error


def rows_gap(
    sampled: Array | None,
    rows: Sequence[Row],
    train_log_probs: Callable[[Sequence[Row], int], Array],
    gather: Callable[[Any], list[Any]],
) -> float:
    """The gap on the longest rows with responses, as many as make one small micro-batch, over all processes.

    Args:
        sampled: (M,) of all response tokens of the iteration.
        rows: of the iteration.
        train_log_probs: see `check_sampling`.
        gather: collects one object of every process.
    """
    assert sampled is not None
    # Where an episode was cut off, its last prompt may be a row of its own, and the longest.
    written = [row for row in rows if row.token_index.max() != ABSENT]
    batch = token_budget_batches(written, GAP_TOKENS)[0] if written else []
    numbers = [row.token_index[row.token_index != ABSENT] for row in batch]
    seen = np.concatenate([np.zeros(0, np.int64), *numbers])
    # Also without rows: processes that share a sharded model pass through it together.
    trained = train_log_probs(batch, len(sampled))
    parts = gather((sampled[seen], trained[seen]))
    return sampling_gap(*map(np.concatenate, zip(*parts, strict=True)))


def computes_in_16_bits(model: Any) -> bool:
    """Whether any weight has fewer than 32 bits."""
    return any(parameter.dtype.itemsize < 4 for parameter in model.parameters())


def check_gap(gap: float, *, low_precision: bool, from_servers: bool = False) -> None:
    """Raise a SamplingGapError if a gap is above the bound of its precision, or no number."""
    bound = LOW_PRECISION_BOUND if low_precision else BOUND
    if not gap <= bound:
        raise SamplingGapError(
            f"The policy is sampled from another distribution than it is trained on: log-probabilities differ by "
            f"{gap:.3g} nats on average, the bound is {bound:g}. {_FOR_SERVERS if from_servers else _FOR_MODELS}"
        )


def _conversations(policy: Policy, codec: Codec) -> list[Episode]:
    prompts = {slot: codec.first_prompt("", (), text) for slot, text in enumerate(_SAID)}
    steps: dict[int, list[Step]] = {slot: [] for slot in prompts}
    ended = []
    for number, said in enumerate(_SAID):
        requests = [Request(slot, prompt) for slot, prompt in prompts.items()]
        for request, response in zip(requests, policy.respond(requests), strict=True):
            ids = request.prompt_ids + response.token_ids
            steps[request.slot].append(
                Step(request.prompt_ids, response.token_ids, response.log_probs, "", reward=0.0, state_key="")
            )
            prompts[request.slot] = codec.next_prompt(ids, said)
        if number == 0:
            ended.append(steps[2])
            steps[2], prompts[2] = [], codec.first_prompt("", (), " ".join(_SAID))
        elif number == 1:
            del prompts[0]
    return [Episode("sampling check", tuple(played), "terminated") for played in (*ended, *steps.values())]
