"""Batches of training size in which audited steps occur, drawn again and again: what a rule's credit depends on.

A batch holds groups. Where a group has an audited step, one of its episodes keeps all up to that step, goes on as
one of the continuations of the response that was taken, and stands among others of its task. So a sample of the
step's credit is one of those that training could have seen, given that the step was taken: the rest of its episode, its
siblings and the other groups are all drawn anew.

The siblings are drawn without replacement from the episodes that were played; where there are hardly more of them than
a group needs, batches resemble each other and variances come out low.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from steppo_gym.audit.points import AuditedPoint
from steppo_gym.audit.scores import credit_of_steps
from steppo_gym.credit.ragged import Array
from steppo_gym.credit.records import CreditRule, Records, check_credit
from steppo_gym.credit.whitening import whiten
from steppo_gym.rollouts.episode import Episode

Critic = Callable[[Sequence[Episode]], Array]
"""The values that `Records` hold for a rule with a critic: of the steps, then of the final states."""


@dataclass(frozen=True)
class Batch:
    """Episodes of whole groups, and where audited steps stand among theirs."""

    episodes: tuple[Episode, ...]
    points: tuple[tuple[int, int], ...]
    """(number of a point, number of its step in this batch)."""


def resampled_batches(
    episodes: Sequence[Episode],
    points: Sequence[AuditedPoint],
    continuations: Sequence[Sequence[Episode]],
    *,
    group_size: int,
    groups: int,
    number: int,
    seed: int,
) -> Iterator[Batch]:
    """Draw batches.

    Args:
        episodes: those that were audited; groups with fewer than `group_size` that did not fail are left out.
        points: audited steps of theirs.
        continuations: of each point, of the response that was taken, its own step first.
        group_size: episodes of a group.
        groups: of a batch; all there are, if there are fewer.
        number: of batches.
        seed: of the draws.

    Raises:
        ValueError: no group is large enough.
    """
    members: dict[int, list[int]] = {}
    for i, episode in enumerate(episodes):
        if episode.ended != "failed":
            members.setdefault(episode.group, []).append(i)
    members = {group: found for group, found in members.items() if len(found) >= group_size}
    if not members:
        raise ValueError(f"No group has {group_size} episodes that did not fail. Play more of each task.")
    usable = [[e for e in played if e.ended != "failed" and e.steps] for played in continuations]
    audited: dict[int, list[int]] = {}
    for p, point in enumerate(points):
        if usable[p]:
            audited.setdefault(point.group, []).append(p)
    rng = np.random.default_rng(seed)
    for _ in range(number):
        drawn = rng.permutation(list(members))[:groups].tolist()
        parts = [_group(rng, members[g], audited.get(g, ()), episodes, points, usable, group_size) for g in drawn]
        yield _joined(parts)


def sampled_credit(
    rule: CreditRule, batches: Sequence[Batch], critic: Critic | None = None, *, end_token: int | None = None
) -> tuple[list[int], Array]:
    """What a rule gives audited steps, once for each batch they occur in.

    Whitened over the batch, if the rule wants that. A rule that asks for branches of its own is not served: it would
    have to play them.

    Args:
        rule: the credit rule.
        batches: of `resampled_batches`.
        critic: the values it reads; needed by a rule with a critic.
        end_token: see `Records`.

    Returns:
        steps: (S,) which point each sample is of.
        credit: (S,) its credit, as it enters the loss.

    Raises:
        ValueError: the rule needs a critic and there is none, or gives credit that is not finite.
        SteppoGymError: what it gives does not fit the episodes.
    """
    if rule.critic is not None and critic is None:
        raise ValueError(f"{rule.title()} reads the values of a critic, and there is none.")
    steps: list[int] = []
    found: list[float] = []
    for batch in batches:
        values = critic(batch.episodes) if rule.critic is not None and critic is not None else np.zeros(0)
        records = Records(batch.episodes, values, end_token=end_token)
        credit = rule(records)
        check_credit(credit, records, rule.critic)
        if credit.whiten:
            credit = dataclasses.replace(credit, advantages=whiten(credit.advantages))
        given = credit_of_steps(credit, records.tokens_per_step)
        for point, step in batch.points:
            steps.append(point)
            found.append(float(given[step]))
    if not np.isfinite(found).all():
        raise ValueError(f"{rule.title()} gives credit that is not finite.")
    return steps, np.array(found)


def _group(
    rng: np.random.Generator,
    members: Sequence[int],
    audited: Sequence[int],
    episodes: Sequence[Episode],
    points: Sequence[AuditedPoint],
    continuations: Sequence[Sequence[Episode]],
    size: int,
) -> tuple[list[Episode], tuple[int, int] | None]:
    """The episodes of a group; if it has an audited step, that of its first episode: the point, and the place there."""
    if not audited:
        return [episodes[i] for i in rng.permutation(members)[:size]], None
    p = audited[int(rng.integers(len(audited)))]
    point = points[p]
    others = rng.permutation([i for i in members if i != point.episode])[: size - 1]
    rest = continuations[p][int(rng.integers(len(continuations[p])))]
    own = episodes[point.episode]
    # What was given back to the environment word for word was sampled once: its log-probabilities are those of then.
    taken = dataclasses.replace(rest.steps[0], log_probs=own.steps[point.place].log_probs)
    steps = (*own.steps[: point.place], taken, *rest.steps[1:])
    joined = dataclasses.replace(rest, steps=steps, group=own.group, seed=own.seed)
    return [joined, *(episodes[i] for i in others)], (p, point.place)


def _joined(parts: Sequence[tuple[list[Episode], tuple[int, int] | None]]) -> Batch:
    episodes: list[Episode] = []
    found: list[tuple[int, int]] = []
    steps = 0
    for members, audited in parts:
        if audited is not None:
            point, place = audited
            found.append((point, steps + place))
        episodes += members
        steps += sum(e.num_steps for e in members)
    return Batch(tuple(episodes), tuple(found))
