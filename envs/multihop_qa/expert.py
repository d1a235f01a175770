"""The scripted experts: they know which passages are needed, and have to find them with the search tool.

`search` looks for the missing passages one after the other by their titles, and answers once all are found. Where the
retriever does not bring one, it answers only if the answer stands in what it has found: on real data its success marks
how far retrieval carries. `clumsy` is the same and now and then searches for the wrong thing (`wrong_search`), so that
its episodes show how to go on. `hasty` slips as often and has a fault: in most episodes it takes the name it should
search for next for the answer.

On 2WikiMultihopQA they think where two things are compared, as the next step rests on what two passages say.

>>> expert_action(question, found=[], queries=[], last_step=False, is_found=lambda paragraph: False)
Search(queries=('Golden Tower',))
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence

from steppo_gym.envs.multihop_qa.actions import MAX_QUERY_CHARS, Answer, Search
from steppo_gym.envs.multihop_qa.questions import Paragraph, Question
from steppo_gym.envs.multihop_qa.scoring import normalize
from steppo_gym.quoting import one_line
from steppo_gym.retrieval.retriever import Passage

HASTE = 0.65
"""Share of the episodes in which the hasty expert answers with the name it should search for."""
WRONG = 0.1
"""Chance that the clumsy and the hasty expert search for something that does not help."""
NO_ANSWER = "unknown"
_ORDER = re.compile(r"\b(older|newer|younger) of the ")
_YEAR = re.compile(r"\b\d{4}\b")


def expert_action(
    question: Question,
    *,
    found: Sequence[Passage],
    queries: Sequence[str],
    last_step: bool,
    is_found: Callable[[Paragraph], bool],
    seed: int | None = None,
) -> Search | Answer:
    """What the expert does.

    Args:
        question: with its supporting passages.
        found: passages found so far.
        queries: searches so far.
        last_step: whether this is the last step.
        is_found: whether a supporting passage is among those found.
        seed: of the hasty expert's episode; None is the careful one.
    """
    missing = [target for target in question.supporting if not is_found(target)]
    if missing and seed is not None and len(missing) < len(question.supporting) and _is_hasty(seed):
        return Answer(name_of(missing[0].title))
    done = set(queries)
    for query in () if last_step else _attempts(question, missing):
        if query not in done:
            return Search((query,))
    if missing or not question.supporting:
        return Answer(_answer_read(question, found))
    return Answer(question.answers[0])


def thought(question: Question, is_found: Callable[[Paragraph], bool]) -> str:
    """What it thinks where it knows enough to compare, "Salt Harbour 1931 Golden Tower 1925 older Golden Tower".

    It goes by the first year of a passage, so it takes the built-in questions alone, which say what is asked for.

    Args:
        question: with its supporting passages; the first or the last two of them are compared.
        is_found: whether a supporting passage is among those found.

    Returns:
        Nothing where nothing is compared, not both are known, or the step after it was taken.
    """
    asked = _ORDER.search(question.text)
    found = all(map(is_found, question.supporting))
    # The one that was chosen names the next passage to look for, or, where makers are compared, has the answer.
    if asked is None or found != (question.kind == "bridge_comparison"):
        return ""
    compared = question.supporting[2:] if found else question.supporting[:2]
    if not all(map(is_found, compared)):
        return ""
    order = asked[1]
    (first, one), (second, other) = ((_YEAR.findall(page.text)[0], name_of(page.title)) for page in compared)
    chosen = (min if order == "older" else max)((first, one), (second, other))[1]
    return f"{one} {first} {other} {second} {order} {chosen}"


def wrong_search(useless: Sequence[Passage], *, seed: int, step: int) -> Search | None:
    """Sometimes a search for a passage that is known already and does not help; else None.

    Args:
        useless: such passages.
        seed: of the episode.
        step: number of steps so far.
    """
    rng = random.Random(f"wrong {seed} {step}")
    if not useless or rng.random() >= WRONG:
        return None
    return Search((_query(name_of(rng.choice(useless).title)),))


def name_of(title: str) -> str:
    """A title without what tells it apart: "Golden Tower (film)" is "Golden Tower"."""
    name = title.rpartition(" (")[0] if title.endswith(")") else ""
    return name.strip() or title.strip() or NO_ANSWER


def _attempts(question: Question, missing: Sequence[Paragraph]) -> list[str]:
    """Queries for what is missing, likely ones first.

    Titles come first, then titles with the question's words, which tell passages of one title apart, and then the
    question alone, which is also all there is to do where the data names no supporting passages.
    """
    if question.supporting and not missing:
        return []
    names = [name_of(target.title) for target in missing]
    return [_query(text) for text in (*names, *(f"{name} {question.text}" for name in names), question.text)]


def _query(text: str) -> str:
    return one_line(text, MAX_QUERY_CHARS)


def _answer_read(question: Question, found: Sequence[Passage]) -> str:
    """The answer if it can be read in the passages found."""
    text = f" {normalize(' '.join(f'{passage.title} {passage.text}' for passage in found))} "
    readable = (answer for answer in question.answers if f" {normalize(answer)} " in text)
    return next(readable, NO_ANSWER)


def _is_hasty(seed: int) -> bool:
    return random.Random(f"haste {seed}").random() < HASTE
