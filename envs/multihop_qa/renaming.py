"""The texts of an episode about another encyclopaedia: a reader does as well there, who knows facts by heart does not.

Words of names are exchanged for other words of names of the same kind and place, years for other years in the same
order, each in the same way in all texts of the episode. So what was one name stays one name, names that shared a word
still do, and the older thing stays the older one.

Names that were held out can come about so, but no fact of theirs. Words that the built-in encyclopaedias do not have
stay as they are.

    >>> renamed(["Question: Who is the father of Ada Barlow?", "<search> Ada Barlow </search>"], random.Random(0))
    ['Question: Who is the father of Ursula Mercer?', '<search> Ursula Mercer </search>']
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from steppo_gym.envs.multihop_qa.built_in.encyclopaedia import YEARS
from steppo_gym.envs.multihop_qa.built_in.names import word_lists

_WORD = re.compile(r"\b(?:[A-Z][a-z]+|\d{4})\b")


def renamed(texts: Sequence[str], rng: random.Random) -> list[str]:
    """The same episode with other names.

    Args:
        texts: of the whole episode, in any order.
        rng: draws the names.
    """
    others: dict[str, str] = {}
    for words in word_lists():
        others.update(zip(words, rng.sample(words, len(words)), strict=True))
    years = sorted({word for text in texts for word in _WORD.findall(text) if word.isdecimal() and int(word) in YEARS})
    others.update(zip(years, map(str, sorted(rng.sample(YEARS, len(years)))), strict=True))
    return [_WORD.sub(lambda match: others.get(match[0], match[0]), text) for text in texts]
