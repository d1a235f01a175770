"""What streaming saves against lock-step, with the same engine, environments and episodes in one run.

    python benchmarks/streaming.py
    python benchmarks/streaming.py --server http://localhost:8000/v1 --model tiny

Without a server there are two parts. In the first an engine with continuous batching is simulated: a decode step takes
a fixed time and a time per sequence, asleep, and response lengths are lognormal, as those of models that think are. In
the second, answers take 0.01 to 3 seconds each, whatever else is under way; what is printed is the throughput over that
of as many slots that always wait for an answer of the mean time. Given a server, the same schedules play on it, with a
limit on response tokens drawn for each request from the same lengths.

Lock-step is what a policy gets that answers in batches: two halves of the slots, or one group of all.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from timed_env import ENV_ID

from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.policies import Answer, Policy, Request, Response
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, Rollout, collect

CODEC = ByteCodec()
SCHEDULES: dict[str, dict[str, Any]] = {
    "lock-step, two halves": {"streaming": False, "overlap": True},
    "lock-step, one group": {"streaming": False, "overlap": False},
    "streaming": {"streaming": True},
}


def draw(request: Request, seed: int, median: float, spread: float) -> float:
    """A lognormal number that follows from the request's stream."""
    return random.Random(repr((seed, request.stream))).lognormvariate(math.log(median), spread)


