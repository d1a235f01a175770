"""The kinds of questions about an encyclopaedia. A draw that makes no good question is None and is drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from steppo_gym.envs.multihop_qa.built_in.encyclopaedia import SIZES, Encyclopaedia, Thing

_YEAR_SHARE = 0.1
"""Share of the chains that end with a year."""
_INFERENCES = {"grandfather": ("father", "father"), "place of work": ("employer", "seat")}
"""Relations that no page names, and the facts they follow from."""


@dataclass(frozen=True)
class Hops:
    """A question and the way to its answer."""

    question: str
    answer: str
    facts: tuple[tuple[str, int], ...]
    """Titles of the pages in the order they have to be found, with the number of the sentence that matters."""


def chain(rng: np.random.Generator, world: Encyclopaedia, length: int) -> Hops | None:
    """A relation of a relation of a thing: "Who is the father of the director of the film Golden Tower?".

    Args:
        rng: draws the question.
        world: what it is about.
        length: number of pages it takes.
    """
    thing = _thing(rng, world)
    words, before = _called(thing), []
    for _ in range(length - 1):
        relation = _relation(rng, thing)
        before.append((thing.title, 1))
        words = f"the {relation} of {words}"
        thing = world.things[thing.facts[relation]]
    if thing.title in dict(before):
        return None
    return _ask(rng, world, before, thing, words)


def inference(rng: np.random.Generator, world: Encyclopaedia) -> Hops | None:
    """A relation that has to be taken apart: "Who is the grandfather of Clara Barlow?"."""
    first = _thing(rng, world, "person")
    name = _pick(rng, tuple(_INFERENCES))
    one, other = _INFERENCES[name]
    second = world.things.get(first.facts.get(one, ""))
    if second is None or other not in second.facts:
        return None
    answer = world.things[second.facts[other]]
    return _checked(
        world, [(first.title, 1), (second.title, 1)], f"{_word(answer)} is the {name} of {first.name}?", answer.name
    )


def comparison(rng: np.random.Generator, world: Encyclopaedia) -> Hops | None:
    """Of two things the older or newer one, and on from there: ".. of the founder of the older of the companies .."."""
    pair = _pair(rng, world, _pick(rng, ("work", "town", "company")))
    if pair is None:
        return None
    order = _pick(rng, ("older", "newer"))
    chosen = _first(pair, order)
    relation = _relation(rng, chosen)
    before = [(thing.title, 0) for thing in pair] + [(chosen.title, 1)]
    words = f"the {relation} of the {order} of {_called_both(pair)}"
    return _ask(rng, world, before, world.things[chosen.facts[relation]], words)


def bridge_comparison(rng: np.random.Generator, world: Encyclopaedia) -> Hops | None:
    """Of the makers of two works the older or younger one: ".. of the older of the directors of the films A and B?"."""
    pair = _pair(rng, world, "work")
    if pair is None:
        return None
    maker = next(iter(pair[0].facts))
    makers = [world.things[work.facts[maker]] for work in pair]
    if makers[0].year == makers[1].year:
        return None
    order = _pick(rng, ("older", "younger"))
    chosen = _first(makers, order)
    relation = _relation(rng, chosen)
    answer = world.things[chosen.facts[relation]]
    facts = [(thing.title, 1) for thing in pair] + [(thing.title, 0) for thing in makers] + [(chosen.title, 1)]
    question = f"{_word(answer)} is the {relation} of the {order} of the {maker}s of {_called_both(pair)}?"
    return _checked(world, facts, question, answer.name)


def _ask(
    rng: np.random.Generator, world: Encyclopaedia, before: Sequence[tuple[str, int]], last: Thing, words: str
) -> Hops | None:
    """Ask for something about the last thing, which `words` describe."""
    if rng.random() < _YEAR_SHARE:
        verb = {"person": "born", "work": "published"}.get(last.kind, "founded")
        return _checked(world, [*before, (last.title, 0)], f"When was {words} {verb}?", str(last.year))
    relation = _relation(rng, last)
    answer = world.things[last.facts[relation]]
    return _checked(world, [*before, (last.title, 1)], f"{_word(answer)} is the {relation} of {words}?", answer.name)


def _checked(world: Encyclopaedia, facts: Sequence[tuple[str, int]], question: str, answer: str) -> Hops | None:
    """The question, if every page has to be found by what the pages before it say, and only the last has the answer.

    So no page may name an earlier one: it could be found together with that one.
    """
    titles = list(dict.fromkeys([title for title, _ in facts if title != facts[-1][0]] + [facts[-1][0]]))
    pages = ["".join(world.sentences(title)) for title in titles]
    names = [world.things[title].name for title in titles]
    leads_back = any(name in page for i, page in enumerate(pages) for name in names[:i])
    if leads_back or len(set(facts)) < len(facts) or any(answer in text for text in (question, *pages[:-1])):
        return None
    return Hops(question, answer, tuple(facts))


def _first(things: Sequence[Thing], order: str) -> Thing:
    """The oldest, or the newest or youngest one."""
    return min(things, key=lambda thing: thing.year if order == "older" else -thing.year)


def _pair(rng: np.random.Generator, world: Encyclopaedia, kind: str) -> tuple[Thing, Thing] | None:
    """Two things of one kind and form with different years."""
    one, other = _thing(rng, world, kind), _thing(rng, world, kind)
    return (one, other) if one.form == other.form and one.year != other.year else None


def _thing(rng: np.random.Generator, world: Encyclopaedia, kind: str | None = None) -> Thing:
    return world.things[_pick(rng, world.titles(kind or _pick(rng, tuple(SIZES))))]


def _relation(rng: np.random.Generator, thing: Thing) -> str:
    return _pick(rng, tuple(thing.facts))


def _word(answer: Thing) -> str:
    return "Who" if answer.kind == "person" else "What"


def _called(thing: Thing) -> str:
    return f"the {thing.form} {thing.name}" if thing.kind == "work" else thing.name


def _called_both(pair: Sequence[Thing]) -> str:
    form = {"town": "towns", "company": "companies"}.get(pair[0].kind, f"{pair[0].form}s")
    return f"the {form} {pair[0].name} and {pair[1].name}"


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]
