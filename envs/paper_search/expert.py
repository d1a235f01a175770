"""The scripted experts: they know which papers are answers once these are in the pool, and have to bring them there.

`search-expand` searches for the words of the question, expands an answer, searches for the words of the answer that the
expansion brought, which may go by new names, expands one that this search found, and so on, one call a step, until it
has all answers. Where no answer is known it goes for what stands first in the list. `hasty` has a fault: in most
episodes it is content with what the first search finds, and now and then it expands a paper that is no answer.

>>> expert_action(query, PaperPool(), step=0)
(Calls(calls=(Search(query='gated encoders text summarisation'),)), False)
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator

from steppo_gym.envs.paper_search.actions import Calls, Expand, Search, Stop
from steppo_gym.envs.paper_search.papers import Query, arxiv_id_without_version
from steppo_gym.envs.paper_search.pool import Entry, PaperPool

HASTE = 0.65
"""Share of the episodes in which the hasty expert stops after the first search."""
WRONG = 0.1
"""Chance that the hasty expert expands a paper that is no answer."""
MAX_WORDS = 12
"""Longest query."""
_LISTED = 3
"""Papers that stand so high in the list that any agent sees them."""

_WORD = re.compile(r"\w+(?:[-'.]\w+)*")
# Words that ask, words that open titles, and words that hold others together.
_PLAIN_WORDS = (
    "a about all an and any are as at be been build builds by can carry comparing could did do does evaluated "
    "extending find for from give has have how i in into introducing improving is it its later list me method methods "
    "of on or paper papers please present provide replaced research scaling show some studies study such tell that the "
    "their them there these they this to towards understanding use used using was were what when where which who with "
    "work works would you your"
)
_NO_KEY_WORDS = frozenset(_PLAIN_WORDS.split())
_YEAR = re.compile(r"(?:19|20)\d\d")


def expert_action(query: Query, pool: PaperPool, *, step: int, seed: int | None = None) -> tuple[Calls | Stop, bool]:
    """What the expert does.

    Args:
        query: with its answers, of which those in the pool may decide.
        pool: what has been found and done.
        step: number of steps so far.
        seed: of the hasty expert's episode; None is the careful one.

    Returns:
        The action, and whether it is a slip, which a demonstration should not teach.
    """
    wanted = {arxiv_id_without_version(answer) for answer in query.answers}
    if pool.outcomes and (wanted <= pool.entries.keys() or (seed is not None and _is_hasty(seed))):
        return Stop(), False
    if seed is not None and (wrong := _wrong_expansion(pool, wanted, seed=seed, step=step)):
        return Calls((wrong,)), True
    for call in _attempts(query, pool, wanted):
        if not pool.problem(call):
            return Calls((call,)), False
    return Stop(), False


def key_words(text: str) -> str:
    """The words of a question or title that a search should have, at most `MAX_WORDS`."""
    words = [word for word in _WORD.findall(text) if word.lower() not in _NO_KEY_WORDS and not _YEAR.fullmatch(word)]
    return " ".join(words[:MAX_WORDS])


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


def _wrong_expansion(pool: PaperPool, wanted: set[str], *, seed: int, step: int) -> Expand | None:
    """Sometimes the expansion of a paper that is no answer; else None."""
    new = [entry.paper.paper_id for entry in pool.ranked() if not entry.expanded][:_LISTED]
    useless = [paper_id for paper_id in new if paper_id not in wanted]
    rng = random.Random(f"wrong {seed} {step}")
    if not useless or rng.random() >= WRONG:
        return None
    return Expand(rng.choice(useless))


def _is_hasty(seed: int) -> bool:
    return random.Random(f"haste {seed}").random() < HASTE