class SimulatedEngine:
    """Continuous batching: sequences join and leave between decode steps."""

    needs_expert = False
    prefers_streaming = True

    def __init__(self, step_seconds: float, sequence_seconds: float, length: Callable[[Request], int]) -> None:
        self.step_seconds, self.sequence_seconds, self.length = step_seconds, sequence_seconds, length
        self._left: dict[int, int] = {}
        self._lengths: dict[int, int] = {}

    def submit(self, request: Request) -> None:
        """Add a sequence."""
        self._left[request.slot] = self._lengths[request.slot] = self.length(request)

    def poll(self, timeout: float) -> list[Answer]:
        """One decode step."""
        del timeout
        if not self._left:
            return []
        time.sleep(self.step_seconds + self.sequence_seconds * len(self._left))
        self._left = {slot: left - 1 for slot, left in self._left.items()}
        done = [slot for slot, left in self._left.items() if left == 0]
        for slot in done:
            del self._left[slot]
        return [Answer(slot, Response((ord("o"),) * self._lengths[slot])) for slot in done]

    def drop(self) -> None:
        """Remove all sequences."""
        self._left = {}

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Run a batch to the end of its longest sequence."""
        for request in requests:
            self.submit(request)
        done: dict[int, Response] = {}
        while self._left:
            done |= {answer.slot: answer.outcome for answer in self.poll(0.0) if isinstance(answer.outcome, Response)}
        return [done[request.slot] for request in requests]


class LatePolicy:
    """Every answer takes its own time, whatever else is under way."""

    needs_expert = False
    prefers_streaming = True

    def __init__(self, seconds: Callable[[Request], float]) -> None:
        self.seconds = seconds
        self.asked: list[tuple[float, float, bool]] = []
        """When, the seconds to the answer, and whether it was the first request of an episode."""
        self._due: list[tuple[float, int, int]] = []
        self._numbers = itertools.count()

    def submit(self, request: Request) -> None:
        """Note when the answer is due."""
        now, seconds = time.monotonic(), self.seconds(request)
        self.asked.append((now, seconds, request.step == 0))
        heapq.heappush(self._due, (now + seconds, next(self._numbers), request.slot))

    def poll(self, timeout: float) -> list[Answer]:
        """What is due."""
        if self._due:
            time.sleep(max(0.0, min(timeout, self._due[0][0] - time.monotonic())))
        answers = []
        while self._due and self._due[0][0] <= time.monotonic():
            answers.append(Answer(heapq.heappop(self._due)[2], Response(CODEC.encode_response("on"))))
        return answers

    def drop(self) -> None:
        """Forget what is due."""
        self._due = []

    def respond(self, requests: Sequence[Request]) -> list[Response]:
        """Wait for the slowest."""
        now, seconds = time.monotonic(), [self.seconds(request) for request in requests]
        self.asked += [(now, part, r.step == 0) for part, r in zip(seconds, requests, strict=True)]
        time.sleep(max(seconds))
        return [Response(CODEC.encode_response("on")) for _ in requests]


def share_of_mean(asked: Sequence[tuple[float, float, bool]], num_slots: int) -> float:
    """Throughput while there are assignments for all slots, over slots / mean seconds of an answer (Little's law)."""
    begin, end = asked[0][0], max(at for at, _, is_first in asked if is_first)
    return sum(min(at + seconds, end) - at for at, seconds, _ in asked if at < end) / (num_slots * (end - begin))


def play(policy: Policy, pool: EnvPool, lengths: Sequence[int], schedule: str) -> Rollout:
    """Play one episode of each length."""
    tasks = [Assignment(str(length), seed=number) for number, length in enumerate(lengths)]
    return collect(policy, pool, CODEC, tasks, **SCHEDULES[schedule])


def print_tokens_per_second(policy: Policy, pool: EnvPool, lengths: Sequence[int], repeats: int) -> None:
    """A row for each schedule, and what streaming gains."""
    rates: dict[str, list[float]] = {schedule: [] for schedule in SCHEDULES}
    busy: dict[str, float] = {}
    for _ in range(repeats):
        for schedule in SCHEDULES:
            stats = play(policy, pool, lengths, schedule).stats
            rates[schedule].append(stats.num_generated_tokens / stats.seconds)
            busy[schedule] = stats.mean_requests_under_way
    base = statistics.median(rates["lock-step, two halves"])
    print("| schedule | tokens per second (min-max) | requests under way | times two halves |\n|---|---|---|---|")
    for schedule, found in rates.items():
        median = statistics.median(found)
        spread = f"{min(found):.0f}-{max(found):.0f}"
        print(f"| {schedule} | {median:.0f} ({spread}) | {busy[schedule]:.1f} | {median / base:.2f} |")
    others = max(statistics.median(rates[name]) for name in list(SCHEDULES)[:2])
    print(f"\nstreaming / the better lock-step: {statistics.median(rates['streaming']) / others:.2f}\n")


def print_share_of_mean(pool: EnvPool, lengths: Sequence[int], seed: int) -> None:
    """Heavy-tailed answers."""
    print("| schedule | answers | seconds | throughput over that of the mean |\n|---|---|---|---|")
    for schedule in SCHEDULES:
        policy = LatePolicy(lambda request: min(3.0, max(0.01, draw(request, seed, 0.15, 1.2))))
        stats = play(policy, pool, lengths, schedule).stats
        share = share_of_mean(policy.asked, pool.num_slots)
        print(f"| {schedule} | {stats.num_requests} | {stats.seconds:.1f} | {share:.2f} |")


def server_policy(options: argparse.Namespace, length: Callable[[Request], int]) -> Policy:
    """A server whose responses are as long as `length` says."""
    from steppo_gym.rollouts.server_policy import ServerPolicy

    class MixedLengths(ServerPolicy):
        def _question(self, request: Request) -> tuple[dict[str, Any], Callable[[str], Response]]:
            own, read = super()._question(request)
            tokens = length(request)
            return own | {"max_tokens": tokens, "min_tokens": tokens, "ignore_eos": True}, read

    return MixedLengths(options.server, options.model, max_tokens=options.longest, seed=0, max_concurrency=256)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--episodes", type=int, default=512)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=8, help="longest episode")
    parser.add_argument("--median-length", type=float, default=40.0, help="of a response, in tokens")
    parser.add_argument("--longest", type=int, default=512, help="response in tokens")
    parser.add_argument("--step-ms", type=float, default=2.0, help="of a decode step")
    parser.add_argument("--sequence-ms", type=float, default=0.015, help="what each sequence adds to it")
    parser.add_argument("--env-ms", type=float, default=1.0, help="of an environment's step")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--server", help="address of a completions server to play on instead")
    parser.add_argument("--model", default="model", help="its model")
    options = parser.parse_args()

    def length(request: Request) -> int:
        return min(options.longest, max(4, round(draw(request, options.seed, options.median_length, 0.9))))

    rng = random.Random(options.seed)
    lengths = [rng.randint(max(1, options.steps // 4), options.steps) for _ in range(options.episodes)]
    spec = EnvFactory(ENV_ID, {"step_seconds": options.env_ms / 1000})
    with EnvPool(spec, num_slots=options.slots, num_workers=options.workers) as pool:
        print(f"{options.episodes} episodes, {sum(lengths)} steps, {options.slots} slots\n")
        if options.server:
            print_tokens_per_second(server_policy(options, length), pool, lengths, options.repeats)
            return
        engine = SimulatedEngine(options.step_ms / 1000, options.sequence_ms / 1000, length)
        print_tokens_per_second(engine, pool, lengths, options.repeats)
        print_share_of_mean(pool, lengths, options.seed)


if __name__ == "__main__":
    main()
