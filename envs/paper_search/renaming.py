"""The texts of an episode in another field of research: a reader does as well there, who knows lines by heart does not.

Words of methods, of problems and names of data sets are exchanged for others of their sort, and ids for other ids of
the same order, each in the same way in all texts of the episode. So what shared a word still does, and what is newer
still is.

Questions that were held out can come about so, but no citation and no answer of theirs. Words that the built-in field
does not have stay as they are.

    >>> renamed(["<search> gated encoders machine reading </search>", "<expand>1012.0001</expand>"], random.Random(0))
    ['<search> recursive simulators bug tagging </search>', '<expand>1408.0042</expand>']
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from steppo_gym.envs.paper_search.built_in.words import word_lists
from steppo_gym.envs.paper_search.expert import is_key_word

# No tag, such as <search>, is a name.
_WORD = re.compile(r"(?<![\w</])[A-Za-z]+(?![\w>])")
_ID = re.compile(r"\b(\d{4})\.(\d{4,5})\b")
_LONGER_SINCE = 15
"""Year since which the numbers of a month have five digits."""
_YEARS = range(7, 24)
_MOST_OF_A_MONTH = 60
"""Ids get numbers up to this one, or to the highest that the episode has."""


def renamed(texts: Sequence[str], rng: random.Random) -> list[str]:
    """The same episode with other names.

    Args:
        texts: of the whole episode, in any order.
        rng: draws the names.
    """
    others: dict[str, str] = {}
    for words in word_lists():
        # An expert that reads leaves plain words out of its searches, so they stay plain.
        names = [word for word in words if is_key_word(word)]
        others.update(zip(names, rng.sample(names, len(names)), strict=True))
    ids = _other_ids({match[0] for text in texts for match in _ID.finditer(text)}, rng)
    told = [_ID.sub(lambda match: ids[match[0]], text) for text in texts]
    return [_WORD.sub(lambda match: others.get(match[0], match[0]), text) for text in told]


def _other_ids(ids: Iterable[str], rng: random.Random) -> dict[str, str]:
    """Another id for each: papers of one month stay of one month, in the same order and with as many digits."""
    months: dict[str, list[str]] = {}
    for paper_id in sorted(ids):
        months.setdefault(paper_id.partition(".")[0], []).append(paper_id)
    others: dict[str, str] = {}
    for years in (range(_LONGER_SINCE), range(_LONGER_SINCE, 100)):
        present = [month for month in months if int(month[:2]) in years]
        usual = [f"{year:02}{month:02}" for year in _YEARS if year in years for month in range(1, 13)]
        drawn = sorted(rng.sample(usual, len(present))) if len(present) <= len(usual) else present
        for month, other in zip(present, drawn, strict=True):
            numbers = [paper_id.partition(".")[2] for paper_id in months[month]]
            most = max(int(numbers[-1]), _MOST_OF_A_MONTH)
            new = sorted(rng.sample(range(1, most + 1), len(numbers)))
            others.update(
                {f"{month}.{old}": f"{other}.{one:0{len(old)}}" for old, one in zip(numbers, new, strict=True)}
            )
    return others
