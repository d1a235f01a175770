"""From text to the terms that are indexed and searched for; the same for every engine.

The steps are those of Lucene's English analysis: lower case, split into words, drop stop words, reduce to stems. Words
are runs of letters, digits and underscores of any script, single characters included ("Apollo 8", "Malcolm X"). An
accented letter is one letter, also where a text writes it as a letter and an accent (Unicode's NFC).

    terms("The magazines of Apollo 8") == ["magazin", "apollo", "8"]
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import Stemmer

from steppo_gym.retrieval.retriever import MAX_QUERY_CHARACTERS, Passage

TITLE_WEIGHT = 3
"""How often the title counts as part of the text."""

_WORD = re.compile(r"\w+")

STOP_WORDS = frozenset(
    _WORD.findall(
        "a an and are as at be but by for if in into is it no not of on or such that the their then there these they "
        "this to was will with"
    )
)
"""The English stop words of Lucene (org.apache.lucene.analysis.en.EnglishAnalyzer)."""


def terms(text: str) -> list[str]:
    """The terms of a text in their order. Any text will do, the terms are valid Unicode without white space."""
    words = [word for word in _WORD.findall(unicodedata.normalize("NFC", text).lower()) if word not in STOP_WORDS]
    # A stemmer must not be shared between threads, and a new one costs less than a microsecond.
    return Stemmer.Stemmer("english", 0).stemWords(words)


def passage_terms(passage: Passage) -> list[str]:
    """The terms a passage is found by, those of the title `TITLE_WEIGHT` times."""
    return TITLE_WEIGHT * terms(passage.title) + terms(passage.text)


def query_terms(query: str) -> list[str]:
    """The terms of the part of a query that counts."""
    return terms(query[:MAX_QUERY_CHARACTERS])


def query_term_counts(query: str) -> list[tuple[str, int]]:
    """The different terms of a query with how often it has each.

    Always in the same order: what is added up in another order is rounded differently.
    """
    return sorted(Counter(query_terms(query)).items())
