"""The texts of an episode in another shop: a reader does as well there, who knows products by heart does not.

Ids, brands and series are exchanged for others, and kinds, attributes and options for others of their department, each
in the same way in all texts of the episode; all amounts of money move by the same multiple of ten dollars. So the same
products fit, and what is too dear stays too dear.

Goals that were held out can come about so, but no product that fits them. It knows the words of the built-in shop
alone; others stay as they are.

    >>> renamed(["Find me soft lining, slim fit hoodie, price lower than 50.00 dollars"], random.Random(0), asins=())
    ['Find me zip pockets, tumble dry polo shirt, price lower than 20.00 dollars']
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from functools import cache

from steppo_gym.envs.webshop.built_in.words import BRANDS, DEPARTMENTS, SERIES
from steppo_gym.envs.webshop.render import EXAMPLE

_ASIN = re.compile(r"\bB[A-Z]{9}\b")
_AMOUNT = re.compile(r"\b(\d+)(?=\.\d\d\b)")
_HIGHEST = 400
"""Dollars that moved amounts stay below, unless they were above before."""


def renamed(texts: Sequence[str], rng: random.Random, *, asins: Sequence[str]) -> list[str]:
    """The same episode with other names.

    Args:
        texts: of the whole episode, in any order.
        rng: draws the names.
        asins: ids of all products; the other ids are of these.
    """
    others = _other_words(texts, rng)
    present = sorted({asin for text in texts for asin in _ASIN.findall(text)})
    ids = dict(zip(present, rng.sample(asins, len(present)), strict=True)) if len(present) <= len(asins) else {}
    # No amount falls below a dollar.
    amounts = [int(amount) for text in texts for amount in _AMOUNT.findall(text)]
    least = -((min(amounts, default=1) - 1) // 10)
    more = 10 * rng.randint(least, max(0, (_HIGHEST - max(amounts, default=0)) // 10))

    def tell(text: str) -> str:
        text = _ASIN.sub(lambda match: ids.get(match[0], match[0]), text)
        text = _AMOUNT.sub(lambda match: str(int(match[0]) + more), text)
        return _words().sub(lambda match: others.get(match[0], match[0]), text)

    # Pages come back again and again.
    told = {text: tell(text) for text in dict.fromkeys(texts)}
    return [told[text] for text in texts]


def _other_words(texts: Sequence[str], rng: random.Random) -> dict[str, str]:
    """Another word for each, in every spelling."""
    others: dict[str, str] = {}
    for words in _word_lists(texts):
        for old, new in zip(words, rng.sample(words, len(words)), strict=True):
            others.update(zip(_spellings(old), _spellings(new), strict=True))
    return others


def _word_lists(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Words that can stand for each other; options are those of the department that the episode is about."""
    yield [brand.lower() for brand in BRANDS]
    yield [one.lower() for one in SERIES]
    for department in DEPARTMENTS.values():
        yield department.attributes
        yield list(department.kinds)
    found = next((match[0] for text in texts for match in _kinds().finditer(text)), None)
    for department in DEPARTMENTS.values():
        if found in department.kinds:
            yield from department.options.values()


def _spellings(phrase: str) -> tuple[str, str, str]:
    """In small letters, with a capital, and as in a title."""
    return phrase, phrase.capitalize(), phrase.title()


@cache
def _words() -> re.Pattern[str]:
    every = [brand.lower() for brand in (*BRANDS, *SERIES)]
    for department in DEPARTMENTS.values():
        every += [*department.attributes, *department.kinds]
        every += [value for values in department.options.values() for value in values]
    return _any_of([spelling for phrase in every for spelling in _spellings(phrase)])


@cache
def _kinds() -> re.Pattern[str]:
    return _any_of([kind for department in DEPARTMENTS.values() for kind in department.kinds])


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Whole phrases, the longest that fits; by first letters, which is several times faster."""
    longest_first = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    rests: dict[str, list[str]] = {}
    for phrase in longest_first:
        rests.setdefault(phrase[0], []).append(re.escape(phrase[1:]))
    branches = "|".join(f"{first}(?:{'|'.join(rest)})" for first, rest in rests.items())
    # What explains how to act is no part of the story.
    return re.compile(rf"{re.escape(EXAMPLE)}|\b(?:{branches})\b")
