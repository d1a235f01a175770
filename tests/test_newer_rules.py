"""Credit from state graphs, step rewards, entropies, lengths and continuations: slow references, and what must hold."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from credit_references import discounts
from hypothesis import given, settings
from hypothesis import strategies as st
from newer_references import (
    bpo_slow,
    empg_slow,
    entropy_slow,
    g2po_slow,
    graphgpo_slow,
    mt_grpo_slow,
    planpo_slow,
    random_graph,
    vine_slow,
)

from steppo_gym.credit.branching import bpo_advantages, highest_entropy_steps, vine_advantages
from steppo_gym.credit.groups import group_advantages, rloo_advantages
from steppo_gym.credit.modulation import empg_advantages, planpo_advantages, step_entropies
from steppo_gym.credit.state_graph import g2po_advantages, graphgpo_advantages
from steppo_gym.credit.step_rewards import mt_grpo_advantages

graphs = st.integers(0, 2**32 - 1).map(random_graph)
booleans = st.booleans()
# Returns that are equal in exact arithmetic differ by 1e-16 here or there, which eps = 1e-6 turns into 1e-10.
CLOSE = {"rtol": 1e-7, "atol": 1e-7}


def for_all(*strategies, max_examples=150):
    return lambda test: settings(deadline=None, max_examples=max_examples)(given(*strategies)(test))


def flat(nested):
    return [x for part in nested for x in part]


def lengths(graph):
    return [len(of_episode) for of_episode in graph["rewards"]]


def steps_numbered(graph):
    """forked_at as the product takes it: numbers of steps."""
    starts = np.cumsum([0, *lengths(graph)]).tolist()
    return [-1 if place is None else starts[place[0]] + place[1] for place in graph["forked_at"]]


def g2po(graph, gamma=0.95, **kwargs):
    return g2po_advantages(
        flat(graph["rewards"]),
        flat(graph["states"]),
        graph["final_states"],
        graph["groups"],
        steps_per_episode=lengths(graph),
        gamma=gamma,
        **kwargs,
    )


def graphgpo(graph, **kwargs):
    return graphgpo_advantages(
        flat(graph["rewards"]),
        flat(graph["states"]),
        graph["final_states"],
        graph["succeeded"],
        graph["groups"],
        steps_per_episode=lengths(graph),
        **kwargs,
    )


def mt_grpo(graph, **kwargs):
    return mt_grpo_advantages(flat(graph["rewards"]), graph["groups"], steps_per_episode=lengths(graph), **kwargs)


def grpo(graph, normalize_std=True):
    returns = [math.fsum(of_episode) for of_episode in graph["rewards"]]
    return np.repeat(group_advantages(returns, graph["groups"], normalize_std=normalize_std), lengths(graph))


def empg(graph, normalize_std=True, **kwargs):
    return empg_advantages(
        grpo(graph, normalize_std), flat(graph["entropies"]), steps_per_episode=lengths(graph), **kwargs
    )


def planpo(graph, **kwargs):
    return planpo_advantages(
        [math.fsum(of_episode) for of_episode in graph["rewards"]],
        graph["succeeded"],
        graph["groups"],
        tokens_per_step=flat(graph["tokens"]),
        steps_per_episode=lengths(graph),
        **kwargs,
    )


def vine(graph, gamma=1.0):
    continuations = flat(graph["continuations"])
    return vine_advantages(
        flat(graph["rewards"]),
        flat(continuations),
        graph["final_values"],
        continuations_per_step=[len(returns) for returns in continuations],
        steps_per_episode=lengths(graph),
        gamma=gamma,
    )


def bpo(graph, gamma=1.0):
    return bpo_advantages(
        flat(graph["rewards"]), graph["groups"], steps_numbered(graph), steps_per_episode=lengths(graph), gamma=gamma
    )


RULES = {
    "g2po": g2po,
    "graphgpo": graphgpo,
    "mt_grpo": mt_grpo,
    "mt_grpo unbiased": lambda graph: mt_grpo(graph, unbiased=True),
    "empg": empg,
    "planpo": planpo,
    "vine": vine,
    "bpo": bpo,
}


class TestAgainstTheDefinitions:
    @for_all(graphs, discounts, st.floats(0.0, 2.0), booleans)
    def test_g2po(self, graph, gamma, omega, normalize_std):
        found = g2po(graph, gamma, omega=omega, normalize_std=normalize_std)
        names = ("rewards", "states", "final_states", "groups")
        slow = g2po_slow(*(graph[name] for name in names), gamma, omega, normalize_std)
        np.testing.assert_allclose(found, slow, **CLOSE)

    @for_all(graphs, st.floats(0.05, 0.95), st.floats(0.0, 2.0), st.floats(0.0, 2.0), booleans)
    def test_graphgpo(self, graph, discount, episode_weight, graph_weight, normalize_std):
        found = graphgpo(
            graph,
            distance_discount=discount,
            episode_weight=episode_weight,
            graph_weight=graph_weight,
            success_reward=3.0,
            normalize_std=normalize_std,
        )
        names = ("rewards", "states", "final_states", "succeeded", "groups")
        weights = (episode_weight, graph_weight)
        slow = graphgpo_slow(*(graph[name] for name in names), discount, weights, 3.0, normalize_std)
        np.testing.assert_allclose(found, slow, **CLOSE)

    @for_all(graphs, discounts, booleans, booleans)
    def test_mt_grpo(self, graph, alpha, unbiased, normalize_std):
        found = mt_grpo(graph, alpha=alpha, unbiased=unbiased, normalize_std=normalize_std)
        slow = mt_grpo_slow(graph["rewards"], graph["groups"], alpha, unbiased, normalize_std)
        np.testing.assert_allclose(found, slow, **CLOSE)

    @for_all(graphs, st.floats(0.0, 3.0), st.floats(0.0, 3.0), st.floats(0.0, 1.0), booleans)
    def test_empg(self, graph, k, k_future, zeta, normalize_std):
        found = empg(graph, normalize_std, k=k, k_future=k_future, zeta=zeta)
        slow = empg_slow(graph["rewards"], graph["entropies"], graph["groups"], k, k_future, zeta, normalize_std)
        np.testing.assert_allclose(found, slow, **CLOSE)

    @for_all(graphs, st.floats(0.0, 1.0), booleans)
    def test_planpo(self, graph, alpha, normalize_std):
        found = planpo(graph, alpha=alpha, normalize_std=normalize_std)
        names = ("rewards", "succeeded", "tokens", "groups")
        slow = planpo_slow(*(graph[name] for name in names), alpha, normalize_std)
        np.testing.assert_allclose(found, slow, **CLOSE)

    @for_all(graphs, discounts)
    def test_vine(self, graph, gamma):
        slow = vine_slow(graph["rewards"], graph["continuations"], graph["final_values"], gamma)
        np.testing.assert_allclose(vine(graph, gamma), slow, **CLOSE)

    @for_all(graphs, discounts)
    def test_bpo(self, graph, gamma):
        slow = bpo_slow(graph["rewards"], graph["groups"], graph["forked_at"], gamma)
        np.testing.assert_allclose(bpo(graph, gamma), slow, **CLOSE)

    @for_all(st.lists(st.lists(st.floats(-9.0, 0.0), min_size=1, max_size=5), max_size=5))
    def test_entropies(self, log_probs):
        found = step_entropies(flat(log_probs), tokens_per_step=[len(x) for x in log_probs])
        np.testing.assert_allclose(found, [entropy_slow(x) for x in log_probs], atol=1e-12)


def in_order(graph, order):
    """The episodes of a graph in another order; forks keep their origins."""
    new = {old: i for i, old in enumerate(order)}
    permuted = {name: [part[e] for e in order] for name, part in graph.items()}
    permuted["forked_at"] = [p and (new[p[0]], p[1]) for p in permuted["forked_at"]]
    return permuted


@pytest.mark.parametrize("rule", RULES)
@for_all(graphs, st.randoms(use_true_random=False), max_examples=100)
def test_the_order_of_episodes_does_not_matter(rule, graph, rng):
    order = list(range(len(graph["groups"])))
    rng.shuffle(order)
    parts = np.split(RULES[rule](graph), np.cumsum(lengths(graph))[:-1])
    wanted = np.concatenate([parts[e] for e in order])
    np.testing.assert_allclose(RULES[rule](in_order(graph, order)), wanted, **CLOSE)


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"empg", "vine"}))
@for_all(graphs, st.floats(-100.0, 100.0), max_examples=100)
def test_equal_episodes_get_zero(rule, graph, reward):
    """The first episode again and again: nobody is better than anybody else, step by step."""
    number, steps = len(graph["groups"]), max(1, lengths(graph)[0])
    same = {
        "groups": graph["groups"],
        "rewards": [[0.1] * (steps - 1) + [reward]] * number,
        # Every state is met once in an episode: from the same state all have done the same.
        "states": [list(range(steps))] * number,
        "final_states": [None] * number,
        "succeeded": [True] * number,
        "tokens": [[3] * steps] * number,
        "forked_at": [None] * number,
    }
    found = RULES[rule](same)
    if rule == "g2po":  # steps of an episode differ in what they gain on the way, and only there
        found = g2po(same, gamma=1.0, omega=0.0) + g2po(same | {"rewards": [[0.0] * steps] * number})
    if rule == "mt_grpo unbiased":
        assert mt_grpo(same, unbiased=True, normalize_std=False).tolist() == [0.0] * (steps * number)
    np.testing.assert_allclose(found, 0.0, atol=1e-9)


@pytest.mark.parametrize("rule", sorted(RULES.keys() - {"empg", "vine"}))
@for_all(graphs, max_examples=100)
def test_an_episode_of_no_group_gets_zero(rule, graph):
    alone = graph | {
        "groups": list(range(len(graph["groups"]))),
        "states": [[f"{t}" for t in range(n)] for n in lengths(graph)],  # and every state is met once
        "succeeded": [False] * len(graph["groups"]),
        "forked_at": [None] * len(graph["groups"]),
    }
    assert RULES[rule](alone).tolist() == [0.0] * sum(lengths(graph))


@pytest.mark.parametrize("rule", RULES)
def test_no_episodes_and_episodes_without_steps_are_allowed(rule):
    nothing = {name: [] for name in random_graph(0)}
    assert RULES[rule](nothing).shape == (0,)
    empty = {
        **{name: [[], []] for name in ("rewards", "states", "tokens", "entropies", "continuations")},
        "groups": [0, 0],
        "final_states": [None, "A"],
        "succeeded": [False, False],
        "final_values": [0.0, 0.0],
        "forked_at": [None, None],
    }
    assert RULES[rule](empty).shape == (0,)


class TestG2po:
    def test_two_episodes_by_hand(self):
        """From the hall one goes to the shed and fails, one to the room and wins."""
        setup = {"steps_per_episode": [2, 2], "gamma": 1.0, "normalize_std": False}
        found = g2po_advantages([0, 0, 0, 1], ["hall", "shed", "hall", "room"], [None, None], ["game", "game"], **setup)
        # V(hall) = 1/2, V(shed) = 0, V(room) = 1. Node: -1/2, +1/2 in the hall. Edges: gains -1/2, 0, 1/2, 0.
        assert found.tolist() == [-0.5 - 0.5 - 0.5, -0.5, 0.5 + 0.5 + 0.5, 0.5]

    def test_discounting_is_that_of_the_paper_where_the_reward_comes_last(self):
        """gamma^(T-j+1) R: the code has 0.95 ** (steps - index), so that the last step's state is worth 0.95 R."""
        graph = {"groups": [0, 0], "rewards": [[0.0, 0.0, 1.0], [0.0]], "states": [list("ABC"), ["D"]]}
        graph |= {"final_states": [None, None]}
        found = g2po(graph, gamma=0.95, normalize_std=False)
        gains = [0.95**2 - 0.95**3, 0.95 - 0.95**2, 1.0 - 0.95, 0.0]
        np.testing.assert_allclose(found, np.array([0.5, 0.5, 0.5, -0.5]) + gains - np.mean(gains), atol=1e-12)

    def test_where_the_limit_cut_it_off_the_group_says_what_the_place_is_worth(self):
        args = [0, 1, 0], ["hall", "room", "hall"]
        setup = {"group_ids": [0, 0], "steps_per_episode": [2, 1], "gamma": 1.0, "normalize_std": False}
        known = g2po_advantages(*args, [None, "room"], **setup)
        unknown = g2po_advantages(*args, [None, "attic"], **setup)
        nothing = g2po_advantages(*args, [None, None], **setup)
        assert known[2] > nothing[2]
        assert unknown.tolist() == nothing.tolist()


