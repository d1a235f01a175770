"""The scripted experts: they read what the agent reads, the question and the list of papers, and know nothing else.

`search-expand` searches for the words of the question and expands a paper whose title is made of them. Among what that
brings it looks for a title that introduces something in words of its own: that is where the work went on. It searches
for those words, expands a paper whose title is made of them, and so on, one call a step. Where no title is made of its
words, it expands what has most in common with them. `clumsy` is the same and now and then expands a paper that has
other words, so that its episodes show how to go on. `hasty` slips as often and has a fault: in most episodes it is
content with what the first search finds.

>>> expert_action(View("Which papers use gated encoders for text summarisation?"), step=0)
(Calls(calls=(Search(query='gated encoders text summarisation'),)), False)
"""

from __future__ import annotations

import dataclasses
import random
import re

from steppo_gym.envs.paper_search.actions import Calls, Expand, Search, Stop
from steppo_gym.envs.paper_search.pool import same_words

HASTE = 0.65
"""Share of the episodes in which the hasty expert stops after the first search."""
WRONG = 0.1
"""Chance that the clumsy and the hasty expert expand a paper that has other words."""
MAX_WORDS = 12
"""Longest query."""
_LISTED = 3
"""Papers that stand so high in the list that any agent sees them."""

_WORD = re.compile(r"\w+(?:[-'.]\w+)*")
_INTRODUCES = re.compile(r"\bintroduc|\bnew\b|\bnovel\b", re.IGNORECASE)
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


@dataclasses.dataclass(frozen=True, slots=True)
class Seen:
    """A paper as the list shows it."""

    paper_id: str
    title: str
    is_expanded: bool


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What an agent can read.

    Attributes:
        question: as it was asked.
        papers: those shown, in the order of the list.
        searches: queries so far, oldest first.
        num_calls: searches and expansions so far.
    """

    question: str
    papers: tuple[Seen, ...] = ()
    searches: tuple[str, ...] = ()
    num_calls: int = 0


def expert_action(view: View, *, step: int, seed: int | None = None, hasty: bool = True) -> tuple[Calls | Stop, bool]:
    """What the expert does.

    Args:
        view: all that it knows.
        step: number of steps so far.
        seed: of an episode in which it slips; None is the careful one.
        hasty: whether it has its fault where it slips.

    Returns:
        The action, and whether it is a slip, which a demonstration should not teach.
    """
    if seed is not None and hasty and view.num_calls and _is_hasty(seed):
        return Stop(), False
    if seed is not None and (wrong := _wrong_expansion(view, seed=seed, step=step)):
        return Calls((wrong,)), True
    call = _next_call(view)
    return (Calls((call,)) if call else Stop()), False


def key_words(text: str) -> str:
    """The words of a question or title that a search should have, at most `MAX_WORDS`."""
    words = [word for word in _WORD.findall(text) if is_key_word(word)]
    return " ".join(words[:MAX_WORDS])


def is_key_word(word: str) -> bool:
    """Whether a search should have a word."""
    return word.lower() not in _NO_KEY_WORDS and not _YEAR.fullmatch(word)


def _next_call(view: View) -> Search | Expand | None:
    first = key_words(view.question) or view.question
    if same_words(first) not in map(same_words, view.searches):
        return Search(first)
    asked = [_words(query) for query in view.searches]
    if asked and (new := _successor(view, asked)):
        return Search(key_words(new.title))
    # The newest search whose papers are in sight counts.
    for words in reversed(asked):
        own = [paper for paper in view.papers if _is_made_of(paper, words)]
        if own and not any(paper.is_expanded for paper in own):
            return Expand(own[0].paper_id)
        if own:
            return None
    return _likeliest(view)


def _successor(view: View, asked: list[set[str]]) -> Seen | None:
    """The first paper shown that introduces what no search has asked for, once a paper of the last one was expanded."""
    if not any(paper.is_expanded and _is_made_of(paper, asked[-1]) for paper in view.papers):
        return None
    old = set().union(*asked)
    since = max(paper.paper_id for paper in view.papers if paper.is_expanded and _is_made_of(paper, asked[-1]))
    return next(
        (
            paper
            for paper in view.papers
            if _INTRODUCES.search(paper.title) and not old & _words(paper.title) and paper.paper_id > since
        ),
        None,
    )


def _likeliest(view: View) -> Expand | None:
    """The expansion of the paper that has most in common with the question."""
    wanted = _words(view.question)
    new = [paper for paper in view.papers if not paper.is_expanded and wanted & _words(paper.title)]
    best = max(new, key=lambda paper: len(wanted & _words(paper.title)), default=None)
    return Expand(best.paper_id) if best else None


def _wrong_expansion(view: View, *, seed: int, step: int) -> Expand | None:
    """Sometimes the expansion of a paper that has other words than were asked for; else None."""
    asked = [_words(query) for query in view.searches]
    new = [paper for paper in view.papers if not paper.is_expanded][:_LISTED]
    useless = [paper for paper in new if not any(_is_made_of(paper, words) for words in asked)]
    rng = random.Random(f"wrong {seed} {step}")
    if not useless or rng.random() >= WRONG:
        return None
    return Expand(rng.choice(useless).paper_id)


def _is_made_of(paper: Seen, words: set[str]) -> bool:
    """Whether a title has no telling word but these."""
    title = _words(paper.title)
    return bool(title) and title <= words


def _words(text: str) -> set[str]:
    return {word.lower() for word in key_words(text).split()}


def _is_hasty(seed: int) -> bool:
    return random.Random(f"haste {seed}").random() < HASTE
