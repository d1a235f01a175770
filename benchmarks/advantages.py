"""What the credit rules cost, against straightforward loops, in one run.

    python benchmarks/advantages.py

Both versions get the same random records (about a million response tokens in groups of eight episodes that share
states) and must agree to 1e-9 before anything is timed. The loops go over episodes, steps and tokens in Python, as the
token-level code released with StepPO does. Times are medians; "per million tokens" counts response tokens for every
rule, "per element" what a rule decides on: tokens for PPO and REINFORCE++, steps for the others.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from steppo_gym.credit.advantages import step_advantages, token_advantages, token_returns
from steppo_gym.credit.groups import (
    gagpo_advantages,
    gigpo_advantages,
    group_advantages,
    hgpo_advantages,
    rloo_advantages,
)

GAMMA, LAMBDA, GROUP_SIZE, STATES = 0.99, 0.95, 8, 40


@dataclass(frozen=True)
class Batch:
    """Random records: E episodes, N steps, M tokens."""

    rewards: np.ndarray
    step_values: np.ndarray
    token_values: np.ndarray
    final_values: np.ndarray
    steps: list[int]
    tokens: list[int]
    groups: list[int]
    keys: list[str]

    @functools.cached_property
    def bounds(self) -> list[tuple[int, int]]:
        """First step of each episode and of the one after it."""
        return list(pairwise(np.concatenate([[0], np.cumsum(self.steps)]).tolist()))

    @functools.cached_property
    def returns(self) -> np.ndarray:
        """(E,) sums of rewards."""
        return np.array([sum(self.rewards[first:last].tolist()) for first, last in self.bounds])


def random_batch(episodes: int, max_steps: int, max_tokens: int, seed: int) -> Batch:
    """Episodes of 1 to `max_steps` steps of 1 to `max_tokens` tokens; half of them were truncated."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, max_steps + 1, episodes)
    tokens = rng.integers(1, max_tokens + 1, steps.sum())
    return Batch(
        rewards=rng.normal(size=len(tokens)),
        step_values=rng.normal(size=len(tokens)),
        token_values=rng.normal(size=tokens.sum()),
        final_values=rng.normal(size=episodes) * rng.integers(0, 2, episodes),
        steps=steps.tolist(),
        tokens=tokens.tolist(),
        groups=(np.arange(episodes) // GROUP_SIZE).tolist(),
        keys=[f"state {number}" for number in rng.integers(0, STATES, len(tokens))],
    )


# Straightforward versions


def loop_gae(rewards: list[float], values: list[float], final_value: float, gamma: float, lam: float) -> list[float]:
    """One episode, backwards."""
    advantages, after, advantage = [0.0] * len(rewards), final_value, 0.0
    for t in reversed(range(len(rewards))):
        advantage = rewards[t] + gamma * after - values[t] + gamma * lam * advantage
        advantages[t], after = advantage, values[t]
    return advantages


def loop_normalized(x: list[float], groups: Sequence[Hashable]) -> list[float]:
    """Each entry relative to its group."""
    members = defaultdict(list)
    for value, group in zip(x, groups, strict=True):
        members[group].append(value)
    out = []
    for value, group in zip(x, groups, strict=True):
        others = members[group]
        if len(others) == 1:
            out.append(0.0)
            continue
        out.append((value - statistics.fmean(others)) / (float(np.std(others, ddof=1)) + 1e-6))
    return out


def loop_step(b: Batch) -> list[float]:
    """StepPO."""
    out: list[float] = []
    for (first, last), final in zip(b.bounds, b.final_values.tolist(), strict=True):
        out += loop_gae(b.rewards[first:last].tolist(), b.step_values[first:last].tolist(), final, GAMMA, LAMBDA)
    return out


def loop_token(b: Batch, values: np.ndarray, final_values: np.ndarray, gamma: float, lam: float) -> list[float]:
    """PPO, and REINFORCE++ with a critic that says 0."""
    out: list[float] = []
    position = 0
    for (first, last), final in zip(b.bounds, final_values.tolist(), strict=True):
        rewards = []
        for step in range(first, last):
            rewards += [0.0] * (b.tokens[step] - 1) + [float(b.rewards[step])]
        out += loop_gae(rewards, values[position : position + len(rewards)].tolist(), final, gamma, lam)
        position += len(rewards)
    return out


def loop_rloo(b: Batch) -> list[float]:
    """RLOO."""
    members = defaultdict(list)
    for value, group in zip(b.returns.tolist(), b.groups, strict=True):
        members[group].append(value)
    return [
        value - (sum(members[group]) - value) / (len(members[group]) - 1)
        for value, group in zip(b.returns.tolist(), b.groups, strict=True)
    ]


def loop_step_returns(b: Batch, gamma: float) -> list[float]:
    """Discounted rewards-to-go."""
    return [
        x
        for first, last in b.bounds
        for x in loop_gae(b.rewards[first:last].tolist(), [0.0] * (last - first), 0.0, gamma, 1.0)
    ]


def loop_episode_of(b: Batch) -> list[int]:
    """(N,)."""
    return [episode for episode, steps in enumerate(b.steps) for _ in range(steps)]


def loop_gigpo(b: Batch) -> list[float]:
    """GiGPO."""
    episode_terms = loop_normalized(b.returns.tolist(), b.groups)
    owner = loop_episode_of(b)
    anchors = [(b.groups[episode], key) for episode, key in zip(owner, b.keys, strict=True)]
    step_terms = loop_normalized(loop_step_returns(b, GAMMA), anchors)
    return [episode_terms[episode] + term for episode, term in zip(owner, step_terms, strict=True)]


def loop_hgpo(b: Batch) -> list[float]:
    """HGPO with two earlier states."""
    returns, total = loop_step_returns(b, GAMMA), [0.0] * len(b.keys)
    for level in range(3):
        contexts = [
            (b.groups[episode], t - first < level, *b.keys[max(first, t - level) : t + 1])
            for episode, (first, last) in enumerate(b.bounds)
            for t in range(first, last)
        ]
        for t, term in enumerate(loop_normalized(returns, contexts)):
            total[t] += (level + 1) / 6 * term
    return total


def loop_gagpo(b: Batch) -> list[float]:
    """GAGPO."""
    owner = loop_episode_of(b)
    members = defaultdict(list)
    for value, episode, key in zip(loop_step_returns(b, GAMMA), owner, b.keys, strict=True):
        members[b.groups[episode], key].append(value)
    values = [statistics.fmean(members[b.groups[episode], key]) for episode, key in zip(owner, b.keys, strict=True)]
    out: list[float] = []
    for first, last in b.bounds:
        out += loop_gae(b.rewards[first:last].tolist(), values[first:last], 0.0, GAMMA, LAMBDA)
    return loop_normalized(out, [b.groups[episode] for episode in owner])


def rules(b: Batch) -> dict[str, tuple[Callable[[], np.ndarray], Callable[[], list[float]], int]]:
    """By name: ours, the loop, and the number of elements."""
    s, t = b.steps, b.tokens
    return {
        "StepPO": (lambda: step_gae(b), lambda: loop_step(b), len(t)),
        "PPO": (lambda: token_gae(b), lambda: loop_token(b, b.token_values, b.final_values, GAMMA, LAMBDA), sum(t)),
        "REINFORCE++": (
            lambda: token_returns(b.rewards, tokens_per_step=t, steps_per_episode=s, gamma=1.0),
            lambda: loop_token(b, np.zeros(sum(t)), np.zeros(len(s)), 1.0, 1.0),
            sum(t),
        ),
        "GRPO, GSPO": (
            lambda: group_advantages(b.returns, b.groups),
            lambda: loop_normalized(b.returns.tolist(), b.groups),
            len(s),
        ),
        "RLOO": (lambda: rloo_advantages(b.returns, b.groups), lambda: loop_rloo(b), len(s)),
        "GiGPO": (
            lambda: gigpo_advantages(b.rewards, b.keys, b.groups, steps_per_episode=s, gamma=GAMMA),
            lambda: loop_gigpo(b),
            len(t),
        ),
        "HGPO": (
            lambda: hgpo_advantages(b.rewards, b.keys, b.groups, steps_per_episode=s, gamma=GAMMA, history=2),
            lambda: loop_hgpo(b),
            len(t),
        ),
        "GAGPO": (
            lambda: gagpo_advantages(b.rewards, b.keys, b.groups, steps_per_episode=s, gamma=GAMMA, lam=LAMBDA),
            lambda: loop_gagpo(b),
            len(t),
        ),
    }


def step_gae(b: Batch) -> np.ndarray:
    """StepPO's advantages."""
    advantages, _ = step_advantages(
        b.rewards, b.step_values, b.final_values, steps_per_episode=b.steps, gamma=GAMMA, lam=LAMBDA
    )
    return advantages


def token_gae(b: Batch) -> np.ndarray:
    """PPO's advantages."""
    advantages, _ = token_advantages(
        b.rewards,
        b.token_values,
        b.final_values,
        tokens_per_step=b.tokens,
        steps_per_episode=b.steps,
        gamma=GAMMA,
        lam=LAMBDA,
    )
    return advantages


def seconds(call: Callable[[], object], repetitions: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=1024)
    parser.add_argument("--max_steps", type=int, default=30)
    parser.add_argument("--max_tokens", type=int, default=128)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    batch = random_batch(arguments.episodes, arguments.max_steps, arguments.max_tokens, seed=0)
    tokens = sum(batch.tokens)
    print(f"{len(batch.steps)} episodes, {len(batch.tokens)} steps, {tokens} tokens\n")
    print(f"{'rule':<12} {'ms / 10^6 tokens':>17} {'loop':>9} {'ratio':>7} {'ns / element':>13} {'elements':>9}")
    per_element = {}
    for name, (ours, loop, elements) in rules(batch).items():
        np.testing.assert_allclose(ours(), np.array(loop()), rtol=0, atol=1e-9)
        fast, slow = seconds(ours, arguments.repetitions), seconds(loop, 3)
        per_element[name] = fast / elements
        print(
            f"{name:<12} {1e9 * fast / tokens:>17.2f} {1e9 * slow / tokens:>9.1f} {slow / fast:>7.1f} "
            f"{1e9 * per_element[name]:>13.0f} {elements:>9}"
        )
    # As many steps as there are tokens, in as many episodes: what tokens cost more, and not what a larger array does.
    ratio = arguments.max_steps * arguments.max_tokens // 2
    equal = random_batch(arguments.episodes, ratio, 1, seed=1)
    step_time = seconds(lambda: step_gae(equal), arguments.repetitions) / len(equal.tokens)
    print(f"\ntoken GAE / step GAE per element, same records: {per_element['PPO'] / per_element['StepPO']:.2f}")
    print(f"token GAE / step GAE per element, {len(equal.tokens)} steps: {per_element['PPO'] / step_time:.2f}")


if __name__ == "__main__":
    main()