class TestGraphgpo:
    def test_a_good_step_of_a_failure_is_praised(self):
        """Hall - room - goal in one episode; the other goes the same way to the room and then astray."""
        found = graphgpo_advantages(
            [0, 1, 0, 0, 0, 0],
            ["hall", "room", "hall", "room", "hall", "shed"],
            [None, "shed", "shed"],
            [True, False, False],
            ["game"] * 3,
            steps_per_episode=[2, 2, 2],
            distance_discount=0.5,
            episode_weight=0.0,
            success_reward=1.0,
            normalize_std=False,
        )
        # d: room 1, hall 2, shed 3. From the hall: 1/4, 1/4, 1/16; from the room: 1/2, 1/16.
        hall, room = np.array([1 / 4, 1 / 4, 1 / 16]), np.array([1 / 2, 1 / 16])
        hall, room = hall - hall.mean(), room - room.mean()
        np.testing.assert_allclose(found, [hall[0], room[0], hall[1], room[1], hall[2], 0.0], atol=1e-12)

    @for_all(graphs, max_examples=100)
    def test_without_a_success_it_is_grpo(self, graph):
        failures = graph | {"succeeded": [False] * len(graph["groups"])}
        np.testing.assert_allclose(graphgpo(failures), grpo(failures), **CLOSE)

    def test_a_discount_that_is_none_is_refused(self):
        with pytest.raises(ValueError, match=r"distance_discount must be between 0 and 1, got 1\.0"):
            graphgpo_advantages([], [], [], [], [], steps_per_episode=[], distance_discount=1.0)


