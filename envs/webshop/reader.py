"""The expert that knows no more than the pages say: what it demonstrates can be learnt by reading.

It searches for what is wanted and goes down the list. A product that is too dear it passes over, one that does not
offer an option it leaves. Where the title does not say all that is wanted it reads the features and thinks of each
wanted attribute whether it is there; where one is not it searches again and opens the next product. Else it picks the
options and buys. When time runs out it buys what it has open.

It takes words as they are, as the built-in shop writes them: in the official one a product may fit and say so in other
words. `slip` is what it does wrong now and then, so that its episodes show how to go on. `overlook` is a fault
that is laid over its own way, so that what it leaves out is only a step away.

>>> reading_action(wanted, page, opened=(), looked=False, steps_left=15)
'search[quick drying hoodie slim fit zip pockets]'
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from steppo_gym.envs.webshop.expert import BACK, BUY, FEATURES, NEXT, Page, Wanted, equal_options, search_for

SLIP = 0.07
"""Chance of a slip, but for the first search."""
OVERLOOK = 0.65
"""Chance at each product and each list of features that the heedless reader does not mind what it is shown."""
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
    # Search again, open another one, choose and buy.
    can_return = steps_left >= 3 + len(wanted.options)
    unsaid = [word.lower() for word in wanted.attributes if word.lower() not in page.title.lower()]
    if page.kind == "sub":
        said = " ".join(page.features).lower()
        fits = not looked or all(word in said for word in unsaid)
        return BACK if fits or not can_return else search_for(wanted)
    offered, left = equal_options(wanted, page), _unchosen(wanted, page)
    if can_return and (page.price > wanted.price_upper or len(offered) < len(wanted.options)):
        return BACK
    # Features, back, choose and buy.
    if unsaid and not looked and steps_left >= 3 + len(left):
        return FEATURES
    return _click(left[0]) if left else BUY


def thought(wanted: Wanted, page: Page, *, looked: bool) -> str:
    """What it thinks on a page of features, "slim fit yes soft lining no"; elsewhere nothing.

    Whether it goes on or buys rests on all wanted attributes at once. Said one by one, each is looked up by itself.

    Args:
        wanted: the goal.
        page: what is shown.
        looked: whether the features of the product shown have been seen.
    """
    if page.kind != "sub" or not looked:
        return ""
    said = " ".join((page.title, *page.features)).lower()
    return " ".join(f"{word.lower()} {'yes' if word.lower() in said else 'no'}" for word in wanted.attributes)


def overlook(wanted: Wanted, page: Page, *, seed: int, step: int) -> str | None:
    """Mostly what one does who minds neither price nor features and leaves the last option unchosen; else None.

    Args:
        wanted: the goal.
        page: what is shown.
        seed: of the episode.
        step: number of steps so far.
    """
    if random.Random(f"overlook {seed} {step}").random() >= OVERLOOK:
        return None
    if page.kind == "sub":
        return BACK
    if page.kind == "item":
        left = _unchosen(wanted, page)
        return _click(left[0]) if len(left) > 1 else BUY
    return None


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
    """Open the first product that was not opened yet and is not too dear, or look further."""
    new = [one for one in page.listed if one.asin not in opened and one.price <= wanted.price_upper]
    if new:
        return _click(new[0].asin)
    if page.has_more and steps_left > 3 + len(wanted.options):
        return NEXT
    return _click(page.listed[0].asin) if page.listed else search_for(wanted)


def _unchosen(wanted: Wanted, page: Page) -> list[str]:
    """Values that are wanted, offered and not chosen yet."""
    return [value for name, value in equal_options(wanted, page).items() if page.chosen.get(name) != value]


def _click(label: str) -> str:
    return f"click[{label}]"
