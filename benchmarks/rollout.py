"""What refilled slots and overlapped environments save, against rollouts in lockstep, in one run.

    python benchmarks/rollout.py

Lockstep plays a batch of episodes to the end of its longest one before it begins the next. As verl-agent does it
(agent_system/multi_turn_rollout/rollout_loop.py), it also generates for the episodes that have ended and throws that
away. Model and environments are simulated: a generation call sleeps for a fixed time and a time per request, a step
sleeps too. What is measured is how calls and waiting are arranged, and the cost of arranging them. Every variant plays
the same episodes in the same worker processes.

Overlapping halves the batches, so it pays when the steps of all slots take longer than the fixed part of a call.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from timed_env import ENV_ID

from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Request, Response
from steppo_gym.rollouts.pool import EnvFactory, EnvPool, ResetCommand, StepCommand, StepResult
from steppo_gym.rollouts.rollout import Assignment, collect

CODEC = ByteCodec()
MAX_STEPS = 50


class TimedPolicy:
    """Says the same word always and takes as long as a model would."""

    needs_expert = False

    def __init__(self, call_seconds: float, request_seconds: float) -> None:
        self.call_seconds, self.request_seconds = call_seconds, request_seconds
        self.num_calls = self.num_requests = 0
        self._response = Response(CODEC.encode_response("on"))

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """The word for every request, after the time has passed."""
        self.num_calls += 1
        self.num_requests += len(requests)
        time.sleep(self.call_seconds + self.request_seconds * len(requests))
        return [self._response] * len(requests)


@dataclass(frozen=True)
class Measured:
    """One variant in one repetition."""

    calls: int
    requests: int
    seconds: float


def lockstep(
    policy: TimedPolicy, pool: EnvPool, assignments: Sequence[Assignment], *, generate_for_ended: bool
) -> None:
    """Play all assignments in batches of the pool's size."""
    for first in range(0, len(assignments), pool.num_slots):
        batch = assignments[first : first + pool.num_slots]
        starts = [ResetCommand(slot, assignment.task_id, assignment.seed) for slot, assignment in enumerate(batch)]
        states = _states(pool, starts)
        going = sorted(states)
        while going:
            asked = sorted(states) if generate_for_ended else going
            prompts = [CODEC.first_prompt(pool.system_prompt, pool.tools, states[slot].observation) for slot in asked]
            answers = policy.respond([Request(slot, prompt) for slot, prompt in zip(asked, prompts, strict=True)])
            texts = {slot: CODEC.decode_response(answer.token_ids) for slot, answer in zip(asked, answers, strict=True)}
            states |= _states(pool, [StepCommand(slot, texts[slot]) for slot in going])
            going = [slot for slot in going if not (states[slot].terminated or states[slot].truncated)]


def _states(pool: EnvPool, commands: Sequence[ResetCommand | StepCommand]) -> dict[int, StepResult]:
    results = pool.wait(pool.submit(commands))
    return {slot: result for slot, result in results.items() if isinstance(result, StepResult)}


Variant = Callable[[TimedPolicy, EnvPool, Sequence[Assignment]], object]
VARIANTS: dict[str, Variant] = {
    "lockstep, ended episodes generated for": lambda *args: lockstep(*args, generate_for_ended=True),
    "lockstep, ended episodes skipped": lambda *args: lockstep(*args, generate_for_ended=False),
    "refilled slots": lambda policy, pool, tasks: collect(policy, pool, CODEC, tasks, overlap=False),
    "refilled slots, environments overlapped": lambda policy, pool, tasks: collect(policy, pool, CODEC, tasks),
}


def draw_lengths(number: int, seed: int) -> list[int]:
    """Episode lengths of a half-trained agent: a third runs into the limit, the others end after 5 to 30 steps."""
    rng = random.Random(seed)
    return [MAX_STEPS if rng.random() < 1 / 3 else rng.randint(5, 30) for _ in range(number)]


def measure(variant: Variant, pool: EnvPool, tasks: Sequence[Assignment], options: argparse.Namespace) -> Measured:
    """Play all tasks once."""
    policy = TimedPolicy(options.call_ms / 1000, options.request_ms / 1000)
    started = time.perf_counter()
    variant(policy, pool, tasks)
    return Measured(policy.num_calls, policy.num_requests, time.perf_counter() - started)


def print_comparison(options: argparse.Namespace, step_ms: float) -> None:
    """Time all variants in turn, several times, and print the medians."""
    lengths = draw_lengths(options.episodes, options.seed)
    tasks = [Assignment(str(length), seed=0) for length in lengths]
    spec = EnvFactory(ENV_ID, {"step_seconds": step_ms / 1000})
    results: dict[str, list[Measured]] = {name: [] for name in VARIANTS}
    with EnvPool(spec, num_slots=options.slots, num_workers=options.workers) as pool:
        for _ in range(options.repeats):
            for name, variant in VARIANTS.items():
                results[name].append(measure(variant, pool, tasks, options))
    print(
        f"{options.episodes} episodes, {sum(lengths)} steps, {options.slots} slots, {options.workers} workers; a call "
        f"takes {options.call_ms:g} ms + {options.request_ms:g} ms per request, a step {step_ms:g} ms; "
        f"median of {options.repeats}\n"
    )
    print("| rollout | generation calls | requests | requests wasted | seconds (min-max) | times faster |")
    print("|---|---|---|---|---|---|")
    base = statistics.median(measured.seconds for measured in next(iter(results.values())))
    for name, runs in results.items():
        seconds = sorted(measured.seconds for measured in runs)
        wasted = 1 - sum(lengths) / runs[0].requests
        print(
            f"| {name} | {runs[0].calls} | {runs[0].requests} | {wasted:.0%} | {statistics.median(seconds):.2f} "
            f"({seconds[0]:.2f}-{seconds[-1]:.2f}) | {base / statistics.median(seconds):.2f} |"
        )
    print()


def print_overhead(options: argparse.Namespace) -> None:
    """Print what a step costs when neither policy nor environment takes any time."""
    tasks = [Assignment(str(length), seed=0) for length in draw_lengths(options.episodes, options.seed)]
    print("| workers | cost of one step, microseconds | steps per second |\n|---|---|---|")
    for num_workers in (0, 1, options.workers):
        with EnvPool(EnvFactory(ENV_ID), num_slots=options.slots, num_workers=num_workers) as pool:
            stats = collect(TimedPolicy(0.0, 0.0), pool, CODEC, tasks).stats
        cost = stats.seconds / stats.num_steps
        print(f"| {num_workers} | {1e6 * cost:.0f} | {1 / cost:.0f} |")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=96)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--call-ms", type=float, default=4.0, help="fixed time of a generation call")
    parser.add_argument("--request-ms", type=float, default=0.2, help="time that each request adds to it")
    parser.add_argument(
        "--step-ms", type=float, nargs="+", default=[0.1, 1.5], help="times of an environment's step, a table for each"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    for step_ms in options.step_ms:
        print_comparison(options, step_ms)
    print_overhead(options)


if __name__ == "__main__":
    main()
