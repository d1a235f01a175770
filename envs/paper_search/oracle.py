"""The oracle: it knows which of the papers found are answers, and so what is out of the agent's sight.

It searches for the words of the question, expands an answer, searches for the words of the answer that the expansion
brought, which may go by new names, expands one that this search found, and so on, one call a step, until it has all
answers. Where no answer is known it goes for what stands first in the list. Its success marks what the papers allow.
Its calls name papers that the list may not show, so it is not for demonstrations.

>>> oracle_action(query, PaperPool())
Calls(calls=(Search(query='gated encoders text summarisation'),))
"""

from __future__ import annotations

from collections.abc import Iterator

from steppo_gym.envs.paper_search.actions import Calls, Expand, Search, Stop
from steppo_gym.envs.paper_search.expert import key_words
from steppo_gym.envs.paper_search.papers import Query, arxiv_id_without_version
from steppo_gym.envs.paper_search.pool import Entry, PaperPool


def oracle_action(query: Query, pool: PaperPool) -> Calls | Stop:
    """What the oracle does.

    Args:
        query: with its answers, of which those in the pool may decide.
        pool: what has been found and done.
    """
    wanted = {arxiv_id_without_version(answer) for answer in query.answers}
    if pool.outcomes and wanted <= pool.entries.keys():
        return Stop()
    return next((Calls((call,)) for call in _attempts(query, pool, wanted) if not pool.problem(call)), Stop())


def _attempts(query: Query, pool: PaperPool, wanted: set[str]) -> Iterator[Search | Expand]:
    """Calls, likely ones first; some may have been made before."""
    yield Search(key_words(query.text) or query.text)
    ranked = pool.ranked()
    answers = [entry for entry in ranked if entry.paper.paper_id in wanted]
    newest = max((entry.call for entry in answers), default=0)
    # What an expansion brought has companions that its own words find.
    for entry in answers:
        if entry.call == newest and isinstance(pool.outcomes[newest].call, Expand):
            yield Search(_words_of(entry))
    for entry in sorted(answers, key=lambda entry: -entry.call):
        yield Expand(entry.paper.paper_id)
    for entry in answers:
        yield Search(_words_of(entry))
    for entry in ranked:
        yield Expand(entry.paper.paper_id)


def _words_of(entry: Entry) -> str:
    return key_words(entry.paper.title) or entry.paper.title
