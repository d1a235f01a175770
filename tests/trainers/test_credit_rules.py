"""Every credit rule, on episode records, against the definitions in `credit_references`, and its properties."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest
from credit_references import (
    Batch,
    alike_slow,
    all_steps,
    batches,
    discounts,
    flat,
    gagpo_slow,
    gigpo_slow,
    grpo_slow,
    hgpo_slow,
    nested_slow,
    observation_slow,
    ppo_slow,
    random_batch,
    reinforce_pp_slow,
    rloo_slow,
    steppo_slow,
    whitened_slow,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_gym.credit.averages import LOSS_AVERAGES, loss_weights
from steppo_gym.credit.losses import RATIOS
from steppo_gym.credit.records import Credit, CreditRule, Records, explained_variance
from steppo_gym.credit.whitening import merge_moments, moments, whiten
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.trainers.rules import ALGORITHMS, GAGPO, GRPO, HGPO, PPO, RLOO, GiGPO, ReinforcePlusPlus, StepPO

anchors = st.sampled_from(["state", "observation"])
GROUP_RULES = {
    "GRPO": GRPO(),
    "RLOO": RLOO(),
    "GiGPO": GiGPO(0.9, omega=0.7),
    "HGPO": HGPO(0.9),
    "GAGPO": GAGPO(0.9, 0.8),
}
RULES = {
    "StepPO": StepPO(0.9, 0.8),
    "PPO": PPO(0.9, 0.8),
    "REINFORCE++": ReinforcePlusPlus(0.9),
    **GROUP_RULES,
}


def for_all(*strategies, max_examples=150):
    return lambda test: settings(max_examples=max_examples)(given(*strategies)(test))


def records(batch, unit=None):
    values = {None: [], "step": batch.step_values, "token": batch.token_values}[unit]
    added = None if batch.token_rewards is None else np.array(flat(batch.token_rewards))
    return Records(batch.episodes, np.array(flat(values) + (batch.final_values if unit else [])), added)


def credit(rule, batch):
    return rule(records(batch, rule.critic))


def num_tokens(batch):
    return len(flat(batch.token_values))


def agrees(found, slow):
    # Returns that are equal in exact arithmetic differ by 1e-16 here or there, which eps = 1e-6 turns into 1e-10.
    np.testing.assert_allclose(found, slow, rtol=1e-9, atol=1e-8)


def test_the_random_batches_hold_every_case():
    every = [random_batch(seed) for seed in range(120)]
    episodes = [episode for batch in every for episode in batch.episodes]
    assert {len(episode.steps) for episode in episodes} == set(range(6))
    assert {(e.ended, len(e.steps) == 1) for e in episodes} == set(
        itertools.product(("terminated", "truncated"), (True, False))
    )
    assert {len(step.response_ids) for episode in episodes for step in episode.steps} == {1, 2, 3}
    assert any(sum(other.group == e.group for other in batch.episodes) == 1 for batch in every for e in batch.episodes)
    assert any(len({e.group for e in batch.episodes}) == 1 and len(batch.episodes) == 6 for batch in every)
    assert {batch.token_rewards is None for batch in every} == {True, False}
    assert any(len(batch.episodes) > 3 and not any(batch.reward(e, t) for e, t in all_steps(batch)) for batch in every)
    for anchor in ("state", "observation"):
        alike = [len(alike_slow(batch, e, t, 0, anchor)) for batch in every for e, t in all_steps(batch)]
        assert 0.1 < np.mean(np.array(alike) == 1) < 0.9
        assert max(alike) > 5


class TestAgainstTheDefinitions:
    @for_all(batches, discounts, discounts, st.booleans())
    def test_steppo(self, batch, gamma, lam, whiten):
        slow = steppo_slow(batch, gamma, lam)
        found = credit(StepPO(gamma, lam, whiten), batch)
        assert found.unit == "step"
        agrees(found.advantages, slow)
        assert found.whiten == whiten
        agrees(found.returns, np.array(slow) + flat(batch.step_values))
        assert found.values.tolist() == flat(batch.step_values)

    @for_all(batches, discounts, discounts, st.booleans())
    def test_ppo(self, batch, gamma, lam, whiten):
        slow = ppo_slow(batch, gamma, lam)
        found = credit(PPO(gamma, lam, whiten), batch)
        assert found.unit == "token"
        agrees(found.advantages, slow)
        assert found.whiten == whiten
        agrees(found.returns, np.array(slow) + flat(batch.token_values))
        assert found.values.tolist() == flat(batch.token_values)

    @for_all(batches, discounts, st.booleans())
    def test_reinforce_pp(self, batch, gamma, whiten):
        slow = reinforce_pp_slow(batch, gamma)
        found = credit(ReinforcePlusPlus(gamma, whiten), batch)
        assert (found.unit, found.values, found.returns) == ("token", None, None)
        agrees(found.advantages, slow)
        assert found.whiten == whiten

    @for_all(batches, st.booleans())
    def test_grpo_and_gspo(self, batch, normalize_std):
        found = credit(GRPO(normalize_std), batch)
        assert (found.unit, found.values, found.whiten) == ("step", None, False)
        agrees(found.advantages, grpo_slow(batch, normalize_std))

    @for_all(batches)
    def test_rloo(self, batch):
        found = credit(RLOO(), batch)
        assert (found.unit, found.values, found.whiten) == ("step", None, False)
        agrees(found.advantages, rloo_slow(batch))

    @for_all(batches, discounts, st.floats(0.0, 2.0), st.booleans(), anchors)
    def test_gigpo(self, batch, gamma, omega, normalize_std, anchor):
        found = credit(GiGPO(gamma, omega, normalize_std, anchor), batch)
        assert (found.unit, found.values, found.whiten) == ("step", None, False)
        agrees(found.advantages, gigpo_slow(batch, gamma, omega, normalize_std, anchor))

    @for_all(batches, discounts, st.integers(0, 3), st.sampled_from([0.0, 1.0, 2.0]), st.booleans(), anchors)
    def test_hgpo(self, batch, gamma, history, alpha, normalize_std, anchor):
        found = credit(HGPO(gamma, history, alpha, normalize_std, anchor), batch)
        assert (found.unit, found.values, found.whiten) == ("step", None, False)
        agrees(found.advantages, hgpo_slow(batch, gamma, history, alpha, normalize_std, anchor))

    @for_all(batches, discounts, discounts, st.booleans(), anchors)
    def test_gagpo(self, batch, gamma, lam, normalize_std, anchor):
        found = credit(GAGPO(gamma, lam, normalize_std, anchor), batch)
        assert (found.unit, found.values, found.whiten) == ("step", None, False)
        agrees(found.advantages, gagpo_slow(batch, gamma, lam, normalize_std, anchor))

    @for_all(batches, anchors, max_examples=100)
    def test_rules_that_compare_states_say_with_how_many(self, batch, anchor):
        sizes = [len(alike_slow(batch, e, t, 0, anchor)) for e, t in all_steps(batch)]
        for rule in (GiGPO(0.9), HGPO(0.9), GAGPO(0.9, 0.8)):
            found = credit(dataclasses.replace(rule, anchor=anchor), batch)
            assert found.state_group_sizes.tolist() == sizes


class TestRecords:
    @for_all(batches, max_examples=100)
    def test_they_are_the_episodes_laid_out_flat(self, batch):
        found = records(batch, "step")
        steps = [step for episode in batch.episodes for step in episode.steps]
        assert found.steps_per_episode == [len(episode.steps) for episode in batch.episodes]
        assert found.tokens_per_step == [len(step.response_ids) for step in steps]
        assert found.environment_rewards.tolist() == [step.reward for step in steps]
        assert found.state_keys == [step.state_key for step in steps]
        assert found.group_ids == [episode.group for episode in batch.episodes]
        assert [list(key) for key in found.observation_keys] == [
            observation_slow(batch.episodes[e], t) for e, t in all_steps(batch)
        ]
        agrees(found.rewards, [batch.reward(e, t) for e, t in all_steps(batch)])
        agrees(found.returns, [sum(batch.rewards(e)) for e in range(len(batch.episodes))])
        values, final_values = found.split_values(len(steps))
        assert (values.tolist(), final_values.tolist()) == (flat(batch.step_values), batch.final_values)

    def test_explained_variance(self):
        returns = np.array([0.0, 1.0, 2.0])
        assert explained_variance(returns, returns) == 1.0
        assert explained_variance(np.full(3, 5.0), returns) == 0.0
        assert explained_variance(-returns, returns) == -3.0
        assert np.isnan(explained_variance(returns, np.ones(3)))


class TestProperties:
    @for_all(batches, max_examples=100)
    def test_without_discount_it_is_return_minus_value(self, batch):
        found = credit(StepPO(1.0, 1.0, whiten_advantages=False), batch)
        to_go = [
            sum(batch.rewards(e)[t:]) + batch.final_values[e] - batch.step_values[e][t] for e, t in all_steps(batch)
        ]
        agrees(found.advantages, to_go)

    @for_all(batches, discounts, discounts, max_examples=100)
    def test_a_perfect_critic_leaves_no_advantage(self, batch, gamma, lam):
        values = []
        for e in range(len(batch.episodes)):
            expected = [batch.final_values[e]]
            for reward in reversed(batch.rewards(e)):
                expected.insert(0, reward + gamma * expected[0])
            values.append(expected[:-1])
        perfect = dataclasses.replace(batch, step_values=values)
        agrees(credit(StepPO(gamma, lam, whiten_advantages=False), perfect).advantages, 0.0)

    @for_all(st.integers(0, 2**32 - 1), discounts, discounts, max_examples=100)
    def test_with_steps_of_one_token_steppo_is_ppo(self, seed, gamma, lam):
        batch = random_batch(seed, max_tokens=1)
        by_token = dataclasses.replace(batch, token_values=[[[x] for x in part] for part in batch.step_values])
        found, other = credit(StepPO(gamma, lam), batch), credit(PPO(gamma, lam), by_token)
        agrees(found.advantages, other.advantages)
        agrees(found.returns, other.returns)

    @pytest.mark.parametrize("rule", [StepPO(0.9, 0.8, False), PPO(0.9, 0.8, False)])
    @for_all(batches, max_examples=50)
    def test_truncated_episodes_differ_from_terminated_ones_by_the_value_they_stopped_at(self, rule, batch):
        ended = dataclasses.replace(batch, final_values=[0.0] * len(batch.episodes))
        difference = credit(rule, batch).advantages - credit(rule, ended).advantages
        decisions = [len(episode.steps) for episode in batch.episodes]
        if rule.critic == "token":
            decisions = [sum(map(len, part)) for part in batch.token_values]
        wanted = [
            0.9 * 0.72 ** (n - 1 - k) * final
            for n, final in zip(decisions, batch.final_values, strict=True)
            for k in range(n)
        ]
        agrees(difference, wanted)

    @for_all(st.integers(0, 2**32 - 1), st.floats(-3.0, 3.0), max_examples=100)
    def test_a_group_of_equal_returns_gets_exactly_zero(self, seed, total):
        batch = random_batch(seed)
        episodes = []
        for episode in batch.episodes:
            rewards = [0.0] * (len(episode.steps) - 1) + [total]
            pairs = zip(episode.steps, rewards, strict=False)
            steps = tuple(dataclasses.replace(step, reward=reward) for step, reward in pairs)
            # An episode without steps has a return of 0, whatever the others have.
            episodes.append(dataclasses.replace(episode, steps=steps, group=episode.group if steps else -1))
        equal = dataclasses.replace(batch, episodes=episodes, token_rewards=None)
        for rule in (GRPO(), GRPO(normalize_std=False), RLOO()):
            assert not credit(rule, equal).advantages.any()

    @pytest.mark.parametrize("name", RULES)
    @for_all(batches, st.randoms(use_true_random=False), max_examples=50)
    def test_the_order_of_episodes_only_orders_the_credit(self, name, batch, rng):
        order = list(range(len(batch.episodes)))
        rng.shuffle(order)
        shuffled = Batch(
            *([part[i] for i in order] for part in (batch.episodes, batch.step_values, batch.token_values)),
            final_values=[batch.final_values[i] for i in order],
            token_rewards=None if batch.token_rewards is None else [batch.token_rewards[i] for i in order],
        )
        before, after = credit(RULES[name], batch), credit(RULES[name], shuffled)
        sizes = [
            len(episode.steps) if before.unit == "step" else sum(len(step.response_ids) for step in episode.steps)
            for episode in batch.episodes
        ]
        by_episode = np.split(before.advantages, np.cumsum(sizes)[:-1])
        agrees(after.advantages, np.concatenate([by_episode[i] for i in order]))

    @pytest.mark.parametrize("name", GROUP_RULES)
    @for_all(batches, max_examples=50)
    def test_the_names_of_groups_and_states_mean_nothing(self, name, batch):
        def renamed(step):
            return dataclasses.replace(step, state_key={"A": "C", "B": "A", "C": "a new name"}[step.state_key])

        episodes = [
            dataclasses.replace(episode, steps=tuple(map(renamed, episode.steps)), group=70 - 3 * episode.group)
            for episode in batch.episodes
        ]
        other = dataclasses.replace(batch, episodes=episodes)
        agrees(credit(GROUP_RULES[name], batch).advantages, credit(GROUP_RULES[name], other).advantages)

    @for_all(batches, discounts, st.booleans(), anchors, max_examples=100)
    def test_hgpo_without_history_is_the_step_term_of_gigpo(self, batch, gamma, normalize_std, anchor):
        found = credit(HGPO(gamma, 0, 1.0, normalize_std, anchor), batch)
        agrees(found.advantages, nested_slow(batch, gamma, 0, normalize_std, anchor))
        both = credit(GiGPO(gamma, 1.0, normalize_std, anchor), batch)
        agrees(found.advantages + credit(GRPO(normalize_std), batch).advantages, both.advantages)

    @pytest.mark.parametrize("name", ["StepPO", "PPO", "REINFORCE++"])
    @for_all(batches, batches, max_examples=50)
    def test_processes_whiten_together(self, name, batch, other):
        together = Batch(
            *(getattr(batch, f) + getattr(other, f) for f in ("episodes", "step_values", "token_values")),
            final_values=batch.final_values + other.final_values,
            token_rewards=None,
        )
        batch, other = (dataclasses.replace(part, token_rewards=None) for part in (batch, other))
        found, rest, whole = (credit(RULES[name], part) for part in (batch, other, together))
        assert found.whiten
        everywhere = merge_moments(moments(part.advantages) for part in (found, rest))
        wanted = whitened_slow(list(whole.advantages))
        agrees(whiten(found.advantages, everywhere), wanted[: len(found.advantages)])
        agrees(whiten(rest.advantages, everywhere), wanted[len(found.advantages) :])

    def test_reinforce_pp_gives_credit_to_the_first_step_of_a_won_episode(self):
        """The code released with StepPO starts anew in each step, so that only the last one is paid."""
        steps = [Step((1,), (2, 3), None, "", reward, "") for reward in (0.0, 0.0, 1.0)]
        batch = Batch([Episode("task", tuple(steps), "terminated")], [], [[[0.0, 0.0]] * 3], [0.0], None)
        assert credit(ReinforcePlusPlus(1.0, whiten_advantages=False), batch).advantages.tolist() == [1.0] * 6
        discounted = credit(ReinforcePlusPlus(0.5, whiten_advantages=False), batch).advantages
        assert discounted.tolist() == [1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0]

    @pytest.mark.parametrize("name", RULES)
    def test_an_iteration_without_episodes_has_no_credit(self, name):
        assert credit(RULES[name], Batch([], [], [], [], None)).advantages.shape == (0,)


def weights_of(batch, average, ratio):
    found = records(batch)
    return loss_weights(found.tokens_per_step, found.steps_per_episode, average, ratio)


class TestWeights:
    """What a step or an episode counts in the loss: its weights, over the denominator."""

    @pytest.mark.parametrize("ratio", RATIOS)
    @pytest.mark.parametrize("average", LOSS_AVERAGES)
    @for_all(batches, max_examples=50)
    def test_what_is_averaged_over_counts_the_same(self, average, ratio, batch):
        steps = all_steps(batch)
        weights, kl_weights = weights_of(batch, average, ratio)
        of_token = [(e, t) for e, t in steps for _ in batch.episodes[e].steps[t].response_ids]
        shares = dict.fromkeys(steps, 0.0)
        kl_shares = dict.fromkeys(steps, 0.0)
        for (e, t), weight, kl_weight in zip(of_token, weights, kl_weights, strict=True):
            # The loss takes the mean over the tokens of a step where its ratio is that of a step.
            shares[e, t] += weight if ratio == "token" else weight / len(batch.episodes[e].steps[t].response_ids)
            kl_shares[e, t] += kl_weight
        for e, t in steps:
            episode = batch.episodes[e]
            tokens = [len(step.response_ids) for step in episode.steps]
            wanted = {
                "tokens": tokens[t],
                "constant": tokens[t],
                "steps": 1.0,
                "episodes": tokens[t] / sum(tokens) if ratio == "token" else 1 / len(tokens),
            }[average]
            assert shares[e, t] == pytest.approx(wanted)
            assert kl_shares[e, t] == pytest.approx(wanted)

    @pytest.mark.parametrize("ratio", RATIOS)
    def test_a_long_episode_counts_more_unless_episodes_are_averaged(self, ratio):
        def episode(number):
            return Episode("task", tuple(Step((1,), (2, 3), None, "", 0.0, "") for _ in range(number)), "terminated")

        batch = Batch([episode(1), episode(4)], [], [[[0.0, 0.0]], [[0.0, 0.0]] * 4], [0.0, 0.0], None)
        for average in LOSS_AVERAGES:
            weights, _ = weights_of(batch, average, ratio)
            long, short = sum(weights[2:]), sum(weights[:2])
            assert long == pytest.approx(short if average == "episodes" else 4 * short)

    @for_all(batches, max_examples=50)
    def test_credit_of_tokens_stays_with_its_token_and_that_of_steps_goes_to_all_of_theirs(self, batch):
        lengths = records(batch).tokens_per_step
        of_tokens, of_steps = np.arange(num_tokens(batch)) + 1.0, np.arange(len(lengths)) + 1.0
        assert Credit("token", of_tokens).of_tokens(lengths).tolist() == of_tokens.tolist()
        wanted = [float(step + 1) for step, length in enumerate(lengths) for _ in range(length)]
        assert Credit("step", of_steps).of_tokens(lengths).tolist() == wanted
        assert weights_of(batch, "tokens", "token")[0].tolist() == [1.0] * num_tokens(batch)


class TestSettings:
    """Rules are their own settings."""

    @pytest.mark.parametrize(
        ("rule", "settings", "message"),
        [
            (StepPO, {"gamma": 1.01}, "gamma must be between 0 and 1, got 1.01."),
            (StepPO, {"gae_lambda": -0.1}, "gae_lambda must be between 0 and 1, got -0.1."),
            (PPO, {"gae_lambda": float("nan")}, "gae_lambda must be between 0 and 1, got nan."),
            (ReinforcePlusPlus, {"gamma": 2.0}, "gamma must be between 0 and 1, got 2.0."),
            (GiGPO, {"anchor": "prompt"}, "anchor must be state or observation, got 'prompt'."),
            (HGPO, {"anchor": "prompt"}, "anchor must be state or observation, got 'prompt'."),
            (GAGPO, {"anchor": "prompt"}, "anchor must be state or observation, got 'prompt'."),
            (HGPO, {"history": -1}, "history must be at least 0, got -1."),
        ],
    )
    def test_what_cannot_work_is_refused(self, rule, settings, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            rule(**settings)

    @pytest.mark.parametrize("rule", [rule for rule in ALGORITHMS.values() if "gamma" in rule.__dataclass_fields__])
    def test_every_discount_has_its_range_checked(self, rule):
        for name in {"gamma", "gae_lambda"} & set(rule.__dataclass_fields__):
            assert getattr(rule(**{name: 0.5}), name) == 0.5
            with pytest.raises(ValueError, match=rf"^{name} must be between 0 and 1, got -1\.0\.$"):
                rule(**{name: -1.0})

    @pytest.mark.parametrize("rule", ALGORITHMS.values())
    def test_settings_cannot_change_and_have_help(self, rule):
        assert all(field.metadata["help"].endswith(".") for field in dataclasses.fields(rule))
        for field in dataclasses.fields(rule):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(rule(), field.name, field.default)

    def test_a_rule_without_a_formula_cannot_be_made(self):
        class Formless(CreditRule):
            pass

        with pytest.raises(TypeError, match="abstract"):
            Formless()