class TestMtGrpo:
    def test_two_steps_as_in_the_paper(self):
        graph = {"groups": [0, 0], "rewards": [[1.0, 0.0], [0.0, 1.0]]}
        root = math.sqrt(0.5) / (math.sqrt(0.5) + 1e-6) * math.sqrt(0.5)  # +-1/2 over the std of two
        np.testing.assert_allclose(mt_grpo(graph, alpha=0.5), [0.5 * root, -root, -0.5 * root, root], atol=1e-12)

    @for_all(graphs, max_examples=100)
    def test_where_all_stop_at_the_same_step_nothing_is_to_be_corrected(self, graph):
        steps = max(1, max(lengths(graph)))
        fixed = graph | {"rewards": [[*of, *[0.5] * steps][:steps] for of in graph["rewards"]]}
        setup = {"alpha": 0.8, "normalize_std": False}
        np.testing.assert_allclose(mt_grpo(fixed, unbiased=True, **setup), mt_grpo(fixed, **setup), atol=1e-9)

    @pytest.mark.parametrize("going_on", [0.3, 0.7])
    def test_only_the_correction_follows_the_gradient_where_the_policy_chooses_when_to_stop(self, going_on):
        """One step is worth 1 and may be followed by another; the outcome is always 0.

        Going on pays: the true gradient of the return for the logit of going on is p (1 - p) > 0. Exact expectation
        over all groups of four. The correction has it, up to the usual share of an episode in its own mean; as
        published there is none of it left, because whoever goes on is compared only with those who went on.
        """
        expected = {False: 0.0, True: 0.0}
        for choices in itertools.product((False, True), repeat=4):
            probability = math.prod(going_on if c else 1.0 - going_on for c in choices)
            rewards = [[1.0, 0.0] if c else [0.0] for c in choices]
            for unbiased in expected:
                found = mt_grpo({"groups": [0] * 4, "rewards": rewards}, unbiased=unbiased, normalize_std=False)
                first = found[np.cumsum([0, *map(len, rewards)])[:-1]]
                scores = [(1.0 - going_on) if c else -going_on for c in choices]
                expected[unbiased] += probability * float(np.mean(scores * first))
        assert expected[True] == pytest.approx(3 / 4 * going_on * (1 - going_on))
        assert expected[False] == pytest.approx(0.0, abs=1e-12)


