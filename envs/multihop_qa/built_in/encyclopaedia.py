"""A small invented world and the encyclopaedia about it: one passage of two sentences per thing.

    world = encyclopaedia("train", 17)
    "".join(world.sentences("Clara Barlow"))
    # "Clara Barlow is a director born in 1931. The birthplace of Clara Barlow is Salt Harbour, the father is ..."

A fact leads from a thing to another one or to a year and is written down on the page of the first alone. Relations are
functions: there is one director, one birthplace, one father. Facts of two encyclopaedias have nothing to do with each
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np

from steppo_gym.envs.multihop_qa.built_in.names import is_man, names

SIZES = {"person": 560, "work": 360, "town": 380, "company": 136}
"""Things of each kind; some works come on top, see `_ADAPTED`."""
NUM_ENCYCLOPAEDIAS = {"train": 80, "validation": 4, "test": 4}

KEPT_WORLDS = 100
"""Encyclopaedias that a process keeps, about 1 MB each: more than a split has."""

_T = TypeVar("_T")

_SEEDS = {"train": 0, "validation": 1, "test": 2}
_ADAPTED = 0.1
"""Share of the works that are a novel and a film or opera of the same name: two pages, other people."""
_FORMS = {"film": "director", "novel": "author", "opera": "composer"}
"""Forms of works, and what their makers are called."""
_YEARS = {"person": (1850, 1979), "work": (1900, 1999), "town": (1850, 1999), "company": (1850, 1999)}
YEARS = range(1850, 2000)
"""All years that occur."""


@dataclass(frozen=True, slots=True)
class Thing:
    """Something that has a page."""

    title: str
    """Unique: a work whose name another one has too says its form in brackets."""
    name: str
    kind: str
    """A key of `SIZES`."""
    form: str
    """What the first sentence says it is, and questions call it: "film", "director", "town", "company"."""
    year: int
    """Of birth, publication or foundation."""
    facts: dict[str, str] = field(default_factory=dict)
    """Relation to the title of the other thing."""


@dataclass(frozen=True)
class Encyclopaedia:
    """All things by title, in the order of the pages."""

    things: dict[str, Thing]

    def sentences(self, title: str) -> tuple[str, ...]:
        """What the page says."""
        return _sentences(self.things[title], self.things)

    def titles(self, kind: str) -> list[str]:
        """Titles of the things of a kind."""
        return [title for title, thing in self.things.items() if thing.kind == kind]


@lru_cache(maxsize=KEPT_WORLDS)
def encyclopaedia(split: str, number: int) -> Encyclopaedia:
    """Invent a world.

    Args:
        split: whose names it may use.
        number: below `NUM_ENCYCLOPAEDIAS[split]`; another number is another world.
    """
    rng = np.random.default_rng([_SEEDS[split], number])
    things: dict[str, list[Thing]] = {kind: [] for kind in SIZES}
    for kind, size in SIZES.items():
        for name in _draw(rng, names(kind, split), size):
            things[kind] += _things(rng, name, kind)
    _relate(rng, things)
    pages = [thing for kind in things.values() for thing in kind]
    return Encyclopaedia({pages[i].title: pages[i] for i in rng.permutation(len(pages))})


def _things(rng: np.random.Generator, name: str, kind: str) -> list[Thing]:
    """What goes by a name: one thing, or two works."""
    if kind == "work" and rng.random() < _ADAPTED:
        forms = ("novel", _pick(rng, ("film", "opera")))
        return [Thing(f"{name} ({form})", name, kind, form, _year(rng, kind)) for form in forms]
    forms = {"person": tuple(_FORMS.values()), "work": tuple(_FORMS)}.get(kind, (kind,))
    return [Thing(name, name, kind, _pick(rng, forms), _year(rng, kind))]


def _relate(rng: np.random.Generator, things: dict[str, list[Thing]]) -> None:
    """Fill in all facts."""
    people, towns, companies = things["person"], things["town"], things["company"]
    for work in things["work"]:
        makers = [person for person in people if person.form == _FORMS[work.form]]
        work.facts[_FORMS[work.form]] = _pick(rng, _aged(makers, work.year, 20, 70) or makers).title
        work.facts["publisher"] = _pick(rng, companies).title
    men = [person for person in people if is_man(person.name)]
    for person in people:
        person.facts["birthplace"] = _pick(rng, towns).title
        fathers = _aged(men, person.year, 20, 50)
        # The eldest have no known father.
        if fathers:
            person.facts["father"] = _pick(rng, fathers).title
        person.facts["employer"] = _pick(rng, companies).title
    for company in companies:
        company.facts["founder"] = _pick(rng, people).title
        company.facts["seat"] = _pick(rng, towns).title
    for town in towns:
        town.facts["mayor"] = _pick(rng, people).title
        town.facts["sponsor"] = _pick(rng, companies).title


def _sentences(thing: Thing, things: dict[str, Thing]) -> tuple[str, ...]:
    year = {"person": "born in", "work": "of", "town": "founded in", "company": "founded in"}[thing.kind]
    article = "an" if thing.form[0] in "aeiou" else "a"
    opening = f"{thing.name} is {article} {thing.form} {year} {thing.year}."
    facts = [f"the {relation} is {things[title].name}" for relation, title in thing.facts.items()]
    facts[0] = facts[0].replace(" is ", f" of {thing.name} is ", 1).replace("the", "The", 1)
    return opening, f" {', '.join(facts[:-1])} and {facts[-1]}."


def _draw(rng: np.random.Generator, items: Sequence[_T], count: int) -> list[_T]:
    assert count <= len(items), f"{count} of {len(items)}"
    return [items[i] for i in rng.permutation(len(items))[:count]]


def _pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    return items[int(rng.integers(len(items)))]


def _aged(people: Sequence[Thing], year: int, youngest: int, oldest: int) -> list[Thing]:
    """Those who were between so and so many years old in a year."""
    return [person for person in people if youngest <= year - person.year <= oldest]


def _year(rng: np.random.Generator, kind: str) -> int:
    first, last = _YEARS[kind]
    return int(rng.integers(first, last + 1))
