"""Seconds of an iteration on GPUs, computed from a few inputs. Nothing is measured here; docs/scaling.md explains.

python benchmarks/scaling.py
python benchmarks/scaling.py --parameters 1.7e9 --steps 20 --response 60 --env-seconds 0.002
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields, replace


@dataclass(frozen=True)
class Inputs:
    """What the model is computed from; every field is a flag."""

    parameters: float = 4.0e9
    critic_parameters: float = 4.0e9
    episodes: float = 1024
    """Of an iteration."""
    steps: float = 10
    """Of an episode."""
    response: float = 300
    """Tokens of a response."""
    observation: float = 200
    """New prompt tokens of a step."""
    env_seconds: float = 0.02
    """Of an environment's step."""
    slots: float = 128
    """Per sampling GPU."""
    bandwidth: float = 3.35e12
    """Bytes per second of a GPU's memory; H100 SXM, data sheet."""
    peak: float = 989e12
    """Floating-point operations per second in bfloat16, dense; H100 SXM, data sheet."""
    memory_efficiency: float = 0.6
    """Share of the bandwidth that decoding reaches; assumed."""
    step_overhead: float = 2e-3
    """Seconds of a decode step that no data take; assumed."""
    prefill_mfu: float = 0.4
    """Share of the peak in reading prompts; assumed."""
    train_mfu: float = 0.35
    """Share of the peak in training; assumed."""
    kv_bytes: float = 147456
    """Of one token: 36 layers x 8 heads x 128 x 2 x 2 bytes, Qwen3-4B."""
    push_bandwidth: float = 2e9
    """Bytes per second of the folder that weights go through; assumed, of memory (/dev/shm) or a fast disk."""
    lockstep_factor: float = 2.0
    """How much longer a rollout in lock-step is; measured with mixed lengths (benchmarks/streaming.py)."""


def decode_parts(inputs: Inputs, under_way: float) -> dict[str, float]:
    """Seconds of one decode step of a GPU: weights are read once, keys and values of every sequence."""
    context = inputs.steps * (inputs.response + inputs.observation) / 2
    rate = inputs.bandwidth * inputs.memory_efficiency
    return {
        "decoding: overhead": inputs.step_overhead,
        "decoding: weights": 2 * inputs.parameters / rate,
        "decoding: keys and values": under_way * context * inputs.kv_bytes / rate,
    }


def rollout_parts(inputs: Inputs, gpus: float) -> dict[str, float]:
    """Seconds of an iteration with streaming: a slot decodes, reads what is new, and waits for its environment."""
    prefill = 2 * inputs.parameters * inputs.observation / (inputs.peak * inputs.prefill_mfu)
    under_way, decoding = inputs.slots, {}
    for _ in range(50):
        # Slots whose environment steps are not under way.
        decoding = {name: inputs.response * part for name, part in decode_parts(inputs, under_way).items()}
        under_way = inputs.slots * sum(decoding.values()) / (sum(decoding.values()) + inputs.env_seconds)
    cycle = {**decoding, "reading": prefill * inputs.slots, "environments": inputs.env_seconds}
    cycles = inputs.episodes * inputs.steps / (inputs.slots * gpus)
    return {name: cycles * part for name, part in cycle.items()}


def update_parts(inputs: Inputs, gpus: float) -> dict[str, float]:
    """Seconds of an iteration's updates: forward and backward of both models, and one forward of each before them."""
    tokens = inputs.episodes * inputs.steps * (inputs.response + inputs.observation)
    rate = inputs.peak * inputs.train_mfu * gpus
    return {
        f"{model}: {name}": times * parameters * tokens / rate
        for model, parameters in (("policy", inputs.parameters), ("critic", inputs.critic_parameters))
        for name, times in (("before the updates", 2), ("forward and backward", 6))
    }


def push_seconds(inputs: Inputs) -> float:
    """Of handing new weights to the samplers."""
    return 2 * 2 * inputs.parameters / inputs.push_bandwidth


def print_row(name: str, inputs: Inputs, sampling: float, training: float, *, overlap: bool, lockstep: bool) -> None:
    """One set-up; where the same GPUs do both, they take turns."""
    rollout = sum(rollout_parts(inputs, sampling).values()) * (inputs.lockstep_factor if lockstep else 1.0)
    update, push = sum(update_parts(inputs, training).values()), push_seconds(inputs)
    whole = (max(rollout, update) if overlap else rollout + update) + push
    rate = 3600 * inputs.episodes / whole
    print(f"| {name} | {rollout:.0f} | {update:.0f} | {push:.0f} | {whole:.0f} | {rate:.0f} |")


def print_parts(inputs: Inputs) -> None:
    """Where the time of an iteration goes on one GPU, and on eight of which four sample and four train."""
    columns = [
        {**rollout_parts(inputs, gpus), **update_parts(inputs, gpus), "weights to the samplers": push_seconds(inputs)}
        for gpus in (1, 4)
    ]
    print("\n| part | 1 GPU | share | 8 GPUs, 4 + 4 | share |\n|---|---|---|---|---|")
    for name in columns[0]:
        cells = (f"{part[name]:.0f} s | {part[name] / sum(part.values()):.0%}" for part in columns)
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Inputs):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=float, default=field.default)
    inputs = replace(Inputs(), **vars(parser.parse_args()))
    print("| set-up | rollout s | updates s | weights s | iteration s | episodes an hour |\n|---|---|---|---|---|---|")
    print_row("1 GPU, in turns, lock-step", inputs, 1, 1, overlap=False, lockstep=True)
    print_row("1 GPU, in turns, streaming", inputs, 1, 1, overlap=False, lockstep=False)
    print_row("8 GPUs: 4 sample, 4 train", inputs, 4, 4, overlap=False, lockstep=False)
    print_row("8 GPUs: 4 sample, 4 train, overlapped", inputs, 4, 4, overlap=True, lockstep=False)
    larger = replace(inputs, episodes=8 * inputs.episodes)
    print_row("64 GPUs: 32 sample, 32 train, 8 x episodes", larger, 32, 32, overlap=False, lockstep=False)
    print_row("the same, overlapped", larger, 32, 32, overlap=True, lockstep=False)
    print_parts(inputs)


if __name__ == "__main__":
    main()
