"""Policies that the built-in questions about papers must defeat, beside the experts that answer them.

    python benchmarks/paper_search_controls.py --queries 240

Every policy plays by the environment's own rules, but for the texts: it is given the question and the pool. All but the
oracle go by what the agent is shown.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from steppo_gym.envs.paper_search.actions import Calls, Expand, Search, Stop
from steppo_gym.envs.paper_search.built_in.generate import builtin_corpus, generate_query, task_ids
from steppo_gym.envs.paper_search.expert import expert_action, key_words
from steppo_gym.envs.paper_search.expert_view import view_of
from steppo_gym.envs.paper_search.oracle import oracle_action
from steppo_gym.envs.paper_search.papers import PaperSource, Query
from steppo_gym.envs.paper_search.pool import PaperPool, carry_out
from steppo_gym.envs.paper_search.relevance import GoldMembership
from steppo_gym.envs.paper_search.render import shown_papers
from steppo_gym.envs.paper_search.reward import PROTOCOLS, list_scores

Policy = Callable[[Query, PaperPool, int], Calls | Stop]
"""From a question, the pool and the number of steps so far to what is done."""

PROTOCOL = PROTOCOLS["steppo"]
COLUMNS = ("recall", "precision", "f1", "episode_return", "papers")


@dataclass(frozen=True)
class ControlScores:
    """Means over queries.

    Attributes:
        recall: share of the answers in the pool at the end.
        precision: share of answers in the pool.
        f1: of both.
        episode_return: sum of all rewards.
        papers: in the pool at the end.
    """

    recall: float
    precision: float
    f1: float
    episode_return: float
    papers: float


def control_scores(split: str, *, num_queries: int) -> dict[str, dict[str, ControlScores]]:
    """Scores of every policy by kind of query, with "all" for all kinds."""
    source = builtin_corpus()
    played: dict[str, dict[str, list[ControlScores]]] = defaultdict(lambda: defaultdict(list))
    for index in range(min(num_queries, len(task_ids(split)))):
        query = generate_query(split, index)
        for name, policy in CONTROLS.items():
            scores = play(query, source, policy)
            for kind in ("all", query.kind):
                played[kind][name].append(scores)
    return {kind: {name: _mean(scores) for name, scores in rows.items()} for kind, rows in played.items()}


def play(query: Query, source: PaperSource, policy: Policy) -> ControlScores:
    """One episode."""
    pool, relevance = PaperPool(), GoldMembership()
    for step in range(PROTOCOL.max_steps):
        action = policy(query, pool, step)
        if isinstance(action, Stop):
            break
        for call in action.calls:
            carry_out(call, pool, query=query, source=source, relevance=relevance, protocol=PROTOCOL)
    scores = list_scores([entry.paper.paper_id for entry in pool.ranked()], query.answers)
    episode_return = sum(outcome.reward for outcome in pool.outcomes)
    return ControlScores(scores.recall, scores.precision, scores.f1, episode_return, float(len(pool.entries)))


def _search_question(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
    return Stop() if step else Calls((Search(query.text),))


def _search_words(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
    """The question, its key words, and as many of them as there are steps left."""
    words = key_words(query.text).split()
    rng = random.Random(f"words {query.query_id} {step}")
    wanted = (query.text, " ".join(words), " ".join(words[:2]), " ".join(words[2:]), " ".join(rng.sample(words, 2)))
    return Calls((Search(wanted[step]),))


def _random_calls(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
    """A search for two of the question's words or the expansion of a listed paper, whichever is drawn."""
    rng = random.Random(f"calls {query.query_id} {step}")
    if pool.entries and rng.random() < 0.5:
        return _expand_listed(query, pool, step, 1)
    return Calls((Search(" ".join(rng.sample(key_words(query.text).split(), 2))),))


def _search_then_expand(num_calls: int) -> Policy:
    """A search for the question, then `num_calls` expansions a step of listed papers drawn at random."""

    def policy(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
        return _expand_listed(query, pool, step, num_calls) if step else Calls((Search(query.text),))

    return policy


def _expand_first(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
    """A search for the question, then one expansion a step, of the paper that stands first in the list."""
    if not step:
        return Calls((Search(query.text),))
    first = next((entry for entry in pool.listed(by_score=False) if not entry.expanded), None)
    return Calls((Expand(first.paper.paper_id),)) if first else Stop()


def _expert(query: Query, pool: PaperPool, step: int, seed: int | None = None) -> Calls | Stop:
    listed = PROTOCOL.listed_papers
    view = view_of(query.text, pool, context="rebuilt", listed_papers=listed, by_score=False)
    return expert_action(view, step=step, seed=seed)[0]


def _hasty(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
    return _expert(query, pool, step, random.Random(f"hasty {query.query_id}").getrandbits(32))


def _oracle(query: Query, pool: PaperPool, step: int) -> Calls | Stop:
    del step
    return oracle_action(query, pool)


CONTROLS: dict[str, Policy] = {
    "search the question": _search_question,
    "search its words": _search_words,
    "random calls": _random_calls,
    "search, expand at random": _search_then_expand(1),
    "search, expand five at random": _search_then_expand(5),
    "search, expand the first": _expand_first,
    "hasty": _hasty,
    "expert": _expert,
    "oracle": _oracle,
}
"""All but the fifth make one call a step."""


def _expand_listed(query: Query, pool: PaperPool, step: int, num_calls: int) -> Calls | Stop:
    rng = random.Random(f"expand {query.query_id} {step}")
    listed = [
        entry.paper.paper_id
        for entry in shown_papers(pool, PROTOCOL.listed_papers, by_score=False)
        if not entry.expanded
    ]
    chosen = rng.sample(listed, min(num_calls, len(listed)))
    return Calls(tuple(map(Expand, chosen))) if chosen else Stop()


def _mean(scores: list[ControlScores]) -> ControlScores:
    def mean(name: str) -> float:
        return sum(getattr(score, name) for score in scores) / len(scores)

    return ControlScores(*(mean(name) for name in ControlScores.__dataclass_fields__))


def main() -> None:
    """Print a markdown table of all policies, and one of their recall by kind of question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=240, help="the first ones of the split")
    options = parser.parse_args()
    scores = control_scores(options.split, num_queries=options.queries)
    every = scores["all"]
    print(f"| {options.split}, {options.queries} queries | {' | '.join(COLUMNS).replace('episode_', '')} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in every.items():
        print(f"| {name} | {' | '.join(f'{getattr(row, column):.3f}' for column in COLUMNS)} |")
    kinds = [kind for kind in scores if kind != "all"]
    print(f"\n| recall / return | {' | '.join(kinds)} |")
    print("|---" * (len(kinds) + 1) + "|")
    for name in every:
        cells = [f"{scores[kind][name].recall:.3f} / {scores[kind][name].episode_return:.2f}" for kind in kinds]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
