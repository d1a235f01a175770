"""The newer credit rules on episode records, and the episodes that some of them ask for."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from credit_references import batches, discounts, flat, random_batch, steppo_slow
from hypothesis import given, settings
from hypothesis import strategies as st
from newer_references import continuations_for, entropy_slow, forks_for, lists, paper_credit

from steppo_gym.credit.records import Records
from steppo_gym.rollouts.codec import ByteCodec
from steppo_gym.rollouts.episode import Episode, Failure, Step
from steppo_gym.rollouts.policies import RandomPolicy
from steppo_gym.rollouts.pool import EnvFactory, EnvPool
from steppo_gym.rollouts.rollout import Assignment, Rollout, RolloutStats, collect
from steppo_gym.trainers.branches import branch_metrics, play_branches
from steppo_gym.trainers.rules import (
    ALGORITHMS,
    BPO,
    CAPO,
    EMPG,
    G2PO,
    GRPO,
    MTGRPO,
    RLOO,
    GiGPO,
    GraphGPO,
    PlanPO,
    StepPO,
    VinePPO,
)
from steppo_gym.trainers.run.report import tokens_written


@pytest.fixture(scope="module")
def key_door_episodes():
    """An environment, and episodes of random actions in it."""
    factory, codec = EnvFactory("steppo/KeyDoor-v0", {}), ByteCodec()
    task, *_ = factory.make().task_ids
    with EnvPool(factory, num_slots=3) as pool:
        played = collect(RandomPolicy(codec, seed=0), pool, codec, [Assignment(task, 5)] * 3).episodes
    with_log_probs = [
        dataclasses.replace(
            episode,
            steps=tuple(
                dataclasses.replace(step, log_probs=tuple(-0.1 * t for _ in step.response_ids))
                for t, step in enumerate(episode.steps)
            ),
        )
        for episode in played
    ]
    return factory, with_log_probs


booleans, weights, anchors = st.booleans(), st.floats(0.0, 2.0), st.sampled_from(["state", "observation"])


def for_all(*strategies, max_examples=150):
    return lambda test: settings(deadline=None, max_examples=max_examples)(given(*strategies)(test))


def records(batch, **further):
    added = None if batch.token_rewards is None else np.array(flat(batch.token_rewards))
    return Records(batch.episodes, np.zeros(0), added, **further)


def agrees(script, rule, batch, anchor="state", **further):
    found = rule(records(batch, **further))
    assert (found.unit, found.values, found.whiten) == ("step", None, False)
    np.testing.assert_allclose(found.advantages, paper_credit(script, batch, rule, anchor), rtol=1e-7, atol=1e-7)
    return found


class TestAgainstTheDefinitions:
    @for_all(batches, discounts, weights, booleans, anchors)
    def test_g2po(self, batch, gamma, omega, normalize_std, anchor):
        found = agrees("g2po", G2PO(gamma, omega, normalize_std, anchor), batch, anchor)
        assert len(found.state_group_sizes) == len(found.advantages)

    @for_all(batches, st.floats(0.05, 0.95), weights, weights, booleans, anchors)
    def test_graphgpo(self, batch, discount, of_episode, of_graph, normalize_std, anchor):
        found = agrees("graphgpo", GraphGPO(discount, of_episode, of_graph, normalize_std, anchor), batch, anchor)
        assert len(found.state_group_sizes) == len(found.advantages)

    @for_all(batches, discounts, booleans, booleans)
    def test_mt_grpo(self, batch, alpha, unbiased, normalize_std):
        agrees("mt_grpo", MTGRPO(alpha, unbiased, normalize_std), batch)

    @for_all(batches, weights, weights, weights, booleans)
    def test_empg(self, batch, k, k_future, zeta, normalize_std):
        agrees("empg", EMPG(k, k_future, zeta, normalize_std), batch)

    @for_all(batches, weights, booleans)
    def test_planpo(self, batch, alpha, normalize_std):
        agrees("planpo", PlanPO(alpha, normalize_std), batch)

    @for_all(batches, discounts)
    def test_vineppo(self, batch, gamma):
        agrees("vineppo", VinePPO(gamma), batch, continuations=continuations_for(batch.episodes))

    @for_all(batches, discounts)
    def test_bpo(self, batch, gamma):
        agrees("bpo", BPO(gamma), batch, forked_at=forks_for(batch.episodes))

    @for_all(batches, max_examples=50)
    def test_capo_is_steppo_with_another_ratio(self, batch):
        values = np.array(flat(batch.step_values) + batch.final_values)
        found = CAPO(0.9, 0.8)(dataclasses.replace(records(batch), values=values))
        np.testing.assert_allclose(found.advantages, steppo_slow(batch, 0.9, 0.8), atol=1e-9)
        assert found.whiten and CAPO.defaults == {**StepPO.defaults, "ratio": "sqrt_centered"}


class TestRecords:
    @for_all(batches, max_examples=200)
    def test_what_the_newer_rules_read(self, batch):
        found, states, observations = records(batch), lists(batch), lists(batch, "observation")
        assert found.succeeded == states["succeeded"]
        assert found.final_state_keys == states["final_states"]
        assert found.final_observation_keys == observations["final_states"]
        np.testing.assert_allclose(found.entropies, flat(states["entropies"]), atol=1e-12)

    def test_an_observation_is_the_same_after_a_response_that_was_cut(self):
        codec, first = ByteCodec(), (1, 2)

        def step(prompt_ids, response_ids):
            return Step(prompt_ids, response_ids, None, "", 0.0, "s")

        def episode(response_ids, **ending):
            second = codec.next_prompt(first + response_ids, "a door")
            third = codec.next_prompt(second + response_ids, "a wall")
            return Episode("t", (step(first, response_ids), step(second, response_ids)), "truncated", third, **ending)

        ended, cut = episode((*b"go", codec.END)), episode(tuple(b"go on and on"))
        found = Records([ended, cut], end_token=codec.END)
        assert found.observation_keys == [first, (*b"a door", codec.END)] * 2
        assert found.final_observation_keys == [(*b"a wall", codec.END)] * 2
        assert GiGPO(anchor="observation")(found).state_group_sizes.tolist() == [2, 2, 2, 2]

    def test_an_episode_that_ran_out_of_time_stopped_in_its_last_observation(self):
        second = (1, 2, 3, 4)
        steps = tuple(Step(prompt, (3,), None, "", 0.0, "s") for prompt in ((1, 2), second))
        late = Episode("t", steps, "truncated", second, timed_out=True, final_state_key="s")
        assert Records([late]).final_observation_keys == Records([late]).observation_keys[1:] == [(4,)]

    def test_recomputed_log_probabilities_go_before_sampled_ones(self):
        batch = random_batch(1)
        recomputed = np.array([x - 1.0 for episode in batch.episodes for step in episode.steps for x in step.log_probs])
        found = records(batch, log_probs=recomputed).entropies
        np.testing.assert_allclose(found, records(batch).entropies + 1.0)

    def test_without_log_probabilities_there_are_no_entropies(self):
        batch = random_batch(1)
        silent = [
            dataclasses.replace(e, steps=tuple(dataclasses.replace(s, log_probs=None) for s in e.steps))
            for e in batch.episodes
        ]
        with pytest.raises(ValueError, match="does not say the log-probabilities of what it samples"):
            _ = Records(silent, np.zeros(0)).entropies


class TestSettings:
    @pytest.mark.parametrize(
        ("rule", "settings", "message"),
        [
            (GraphGPO, {"distance_discount": 1.0}, "distance_discount must be above 0 and below 1, got 1.0."),
            (G2PO, {"anchor": "prompt"}, "anchor must be state or observation, got 'prompt'."),
            (GraphGPO, {"anchor": "prompt"}, "anchor must be state or observation, got 'prompt'."),
            (MTGRPO, {"alpha": 2.0}, "alpha must be between 0 and 1, got 2.0."),
            (VinePPO, {"continuations": 0}, "continuations must be at least 1, got 0."),
            (BPO, {"forks": 0}, "forks must be at least 1, got 0."),
            (BPO, {"siblings": 0}, "siblings must be at least 1, got 0."),
        ],
    )
    def test_what_cannot_work_is_refused(self, rule, settings, message):
        with pytest.raises(ValueError, match=re.escape(message)):
            rule(**settings)


class TestBranches:
    @pytest.mark.parametrize("script", sorted(ALGORITHMS.keys() - {"vineppo", "bpo"}))
    def test_most_rules_ask_for_none(self, script):
        assert len(ALGORITHMS[script]().branches(records(random_batch(1)))) == 0

    @for_all(batches, st.integers(1, 3), max_examples=50)
    def test_vineppo_asks_for_every_step(self, batch, number):
        steps = sum(len(episode.steps) for episode in batch.episodes)
        wanted = [step for step in range(steps) for _ in range(number)]
        assert list(VinePPO(continuations=number).branches(records(batch))) == wanted

    @for_all(batches, st.integers(1, 3), st.integers(1, 3), max_examples=50)
    def test_bpo_asks_where_the_policy_was_least_sure(self, batch, forks, siblings):
        wanted, first = [], 0
        for episode in batch.episodes:
            unsure = sorted(range(len(episode.steps)), key=lambda t: -entropy_slow(episode.steps[t].log_probs))
            wanted += [first + t for t in sorted(unsure[:forks]) for _ in range(siblings)]
            first += len(episode.steps)
        assert list(BPO(forks=forks, siblings=siblings).branches(records(batch))) == wanted

    def test_without_forks_bpo_is_rloo(self):
        for seed in range(20):
            batch = random_batch(seed)
            batch = dataclasses.replace(batch, episodes=[e for e in batch.episodes if e.steps], token_rewards=None)
            np.testing.assert_allclose(BPO()(records(batch)).advantages, RLOO()(records(batch)).advantages, atol=1e-12)

    def test_rules_without_branches_play_nothing(self):
        episodes = random_batch(1).episodes
        found = play_branches(GRPO(), Records(episodes), None, None, 0)  # no environment is touched
        assert (found.episodes, found.forked_at, found.continuations) == (tuple(episodes), (), ())
        assert branch_metrics([found.cost, found.cost]) == {}

    def test_a_rule_chooses_states_from_the_records_it_is_given(self, key_door_episodes):
        factory, episodes = key_door_episodes
        given, seen = Records(episodes, end_token=7), []

        class Asking(VinePPO):
            def branches(self, records):
                seen.append(records)
                return []

        play_branches(Asking(), given, factory, lambda _: Rollout((), RolloutStats()), seed=0)
        assert len(seen) == 1
        assert seen[0] is given

    @pytest.mark.parametrize("rule", [VinePPO(continuations=2), BPO(forks=1, siblings=2)])
    def test_states_that_cannot_be_come_into_have_no_branches(self, rule, key_door_episodes):
        _, episodes = key_door_episodes
        broken = EnvFactory("trainer_envs:steppo-test/BreakingKeyDoor-v0", {"broken": (episodes[0].task_id,)})
        asked = []

        def play(todo):
            asked.append(list(todo))
            return Rollout((), RolloutStats())

        found = play_branches(rule, Records(episodes), broken, play, seed=3)
        assert asked == [[]]
        assert (found.episodes, found.continuations, found.replayed) == (tuple(episodes), (), 0)
        assert {episode.failure.boundary for episode in found.played} == {"environment"}
        credit = rule(Records(found.episodes, **found.for_records()))
        assert len(credit.advantages) == sum(episode.num_steps for episode in episodes)

    @pytest.mark.parametrize("rule", [VinePPO(continuations=2), BPO(forks=1, siblings=2)])
    def test_what_is_played_reaches_the_rule(self, rule, key_door_episodes):
        factory, episodes = key_door_episodes
        asked = []

        def play(todo):
            """Every third is broken, the others succeed at once."""
            asked.extend(todo)
            played = [
                Episode(a.task_id, (), "failed", failure=Failure("worker", "died"), group=a.group)
                if n % 3 == 2
                else dataclasses.replace(episodes[0], task_id=a.task_id, steps=episodes[0].steps[-1:], group=a.group)
                for n, a in enumerate(todo)
            ]
            return Rollout(tuple(played), RolloutStats())

        found = play_branches(rule, Records(episodes), factory, play, seed=3)
        steps = list(rule.branches(Records(episodes, np.zeros(0))))
        kept = [step for n, step in enumerate(steps) if n % 3 != 2]
        owners = np.repeat(np.arange(len(episodes)), [e.num_steps for e in episodes])
        assert [a.group for a in asked] == [episodes[owners[step]].group for step in steps]
        assert len({a.seed for a in asked}) == len(asked)
        if rule.trains_branches:
            assert found.episodes[: len(episodes)] == tuple(episodes)
            assert list(found.forked_at) == [-1] * len(episodes) + kept
            assert len(found.episodes) == len(found.forked_at) and found.continuations == ()
        else:
            assert found.episodes == tuple(episodes)
            assert [step for step, _ in found.continuations] == kept
        logged = branch_metrics([found.cost])
        assert logged["branch_episodes"] == len(steps)
        assert logged["branch_steps"] == len(kept)
        assert logged["branch_tokens"] == sum(len(step.response_ids) for e in found.played for step in e.steps) > 0
        assert tokens_written([{"generated_tokens": 5, **logged}, {"eval_test_success": 1.0}]) == (
            5 + logged["branch_tokens"]
        )
        assert logged["replayed_steps"] == found.replayed > 0
        credit = rule(Records(found.episodes, np.zeros(0), **found.for_records()))
        assert len(credit.advantages) == sum(episode.num_steps for episode in found.episodes)
        assert np.isfinite(credit.advantages).all()
