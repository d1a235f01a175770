from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from steppo_gym.credit.correction import CORRECTIONS, Mismatch, correction_weights
from steppo_gym.credit.losses import policy_loss
from steppo_gym.credit.whitening import moments, whiten


def ragged(seed):
    """Log-probabilities of a sampler and a policy, tokens per step and steps per episode; some are empty."""
    rng = np.random.default_rng(seed)
    steps_per_episode = rng.integers(0, 4, rng.integers(0, 5)).tolist()
    tokens_per_step = rng.integers(0, 6, sum(steps_per_episode)).tolist()
    sampled = -rng.exponential(1.0, sum(tokens_per_step))
    spread = rng.choice([0.0, 0.1, 1.0, 30.0])
    return sampled, sampled + rng.normal(0.0, 1.0, len(sampled)) * spread, tokens_per_step, steps_per_episode


def weights_slow(sampled, trained, tokens_per_step, steps_per_episode, kind, cap):
    """The definition, with lists: what each token belongs to, and the product of the ratios in it."""
    tokens, steps = iter(zip(sampled.tolist(), trained.tolist(), strict=True)), iter(tokens_per_step)
    out = []
    for number in steps_per_episode:
        pairs = [[next(tokens) for _ in range(next(steps))] for _ in range(number)]
        episode = [[math.exp(pi) / math.exp(mu) for mu, pi in step] for step in pairs]
        for step in episode:
            for ratio in step:
                if kind == "none":
                    out.append(1.0)
                elif kind == "token_truncate":
                    out.append(ratio if ratio < cap else cap)
                elif kind == "step_truncate":
                    out.append(min(math.prod(step), cap))
                else:
                    whole = math.prod(r for other in episode for r in other)
                    out.append(whole if whole <= cap else 0.0)
    return out


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_weights_are_those_of_the_definition_on_500_ragged_batches(kind):
    cut = whole = 0
    for seed in range(500):
        sampled, trained, tokens_per_step, steps_per_episode = ragged(seed)
        cap = (1.0, 2.0, 3.0)[seed % 3]
        found = correction_weights(sampled, trained, tokens_per_step, steps_per_episode, kind=kind, cap=cap)
        expected = weights_slow(sampled, trained, tokens_per_step, steps_per_episode, kind, cap)
        # Ratios below e^-20 are clamped there.
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=3e-9)
        cut += sum(weight in (cap, 0.0) for weight in expected)
        whole += sum(0.0 < weight < cap for weight in expected)
    assert kind == "none" or min(cut, whole) > 500


@pytest.mark.parametrize("kind", CORRECTIONS)
def test_on_policy_all_weights_are_exactly_one(kind):
    sampled, _, tokens_per_step, steps_per_episode = ragged(7)
    weights = correction_weights(sampled, sampled.copy(), tokens_per_step, steps_per_episode, kind=kind, cap=1.0)
    assert len(weights) > 5
    assert (weights == 1.0).all()


def expected_weighted(kind, cap, values, mu, pi):
    """The weighted mean of `values` of two-token responses from `mu`, by enumeration."""
    total = 0.0
    for i in range(len(mu)):
        for j in range(len(mu)):
            log_mu, log_pi = np.log([mu[i], mu[j]]), np.log([pi[i], pi[j]])
            weight = correction_weights(log_mu, log_pi, [2], [1], kind=kind, cap=cap)
            total += mu[i] * mu[j] * weight[0] * values[i][j]
    return total


def test_the_weights_of_whole_steps_make_means_right_and_cutting_only_lowers_them():
    rng = np.random.default_rng(3)
    mu, pi = rng.dirichlet(np.ones(4)), rng.dirichlet(np.ones(4))
    values = rng.random((4, 4))
    right = sum(pi[i] * pi[j] * values[i][j] for i in range(4) for j in range(4))
    assert expected_weighted("step_truncate", 1e9, values, mu, pi) == pytest.approx(right)
    assert expected_weighted("sequence_mask", 1e9, values, mu, pi) == pytest.approx(right)
    assert expected_weighted("token_truncate", 1e9, values, mu, pi) != pytest.approx(right, rel=0.01)
    masked, cut = (expected_weighted(kind, 1.5, values, mu, pi) for kind in ("sequence_mask", "step_truncate"))
    assert masked < cut < right


def test_extreme_ratios_stay_finite():
    far = np.array([-900.0, 0.0])
    weights = correction_weights(far, far[::-1], [1, 1], [2], kind="token_truncate", cap=3.0)
    assert weights[0] == 3.0
    assert 0.0 < weights[1] < 1e-8


