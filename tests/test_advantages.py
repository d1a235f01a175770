"""Credit rules against slow references written from the definitions, and their properties."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_gym.advantages import discounted_returns, gae, step_advantages, token_advantages
from steppo_gym.group_advantages import gigpo_advantages, group_advantages

seeds = st.integers(0, 2**32 - 1)
discounts = st.one_of(st.just(1.0), st.just(0.0), st.floats(0.0, 1.0))


def for_all(*strategies):
    return lambda test: settings(deadline=None)(given(*strategies)(test))


def gae_slow(rewards, values, final_value, gamma, lam):
    """The definition: a double sum over temporal differences, O(T^2)."""
    v = [*values, final_value]
    deltas = [rewards[t] + gamma * v[t + 1] - v[t] for t in range(len(rewards))]
    return [sum((gamma * lam) ** k * deltas[t + k] for k in range(len(rewards) - t)) for t in range(len(rewards))]


def returns_slow(rewards, gamma):
    return [sum(gamma ** (k - t) * rewards[k] for k in range(t, len(rewards))) for t in range(len(rewards))]


def normalized_slow(x, others, normalize_std, eps=1e-6):
    """One member of a group relative to all of it, itself included."""
    if len(others) == 1:
        return 0.0
    mean = math.fsum(others) / len(others)
    if not normalize_std:
        return x - mean
    return (x - mean) / (math.sqrt(math.fsum((y - mean) ** 2 for y in others) / (len(others) - 1)) + eps)


def random_episodes(seed, max_episodes=5, max_steps=7):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, max_steps, size=rng.integers(1, max_episodes)).tolist()
    rewards = [rng.normal(size=n) for n in lengths]
    values = [rng.normal(size=n) for n in lengths]
    final_values = rng.normal(size=len(lengths)) * rng.integers(0, 2, size=len(lengths))
    return rng, lengths, rewards, values, final_values


class TestGae:
    @for_all(seeds, st.integers(0, 12), discounts, discounts)
    def test_matches_the_double_sum(self, seed, length, gamma, lam):
        rng = np.random.default_rng(seed)
        rewards, values, final = rng.normal(size=length), rng.normal(size=length), rng.normal()
        advantages, returns = gae(rewards, values, final_value=final, gamma=gamma, lam=lam)
        np.testing.assert_allclose(advantages, gae_slow(rewards, values, final, gamma, lam), atol=1e-12)
        np.testing.assert_allclose(returns - values, advantages, atol=1e-12)

    @for_all(seeds, st.integers(1, 12))
    def test_without_discount_it_is_reward_to_go_minus_value(self, seed, length):
        rng = np.random.default_rng(seed)
        rewards, values, final = rng.normal(size=length), rng.normal(size=length), rng.normal()
        advantages, _ = gae(rewards, values, final_value=final, gamma=1.0, lam=1.0)
        to_go = [math.fsum(rewards[t:]) + final - values[t] for t in range(length)]
        np.testing.assert_allclose(advantages, to_go, atol=1e-12)

    @for_all(seeds, st.integers(1, 12), discounts, discounts)
    def test_a_perfect_critic_leaves_no_advantage(self, seed, length, gamma, lam):
        rng = np.random.default_rng(seed)
        rewards, final = rng.normal(size=length), rng.normal()
        values = [r + gamma ** (length - t) * final for t, r in enumerate(returns_slow(rewards, gamma))]
        advantages, returns = gae(rewards, values, final_value=final, gamma=gamma, lam=lam)
        np.testing.assert_allclose(advantages, 0.0, atol=1e-10)
        np.testing.assert_allclose(returns, values, atol=1e-10)

    @for_all(seeds, st.integers(1, 12), st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.floats(0.5, 2.0))
    def test_truncation_adds_exactly_the_discounted_final_value(self, seed, length, gamma, lam, final):
        rng = np.random.default_rng(seed)
        rewards, values = rng.normal(size=length), rng.normal(size=length)
        truncated, _ = gae(rewards, values, final_value=final, gamma=gamma, lam=lam)
        terminated, _ = gae(rewards, values, final_value=0.0, gamma=gamma, lam=lam)
        steps_to_the_end = np.arange(length)[::-1]
        np.testing.assert_allclose(
            truncated - terminated, (gamma * lam) ** steps_to_the_end * gamma * final, atol=1e-12
        )
        assert truncated[-1] != terminated[-1]

    def test_shapes_are_checked(self):
        with pytest.raises(ValueError, match=r"rewards \(3,\), values \(2,\)"):
            gae([1, 2, 3], [1, 2], final_value=0.0, gamma=1.0, lam=1.0)
        with pytest.raises(ValueError, match="one axis"):
            gae(np.zeros((2, 2)), np.zeros((2, 2)), final_value=0.0, gamma=1.0, lam=1.0)

    def test_the_arguments_are_not_changed(self):
        rewards, values = np.ones(3), np.ones(3)
        gae(rewards, values, final_value=5.0, gamma=0.9, lam=0.9)
        assert rewards.tolist() == values.tolist() == [1.0, 1.0, 1.0]

    @for_all(seeds, st.integers(0, 12), discounts)
    def test_discounted_returns(self, seed, length, gamma):
        rewards = np.random.default_rng(seed).normal(size=length)
        np.testing.assert_allclose(discounted_returns(rewards, gamma), returns_slow(rewards, gamma), atol=1e-12)


class TestStepAdvantages:
    @for_all(seeds, discounts, discounts)
    def test_each_episode_on_its_own(self, seed, gamma, lam):
        _, lengths, rewards, values, final_values = random_episodes(seed)
        advantages, returns = step_advantages(
            np.concatenate(rewards),
            np.concatenate(values),
            final_values,
            steps_per_episode=lengths,
            gamma=gamma,
            lam=lam,
        )
        slow = [gae_slow(r, v, f, gamma, lam) for r, v, f in zip(rewards, values, final_values, strict=True)]
        np.testing.assert_allclose(advantages, np.concatenate(slow), atol=1e-12)
        np.testing.assert_allclose(returns, advantages + np.concatenate(values), atol=1e-12)

    def test_a_win_after_three_steps_by_hand(self):
        advantages, _ = step_advantages([0, 0, 1], [0.5, 0.5, 0.5], [0.0], steps_per_episode=[3], gamma=0.99, lam=1.0)
        np.testing.assert_allclose(advantages, [0.4801, 0.49, 0.5], atol=1e-12)

    @pytest.mark.parametrize(
        ("lengths", "final_values", "message"),
        [
            ([2, 2], [0.0, 0.0], "sum to the 3 steps"),
            ([4, -1], [0.0, 0.0], "non-negative"),
            ([1, 2], [0.0], "one entry per episode, got 1 for 2"),
        ],
    )
    def test_sizes_are_checked(self, lengths, final_values, message):
        with pytest.raises(ValueError, match=message):
            step_advantages(np.zeros(3), np.zeros(3), final_values, steps_per_episode=lengths, gamma=1.0, lam=1.0)


class TestTokenAdvantages:
    @for_all(seeds, discounts, discounts)
    def test_matches_the_double_sum_over_tokens(self, seed, gamma, lam):
        rng, lengths, rewards, _, final_values = random_episodes(seed)
        tokens = [rng.integers(1, 5, size=n).tolist() for n in lengths]
        values, slow = [], []
        for e in range(len(lengths)):
            token_rewards = [x for r, n in zip(rewards[e], tokens[e], strict=True) for x in [0.0] * (n - 1) + [r]]
            values.append(rng.normal(size=len(token_rewards)))
            slow.append(gae_slow(token_rewards, values[e], final_values[e], gamma, lam))
        advantages, returns = token_advantages(
            np.concatenate(rewards),
            np.concatenate(values),
            final_values,
            tokens_per_step=[n for steps in tokens for n in steps],
            steps_per_episode=lengths,
            gamma=gamma,
            lam=lam,
        )
        np.testing.assert_allclose(advantages, np.concatenate(slow), atol=1e-12)
        np.testing.assert_allclose(returns, advantages + np.concatenate(values), atol=1e-12)

    @for_all(seeds, discounts, discounts)
    def test_with_steps_of_one_token_it_is_step_credit(self, seed, gamma, lam):
        _, lengths, rewards, values, final_values = random_episodes(seed)
        args = np.concatenate(rewards), np.concatenate(values), final_values
        by_step = step_advantages(*args, steps_per_episode=lengths, gamma=gamma, lam=lam)
        by_token = token_advantages(
            *args, tokens_per_step=[1] * sum(lengths), steps_per_episode=lengths, gamma=gamma, lam=lam
        )
        np.testing.assert_array_equal(by_step, by_token)

    def test_token_credit_decays_with_tokens_and_step_credit_with_steps(self):
        win = {"gamma": 0.5, "lam": 1.0, "steps_per_episode": [2]}
        by_step, _ = step_advantages([0, 1], [0, 0], [0], **win)
        by_token, _ = token_advantages([0, 1], np.zeros(5), [0], tokens_per_step=[2, 3], **win)
        assert by_step.tolist() == [0.5, 1.0]
        assert by_token.tolist() == [0.0625, 0.125, 0.25, 0.5, 1.0]

    def test_a_step_without_tokens_is_refused(self):
        with pytest.raises(ValueError, match="step 1 has none"):
            token_advantages([0, 1], [0, 0], [0], tokens_per_step=[2, 0], steps_per_episode=[2], gamma=1.0, lam=1.0)

    def test_sizes_are_checked(self):
        with pytest.raises(ValueError, match="sum to the 3 token values"):
            token_advantages([0], [0, 0, 0], [0], tokens_per_step=[2], steps_per_episode=[1], gamma=1.0, lam=1.0)
        with pytest.raises(ValueError, match="one entry per step, got 2 for 1"):
            token_advantages([0], [0, 0], [0], tokens_per_step=[1, 1], steps_per_episode=[1], gamma=1.0, lam=1.0)


class TestGroupAdvantages:
    @for_all(seeds, st.integers(1, 15), st.booleans())
    def test_matches_the_definition(self, seed, size, normalize_std):
        rng = np.random.default_rng(seed)
        returns, groups = rng.normal(size=size), rng.integers(0, 4, size=size).tolist()
        found = group_advantages(returns, groups, normalize_std=normalize_std)
        slow = [
            normalized_slow(x, [y for y, h in zip(returns, groups, strict=True) if h == g], normalize_std)
            for x, g in zip(returns, groups, strict=True)
        ]
        np.testing.assert_allclose(found, slow, atol=1e-9)

    @for_all(seeds, st.integers(2, 10))
    def test_a_group_has_mean_zero_and_unit_std_and_no_memory_of_scale(self, seed, size):
        returns = np.random.default_rng(seed).normal(size=size)
        found = group_advantages(returns, ["task"] * size, eps=0.0)
        np.testing.assert_allclose([found.mean(), found.std(ddof=1)], [0.0, 1.0], atol=1e-9)
        np.testing.assert_allclose(group_advantages(3.0 * returns + 7.0, ["task"] * size, eps=0.0), found, atol=1e-7)

    @for_all(st.floats(-1e6, 1e6), st.integers(1, 9), st.booleans())
    def test_equal_returns_and_groups_of_one_get_exactly_zero(self, value, size, normalize_std):
        equal = group_advantages([value] * size, [0] * size, normalize_std=normalize_std)
        assert equal.tolist() == [0.0] * size
        alone = group_advantages(value * np.arange(1, size + 1), list(range(size)), normalize_std=normalize_std)
        assert alone.tolist() == [0.0] * size

    @for_all(seeds)
    def test_order_does_not_matter(self, seed):
        rng = np.random.default_rng(seed)
        returns, groups, order = rng.normal(size=8), rng.integers(0, 3, size=8), rng.permutation(8)
        found = group_advantages(returns, groups.tolist())
        np.testing.assert_allclose(group_advantages(returns[order], groups[order].tolist()), found[order], atol=1e-9)

    def test_lengths_are_checked_and_nothing_is_allowed(self):
        with pytest.raises(ValueError, match="one entry per return, got 1 for 2"):
            group_advantages([1, 2], [0])
        assert group_advantages([], []).shape == (0,)


class TestGigpo:
    @for_all(seeds, discounts, st.floats(0.0, 2.0), st.booleans())
    def test_matches_the_definition(self, seed, gamma, omega, normalize_std):
        rng, lengths, rewards, _, _ = random_episodes(seed, max_episodes=7)
        groups = rng.integers(0, 2, size=len(lengths)).tolist()
        states = [[f"room {x}" for x in rng.integers(0, 3, size=n)] for n in lengths]
        members: dict = {}
        for e, n in enumerate(lengths):
            members.setdefault(groups[e], []).append(math.fsum(rewards[e]))
            for t in range(n):
                members.setdefault((groups[e], states[e][t]), []).append(returns_slow(rewards[e], gamma)[t])
        slow = []
        for e, n in enumerate(lengths):
            episode = normalized_slow(math.fsum(rewards[e]), members[groups[e]], normalize_std)
            for t in range(n):
                of_step = returns_slow(rewards[e], gamma)[t]
                slow.append(episode + omega * normalized_slow(of_step, members[groups[e], states[e][t]], normalize_std))
        found = gigpo_advantages(
            np.concatenate(rewards),
            [key for steps in states for key in steps],
            groups,
            steps_per_episode=lengths,
            gamma=gamma,
            omega=omega,
            normalize_std=normalize_std,
        )
        # Returns that are equal in exact arithmetic differ by 1e-16 here or there, which eps = 1e-6 turns into 1e-10.
        np.testing.assert_allclose(found, slow, atol=1e-8)

    def test_the_better_of_two_actions_in_one_state_is_preferred(self):
        found = gigpo_advantages(
            [0, 0, 1, 0],
            ["hall", "room", "hall", "shed"],
            ["game", "game"],
            steps_per_episode=[2, 2],
            gamma=0.5,
            normalize_std=False,
        )
        # Episode term -0.5 and +0.5; step term only in the hall, where the returns are 0 and 1.
        assert found.tolist() == [-1.0, -0.5, 1.0, 0.5]

    def test_equal_states_of_different_groups_are_not_compared(self):
        found = gigpo_advantages([0, 1], ["s", "s"], ["a", "b"], steps_per_episode=[1, 1], gamma=1.0)
        assert found.tolist() == [0.0, 0.0]

    def test_a_state_seen_twice_in_one_episode_is_a_step_group(self):
        found = gigpo_advantages([0, 1], ["s", "s"], ["a"], steps_per_episode=[2], gamma=0.5, normalize_std=False)
        assert found.tolist() == [-0.25, 0.25]

    def test_sizes_are_checked(self):
        with pytest.raises(ValueError, match="one entry per step, got 1 for 2"):
            gigpo_advantages([0, 1], ["s"], ["a"], steps_per_episode=[2], gamma=1.0)
        with pytest.raises(ValueError, match="one entry per episode, got 2 for 1"):
            gigpo_advantages([0, 1], ["s", "s"], ["a", "b"], steps_per_episode=[2], gamma=1.0)


def test_credit_needs_no_torch():
    code = "import sys, steppo_gym.advantages, steppo_gym.whitening; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
