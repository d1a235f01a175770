"""Credit from the graph of states that the episodes of a group went through. Pure numpy, float64.

Equal states of a task group are one node; every step is an edge from the state it was taken in to the state it led to.
So a step is judged by where it led and by what all episodes of the group made of that place. The state an episode ended
in is the last edge's target: its key is needed where the episode was cut off.

Arrays are flat as in `steppo_gym.credit.advantages`; where there is nothing to compare with, credit is 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from steppo_gym.credit.groups import group_advantages, state_groups
from steppo_gym.credit.ragged import (
    Array,
    Integers,
    checked_steps,
    episode_of,
    last_decisions,
    mean_of_group,
    numbered,
    one_per,
    ragged_returns,
    sum_per_episode,
)


def g2po_advantages(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    final_state_keys: Sequence[Hashable | None],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    gamma: float,
    omega: float = 1.0,
    normalize_std: bool = True,
) -> Array:
    """G2PO: A = A_episode + omega * (A_node + A_edge) (arXiv:2606.22995; g2po/core_g2po.py of Nala-YN/G2PO at b8ffaf5).

    V(s) is the mean over all visits of s in the task group of gamma times the discounted return from there on: the
    paper's gamma^(T-j+1) R where a reward comes with the last step alone. A step leads to q = r + V(s'), where V of an
    end is 0. A_node compares q with that of the other steps from the same state, A_edge compares the gain q - V(s) with
    that of all steps of the task group.

    Deviations: rewards may come with any step (the paper has one at the end, and takes the penalty of an invalid action
    off q in A_node alone). The episode term counts each episode once, as the paper writes and not as the code does,
    which counts it once for every step. An episode that was cut off is worth the value of the state it stopped in,
    where the group visited that state; the code takes 0, as is had with None. A task group of one episode gets 0.

    Args:
        rewards: (N,) float, reward of each step.
        state_keys: (N,) hashable, equal exactly for equal states.
        final_state_keys: (E,) the state each episode stopped in; None for one that is worth 0, such as an end by the
            task's own rules.
        group_ids: (E,) hashable, the group of each episode.
        steps_per_episode: (E,) int, sums to N.
        gamma: discount per step (0.95 in the paper).
        omega: weight of the terms of steps (1 in the paper).
        normalize_std: divide each term by its group's standard deviation (the code does so on ALFWorld alone).

    Returns:
        (N,) float. A term is 0 where its group has a single member.

    Raises:
        ValueError: the shapes do not fit together.
    """
    rewards, lengths = checked_steps(rewards, state_keys, group_ids, steps_per_episode)
    one_per("episode", len(lengths), final_state_keys=final_state_keys)
    (states,) = state_groups(state_keys, group_ids, steps_per_episode=steps_per_episode)
    group = numbered(group_ids)
    group_of_step = group[episode_of(lengths)]
    values = mean_of_group(gamma * ragged_returns(rewards, lengths, gamma), states)

    reached = rewards.copy()
    reached[:-1] += values[1:]
    lasts = last_decisions(lengths)
    reached[lasts] = rewards[lasts]
    known = dict(zip(zip(group_of_step.tolist(), state_keys, strict=True), values.tolist(), strict=True))
    stops = [(int(group[e]), final_state_keys[e]) for e in range(len(lengths)) if lengths[e] > 0]
    reached[lasts] += [0.0 if key is None else known.get((g, key), 0.0) for g, key in stops]

    def relative(x: Array, groups: Integers) -> Array:
        return group_advantages(x, groups.tolist(), normalize_std=normalize_std)

    steps = relative(reached, states) + relative(reached - values, group_of_step)
    steps[(np.bincount(group)[group] == 1)[episode_of(lengths)]] = 0.0
    return relative(sum_per_episode(rewards, lengths), group)[episode_of(lengths)] + omega * steps


def graphgpo_advantages(
    rewards: npt.ArrayLike,
    state_keys: Sequence[Hashable],
    final_state_keys: Sequence[Hashable | None],
    succeeded: Sequence[bool],
    group_ids: Sequence[Hashable],
    *,
    steps_per_episode: Sequence[int],
    distance_discount: float = 0.1,
    episode_weight: float = 1.0,
    graph_weight: float = 1.0,
    success_reward: float = 10.0,
    normalize_std: bool = True,
) -> Array:
    """GraphGPO: A = b_E A_episode + b_G A_graph, by the distance to success (arXiv:2605.26684, eq. 4).

    All successes of a task group are one node, and d(s) is the length of the shortest way to it along steps that any
    episode of the group took; a state from which there is none is one step further off than the farthest from which
    there is. A step to s' is worth R = r_success * w^(d(s') + 1), and A_graph compares that with the steps from the
    same state. It does not depend on how the episode of the step ended.

    The form is that of the paper with cost 1 for a step, as in its experiments; the code released for it takes
    w^d(s'), which differs by the factor w and hence only through the 1e-6 that is added to standard deviations. With
    w = 0.1, R shrinks tenfold with every step from the goal, and from about six steps on its standard deviation is less
    than that: graph credit fades there.

    Args:
        rewards: (N,) float, reward of each step; read by A_episode alone.
        state_keys: (N,) hashable, equal exactly for equal states.
        final_state_keys: (E,) the state each episode ended in; not read for successes. From None no way is known.
        succeeded: (E,) bool, whether the episode's last step led to success.
        group_ids: (E,) hashable, the group of each episode.
        steps_per_episode: (E,) int, sums to N.
        distance_discount: w, between 0 and 1 (0.1 in the paper).
        episode_weight: b_E.
        graph_weight: b_G.
        success_reward: r_success.
        normalize_std: divide both terms by their group's standard deviation.

    Returns:
        (N,) float. A_graph is 0 for a step alone in its state, and in task groups without a success.

    Raises:
        ValueError: the shapes do not fit together, or w is not between 0 and 1.
    """
    if not 0.0 < distance_discount < 1.0:
        raise ValueError(f"distance_discount must be between 0 and 1, got {distance_discount}.")
    rewards, lengths = checked_steps(rewards, state_keys, group_ids, steps_per_episode)
    one_per("episode", len(lengths), final_state_keys=final_state_keys, succeeded=succeeded)
    (states,) = state_groups(state_keys, group_ids, steps_per_episode=steps_per_episode)
    distances = _distances_behind(state_keys, final_state_keys, succeeded, group_ids, lengths)
    worth = success_reward * distance_discount ** (distances + 1.0)
    graph = group_advantages(worth, states.tolist(), normalize_std=normalize_std)
    totals = sum_per_episode(rewards, lengths)
    episodes = group_advantages(totals, group_ids, normalize_std=normalize_std)
    return episode_weight * episodes[episode_of(lengths)] + graph_weight * graph


def _distances_behind(
    state_keys: Sequence[Hashable],
    final_state_keys: Sequence[Hashable | None],
    succeeded: Sequence[bool],
    group_ids: Sequence[Hashable],
    lengths: Integers,
) -> Array:
    """(N,) the distance to success of the state each step led to; in groups without a success 1 everywhere."""
    group = numbered(group_ids)
    group_of_step = group[episode_of(lengths)].tolist()
    ends = [
        (int(group[e]), "success" if succeeded[e] else "state", None if succeeded[e] else final_state_keys[e])
        for e in range(len(lengths))
        if lengths[e] > 0
    ]
    starts = [(g, "state", key) for g, key in zip(group_of_step, state_keys, strict=True)]
    nodes = numbered([*starts, *ends])
    source = nodes[: len(starts)]
    target = np.roll(source, -1)
    target[last_decisions(lengths)] = nodes[len(starts) :]

    distance = np.full(len(nodes), np.inf)
    distance[nodes[len(starts) :][[kind == "success" for _, kind, _ in ends]]] = 0.0
    steps_away = 0.0
    while len(found := source[(distance[target] == steps_away) & np.isinf(distance[source])]):
        steps_away += 1.0
        distance[found] = steps_away

    behind = distance[target]
    group_numbers = np.array(group_of_step, np.int64)
    farthest = np.zeros(int(group.max(initial=-1)) + 1)
    reachable = np.isfinite(distance[source])
    np.maximum.at(farthest, group_numbers[reachable], distance[source][reachable])
    return np.where(np.isfinite(behind), behind, farthest[group_numbers] + 1.0)