class TestEmpg:
    @for_all(graphs, max_examples=100)
    def test_without_bonus_or_differences_of_entropy_it_is_centered_grpo(self, graph):
        alike = graph | {"entropies": [[0.7] * n for n in lengths(graph)]}
        wanted = grpo(graph) - (grpo(graph).mean() if sum(lengths(graph)) else 0.0)
        np.testing.assert_allclose(empg(alike, zeta=0.0), wanted, atol=1e-12)
        np.testing.assert_allclose(empg(graph, zeta=0.0, k=0.0), wanted, atol=1e-12)

    def test_sure_steps_count_more_and_clear_sequels_are_rewarded(self):
        graph = {"groups": [0, 0], "rewards": [[0.0, 1.0], [0.0, 0.0]], "entropies": [[0.1, 0.9], [0.1, 0.2]]}
        weighted = empg(graph, zeta=0.0)
        assert weighted[0] > weighted[1] > 0 > weighted[3] > weighted[2]
        bonus = empg(graph, zeta=1.0) - weighted
        assert bonus[2] > bonus[0] > bonus[1] == bonus[3]


class TestPlanpo:
    def test_the_shorter_of_two_successes_is_better(self):
        graph = {"groups": [0, 0], "rewards": [[1.0], [0.0, 1.0]], "succeeded": [True, True], "tokens": [[2], [2, 1]]}
        found = planpo(graph, alpha=1.0, normalize_std=False)
        # Episodes: 1 and 1/2. Steps: 1/2, 1/2 and 1 per token.
        np.testing.assert_allclose(found, [1 / 4 - 1 / 6, -1 / 4 - 1 / 6, -1 / 4 + 1 / 3], atol=1e-12)

    @for_all(graphs, st.floats(0.0, 1.0), max_examples=100)
    def test_the_length_of_a_failure_says_nothing(self, graph, alpha):
        failures = graph | {"succeeded": [False] * len(graph["groups"])}
        assert planpo(failures, alpha=alpha).tolist() == [0.0] * sum(lengths(graph))


