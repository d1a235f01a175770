"""Sampling elsewhere and ahead of time: which settings cannot be served, and the correction of an iteration."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.correction import CORRECTIONS, Correction, Mismatch, correction_weights
from steppo_gym.credit.records import CreditRule, Records
from steppo_gym.rollouts.ray_workers import PREFIX

Array = npt.NDArray[np.float64]


def check_sampling_settings(args: Any) -> None:
    """Raise a ValueError for what contradicts each other, or would be without effect.

    Args:
        args: a `StepConfig`, which this checks before it is one.
    """
    _check_trl_engine(args, int(os.environ.get("WORLD_SIZE", "1")))
    if args.off_policy_correction not in CORRECTIONS:
        raise ValueError(
            f"off_policy_correction must be one of {', '.join(CORRECTIONS)}, got {args.off_policy_correction!r}."
        )
    if not args.off_policy_cap >= 1.0:
        raise ValueError(f"off_policy_cap must be at least 1, got {args.off_policy_cap}.")
    if args.off_policy_correction == "none" and args.off_policy_cap != type(args).off_policy_cap:
        raise ValueError("off_policy_cap has no effect without off_policy_correction. Choose one, or leave it out.")
    if (args.policy_servers is None) != (args.policy_servers_folder is None):
        raise ValueError("policy_servers and policy_servers_folder, which they load weights from, belong together.")
    if args.policy_servers is None and args.policy_servers_model is not None:
        raise ValueError("policy_servers_model has no effect without policy_servers.")
    if args.policy_servers is not None and not all(map(str.strip, args.policy_servers.split(","))):
        raise ValueError(f"policy_servers must be addresses, separated by commas, got {args.policy_servers!r}.")
    _check_workers(args)
    _check_streaming(args)
    if args.overlap_updates and args.off_policy_correction == "none":
        raise ValueError(
            "overlap_updates trains on what older weights have sampled: choose an off_policy_correction, such as "
            "step_truncate."
        )
    if args.overlap_updates and not args.shuffle_dataset:
        raise ValueError("shuffle_dataset False has no effect with overlap_updates, which shuffles by itself.")


def _check_workers(args: Any) -> None:
    if args.env_workers is not None and not (args.env_workers.startswith(PREFIX) and args.num_env_workers):
        raise ValueError(
            f"env_workers must be ray://auto or ray://host:10001, with num_env_workers of 1 or more, got "
            f"{args.env_workers!r} and {args.num_env_workers}."
        )
    if not args.num_env_workers and args.env_step_timeout != type(args).env_step_timeout:
        raise ValueError("env_step_timeout has no effect without num_env_workers: nobody could end the step.")


def _check_streaming(args: Any) -> None:
    others = [name for name in ("use_vllm", "policy_servers", "overlap_updates") if getattr(args, name)]
    if args.stream_responses and others:
        raise ValueError(f"stream_responses is for the trainer's own model: leave out {others[0]}.")
    for name in ("stream_responses", "policy_servers"):
        if getattr(args, name) and args.overlap_environments is not None:
            raise ValueError(
                f"overlap_environments has no effect with {name}: each response is asked for as soon as its "
                "environment has answered."
            )


def _check_trl_engine(args: Any, processes: int) -> None:
    if not args.use_vllm:
        return
    if args.policy_servers is not None:
        raise ValueError("use_vllm and policy_servers are two ways to sample. Choose one.")
    if args.overlap_updates:
        raise ValueError("overlap_updates cannot share TRL's vLLM engine with updates. Use policy_servers instead.")
    if processes > 1 and args.vllm_mode == "server":
        raise ValueError(
            f"TRL's vLLM server path deals the answers of one call out to all processes, and these {processes} ask at "
            "different times for different numbers of responses: they would get each other's. Use policy_servers "
            "(docs/scaling.md)."
        )
    if args.vllm_mode == "colocate" and args.vllm_tensor_parallel_size > 1:
        raise ValueError(
            "TRL's colocated vLLM gathers the prompts of all processes of an engine in each call, and these ask at "
            "different times. Use vllm_tensor_parallel_size 1, or policy_servers (docs/scaling.md)."
        )


def check_overlap(rule: type[CreditRule], *, overlap_updates: bool) -> None:
    """Raise a ValueError if a rule plays further episodes in the middle of an iteration, from states of the newest."""
    if overlap_updates and rule.branches is not CreditRule.branches:
        raise ValueError(
            f"{rule.title()} plays on from states of an iteration's episodes, which overlap_updates has no place for. "
            "Leave overlap_updates out."
        )


def correction_of(
    records: Records, sampled: Array | None, *, kind: Correction, cap: float, gather: Callable[[Any], list[Any]]
) -> tuple[Array, dict[str, float]]:
    """(M,) weights of the response tokens' terms in the policy loss, and the metrics of the mismatch.

    Args:
        records: with the log-probabilities of the policy before the update.
        sampled: (M,) those of the sampler, None if it does not say.
        kind: of the weights.
        cap: where they are cut.
        gather: from an object of this process to those of all.

    Raises:
        ValueError: there is to be a correction, and nothing to compute it from.
    """
    trained = records.log_probs
    assert trained is not None
    weights, own = np.ones_like(trained), None
    if sampled is not None:
        lengths = (records.tokens_per_step, records.steps_per_episode)
        weights = correction_weights(sampled, trained, *lengths, kind=kind, cap=cap)
        own = Mismatch.of(sampled, trained, weights, math.inf if kind == "none" else cap)
    parts = [part for part in gather(own) if part is not None]
    if kind != "none" and sampled is None:
        raise ValueError(
            f"off_policy_correction {kind} needs the log-probabilities of the sampler, and it gives none. Start the "
            "server with --logprobs-mode processed_logprobs, or use none."
        )
    return weights, Mismatch.metrics(parts) if parts else {}