def test_metrics_are_those_of_all_processes_together():
    parts = []
    for seed in (7, 8, 11):
        sampled, trained, *lengths = ragged(seed)
        weights = correction_weights(sampled, trained, *lengths, kind="token_truncate", cap=2.0)
        parts.append((sampled, trained, weights))
    sampled, trained, weights = map(np.concatenate, zip(*parts, strict=True))
    apart = Mismatch.metrics([Mismatch.of(*part, 2.0) for part in parts])
    together = Mismatch.metrics([Mismatch.of(sampled, trained, weights, 2.0)])
    assert apart == pytest.approx(together)
    assert apart["sampler_kl"] > 0.0
    assert apart["correction_mean"] == pytest.approx(weights.mean())
    assert apart["correction_cut"] == pytest.approx((weights == 2.0).mean())
    assert apart["correction_sample_size"] == pytest.approx(weights.mean() ** 2 / (weights**2).mean())


def test_the_divergence_is_that_between_sampler_and_policy():
    rng = np.random.default_rng(0)
    mu, pi = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5))
    draws = rng.choice(5, 200_000, p=mu)
    sampled, trained = np.log(mu)[draws], np.log(pi)[draws]
    found = Mismatch.metrics([Mismatch.of(sampled, trained, np.ones(len(draws)), math.inf)])
    assert found["sampler_kl"] == pytest.approx(float((mu * np.log(mu / pi)).sum()), rel=0.02)
    assert found["correction_cut"] == 0.0


def test_nothing_sampled_is_nothing_wrong():
    nothing = np.zeros(0)
    assert len(correction_weights(nothing, nothing, [], [], kind="sequence_mask", cap=2.0)) == 0
    assert Mismatch.metrics([Mismatch.of(nothing, nothing, nothing, 2.0)])["sampler_kl"] == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "step_mask"}, "off_policy_correction must be one of none, token_truncate, .* got 'step_mask'"),
        ({"cap": 0.5}, "cap must be at least 1, got 0.5"),
        ({"trained": np.zeros(3)}, "log-probabilities of 2 tokens"),
        ({"tokens_per_step": [3]}, "log-probabilities of 3 tokens"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    given = {"sampled": np.zeros(2), "trained": np.zeros(2), "tokens_per_step": [2], "steps_per_episode": [1]}
    with pytest.raises(ValueError, match=message):
        correction_weights(**{**given, "kind": "none", "cap": 2.0, **changes})


HABIT, RIGHT, SLIPS = 0, 1, 50
"""Actions of a table: what it mostly does, what it should do, and how many others there are."""


def chance_of_the_right_action(kind, slip, seed, iterations=8):
    """After training on 200 draws an iteration, of which a share is uniform over the other actions.

    The right action earns 0.15 more than the habit, the others 0.3 less. The baseline is what the draws earn on
    average, which is what a critic learns.
    """
    rng = np.random.default_rng(seed)
    earns = np.array([0.35, 0.5, *[0.05] * SLIPS])
    logits = torch.log(torch.tensor([0.85, 0.145, *[0.005 / SLIPS] * SLIPS])).requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(iterations):
        log_pi = logits.detach().log_softmax(-1).numpy().astype(np.float64)
        mu = (1.0 - slip) * np.exp(log_pi)
        mu[2:] += slip / SLIPS
        drawn = rng.choice(len(mu), 200, p=mu / mu.sum())
        advantages = earns[drawn] + rng.normal(0.0, 0.3, 200)
        advantages = whiten(advantages, moments(advantages))
        weights = correction_weights(np.log(mu)[drawn], log_pi[drawn], [1] * 200, [1] * 200, kind=kind, cap=3.0)
        for part in np.split(np.arange(200), 8):
            optimizer.zero_grad()
            loss = policy_loss(
                logits.log_softmax(-1)[drawn[part]][None],
                torch.tensor(log_pi[drawn[part]])[None].float(),
                torch.tensor((advantages * weights)[part])[None].float(),
                torch.arange(len(part))[None],
                ratio="geometric",
                clip_low=0.2,
                clip_high=0.2,
                denominator=len(part),
            )
            loss.loss.backward()
            optimizer.step()
    return float(logits.detach().softmax(-1)[RIGHT])


@pytest.mark.parametrize("seed", range(3))
def test_slips_make_a_habit_look_good_and_weights_put_that_right(seed):
    # Slips pull the baseline below what the habit earns, so that it is reinforced together with what is right. Under
    # the policy's own distribution a baseline cancels, whatever it is.
    right, none, corrected = (
        chance_of_the_right_action(*case, seed) for case in (("none", 0.0), ("none", 0.3), ("step_truncate", 0.3))
    )
    assert none < 0.4 < 0.6 < corrected
    assert right > 0.7