class TestBranching:
    @for_all(graphs, discounts, max_examples=100)
    def test_vine_with_the_true_values_is_zero_on_a_deterministic_path(self, graph, gamma):
        """Continuations that all earn what the episode earned leave no advantage."""
        returns = [
            [sum(gamma ** (k - t) * r for k, r in enumerate(of[t:], t)) for t in range(len(of))]
            for of in graph["rewards"]
        ]
        exact = graph | {
            "continuations": [[[x, x] for x in of] for of in returns],
            "final_values": [0.0] * len(graph["groups"]),
        }
        np.testing.assert_allclose(vine(exact, gamma), 0.0, atol=1e-12)

    def test_vine_needs_a_continuation_of_every_step(self):
        with pytest.raises(ValueError, match="at least one continuation, step 1 has none"):
            vine_advantages([0, 1], [0.5], [0.0], continuations_per_step=[1, 0], steps_per_episode=[2])

    def test_a_fork_by_hand(self):
        """Two episodes from the start; two forks of the first at its second step, one of which wins."""
        found = bpo_advantages(
            [0, 0, 0, 1, 0, 1, 0], [0, 0, 0, 0], [-1, -1, 1, 1], steps_per_episode=[3, 1, 2, 1], gamma=1.0
        )
        # Start: returns 0 and 1. Fork: returns 0 (the first), 1 and 0.
        assert found.tolist() == [-1.0, -0.5, -0.5, 1.0, 1.0, 1.0, -0.5]

    @for_all(graphs, max_examples=100)
    def test_without_forks_it_is_rloo(self, graph):
        plain = graph | {"forked_at": [None] * len(graph["groups"])}
        played = [e for e in range(len(graph["groups"])) if lengths(graph)[e]]
        returns = [math.fsum(graph["rewards"][e]) for e in played]
        wanted = np.repeat(
            rloo_advantages(returns, [graph["groups"][e] for e in played]), [lengths(graph)[e] for e in played]
        )
        np.testing.assert_allclose(bpo(plain), wanted, atol=1e-12)

    def test_the_credits_of_siblings_sum_to_zero_so_that_none_is_to_be_handed_back(self):
        rng = np.random.default_rng(0)
        found = bpo_advantages(rng.normal(size=6), [0] * 4, [-1, 1, 1, 1], steps_per_episode=[3, 1, 1, 1])
        assert found[1] + found[3:].sum() == pytest.approx(0.0, abs=1e-12)

    def test_impossible_forks_are_refused(self):
        with pytest.raises(ValueError, match="one of the 2 steps or -1, got 2"):
            bpo_advantages([0, 1], [0, 0], [-1, 2], steps_per_episode=[1, 1])
        with pytest.raises(ValueError, match="episode 1 names its own step 1"):
            bpo_advantages([0, 1], [0, 0], [-1, 1], steps_per_episode=[1, 1])

    def test_the_least_sure_steps_are_found(self):
        entropies = [0.1, 0.9, 0.9, 0.3, 0.2]
        assert highest_entropy_steps(entropies, steps_per_episode=[3, 0, 2], number=1) == [1, 3]
        assert highest_entropy_steps(entropies, steps_per_episode=[3, 0, 2], number=2) == [1, 2, 3, 4]
        assert highest_entropy_steps([], steps_per_episode=[], number=3) == []
        with pytest.raises(ValueError, match="number must be at least 0, got -1"):
            highest_entropy_steps([], steps_per_episode=[], number=-1)


def test_a_step_without_tokens_is_refused():
    with pytest.raises(ValueError, match="step 1 has none"):
        step_entropies([-1.0], tokens_per_step=[1, 0])
    with pytest.raises(ValueError, match="step 0 has none"):
        planpo_advantages([1.0], [True], [0], tokens_per_step=[0], steps_per_episode=[1])
