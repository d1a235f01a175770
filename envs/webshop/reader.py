"""The expert that knows no more than the pages say: what it demonstrates can be learnt by reading.

It searches for what is wanted, opens the product whose title has most of it and whose price is low enough, goes back
where an option is not offered, looks at the features where the title leaves an attribute open, goes back where one is
missing, picks the options and buys. When time runs out it buys what it has open.

It takes words as they are, as the built-in shop writes them: in the official one a product may fit and say so in other
words. `slip` is what it does wrong now and then, so that its episodes show how to go on.

>>> reading_action(wanted, page, opened=(), looked=False, steps_left=15)
'search[quick drying hoodie slim fit zip pockets]'
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from steppo_gym.envs.webshop.expert import BACK, BUY, FEATURES, NEXT, Listed, Page, Wanted, equal_options, search_for

SLIP = 0.07
"""Chance of a slip, but for the first search."""
_NOT_THERE = {"results": BUY, "item": NEXT, "sub": BUY}
"""By kind of page, a click on what others have."""


def reading_action(wanted: Wanted, page: Page, *, opened: Sequence[str], looked: bool, steps_left: int) -> str:
    """What the expert does, as an official action: "search[...]" or "click[...]".

    Args:
        wanted: the goal; its title is not looked at.
        page: what is shown; its features count if they were looked at.
        opened: asins opened so far, the one shown included.
        looked: whether the features of the product shown have been seen.
        steps_left: including this one.
    """
    if page.kind == "index":
        return search_for(wanted)
    if page.kind == "results":
        return _from_results(wanted, page, opened=opened, steps_left=steps_left)
    if page.kind == "sub":
        return BACK
    offered = equal_options(wanted, page)
    left = [value for name, value in offered.items() if page.chosen.get(name) != value]
    buying = len(left) + 1
    # Back, open another one, choose and buy.
    can_return = steps_left >= 3 + len(wanted.options)
    if can_return and (page.price > wanted.price_upper or len(offered) < len(wanted.options)):
        return BACK
    open_questions = [word for word in wanted.attributes if word.lower() not in page.title.lower()]
    if open_questions and not looked and steps_left >= 2 + buying:
        return FEATURES
    said = " ".join(page.features).lower()
    if looked and can_return and any(word.lower() not in said for word in open_questions):
        return BACK
    return _click(left[0]) if left else BUY


def slip(page: Page, right: str, *, seed: int, step: int) -> str | None:
    """Sometimes another product or value than the right one, or a click on what the page does not have; else None.

    Args:
        page: what is shown.
        right: what should be done.
        seed: of the episode.
        step: number of steps so far.
    """
    rng = random.Random(f"slip {seed} {step}")
    values = next((values for values in page.options.values() if right in map(_click, values)), ())
    others = [_click(label) for label in (*values, *(one.asin for one in page.listed))]
    if page.kind in _NOT_THERE:
        others.append(_NOT_THERE[page.kind])
    others = [action for action in others if action != right]
    return rng.choice(others) if others and rng.random() < SLIP else None


def _from_results(wanted: Wanted, page: Page, *, opened: Sequence[str], steps_left: int) -> str:
    """Open the likeliest product that was not opened yet, or look further."""
    new = [one for one in page.listed if one.asin not in opened and one.price <= wanted.price_upper]
    if new:
        return _click(max(new, key=lambda one: _in_common(wanted, one)).asin)
    if page.has_more and steps_left > 3 + len(wanted.options):
        return NEXT
    return _click(page.listed[0].asin) if page.listed else search_for(wanted)


def _click(label: str) -> str:
    return f"click[{label}]"


def _in_common(wanted: Wanted, one: Listed) -> int:
    """How many of the wanted attributes, and whether the kind, a title has."""
    title = one.title.lower()
    return sum(word.lower() in title for word in (wanted.query, *wanted.attributes))
