"""The scripted experts: they know what would earn the full reward, and have to find and compare it in the shop.

`careful` searches for what is wanted, opens likely products one after the other, looks at the features of a product
whose title leaves something open, goes back where it does not fit, picks the options and buys. Where comparing takes
too long it goes for a product that fits, or searches for the wanted one by name: its success marks what the shop
allows. `hasty` has a fault: in most episodes it buys without one of the options, or, where there are none, the first
product it opens.

>>> expert_action(goal, page, opened=(), looked=False, steps_left=15, fits=lambda asin: True)
'search[quick drying hoodie slim fit zip pockets]'
"""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable, Mapping, Sequence

HASTE = 0.65
"""Share of the episodes in which the hasty expert errs."""
MAX_COMPARED = 2
"""Products that do not fit which the expert opens before it goes straight for one that does."""
BUY, BACK, FEATURES = "click[buy now]", "click[< prev]", "click[features]"
_COMPARING_STEPS = 4
"""Steps that opening a product, reading its features and going back to the results take."""
NEXT = "click[next >]"


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A goal.

    Attributes:
        query: kind of product.
        attributes: wanted ones.
        options: wanted values; names are not needed.
        price_upper: most that the product may cost, in dollars.
        title: of the product that the goal was made from.
    """

    query: str
    attributes: Sequence[str]
    options: Sequence[str]
    price_upper: float
    title: str


@dataclasses.dataclass(frozen=True, slots=True)
class Listed:
    """A product among search results; `price` is the lowest shown, in dollars."""

    asin: str
    title: str
    price: float


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What is shown.

    Attributes:
        kind: "index", "results", "item" or "sub".
        listed: products on a page of results.
        has_more: whether a page of results has products after it.
        keywords: of the last search, whoever made it; "" before the first.
        asin: product of an item page or what lies below one, else "".
        title: its title.
        options: values to choose from, by name of the option.
        chosen: values chosen so far, by name of the option.
        price: its lowest price, in dollars.
        features: what its page of features says, whether it was looked at or not.
    """

    kind: str
    listed: Sequence[Listed] = ()
    has_more: bool = False
    keywords: str = ""
    asin: str = ""
    title: str = ""
    options: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    chosen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    price: float = 0.0
    features: Sequence[str] = ()


def expert_action(
    wanted: Wanted,
    page: Page,
    *,
    opened: Sequence[str],
    looked: bool,
    steps_left: int,
    fits: Callable[[str], bool],
    picks: Callable[[str], Mapping[str, str]] | None = None,
    seed: int | None = None,
) -> str:
    """What the expert does, as an official action: "search[...]" or "click[...]".

    Args:
        wanted: the goal.
        page: what is shown.
        opened: asins opened so far, the one shown included.
        looked: whether the features of the product shown have been seen.
        steps_left: including this one.
        fits: whether a product earns the full reward with the right options.
        picks: the right options of a product, by name; None takes the option values that equal a wanted one.
        seed: of the hasty expert's episode; None is the careful one.
    """
    fit = bool(page.asin) and fits(page.asin)
    direct = _direct_steps(wanted)
    hasty = seed is not None and _is_hasty(seed)
    if page.kind == "index":
        return _search(query_of(wanted) if steps_left > direct else _plain(wanted.title))
    if page.kind == "results":
        return _from_results(wanted, page, opened=opened, steps_left=steps_left, fits=fits)
    # Steps are short and the results are not those of the name: the search works from here too.
    if not fit and not hasty and page.keywords != _plain(wanted.title) and steps_left in (direct, direct + 1):
        return _search(_plain(wanted.title))
    if page.kind == "sub":
        return BACK
    missing = [
        value
        for name, value in (picks(page.asin) if picks else equal_options(wanted, page)).items()
        if page.chosen.get(name) != value
    ]
    unread = [word for word in wanted.attributes if word.lower() not in page.title.lower()]
    # Two steps for the look; then choose and buy, or go back and for the wanted one.
    has_time = steps_left >= 2 + (len(missing) + 1 if fit else 1 + direct)
    if unread and has_time and not looked and not page.chosen and not hasty:
        return FEATURES
    if not fit and not hasty and steps_left > direct:
        return BACK
    # The fault: the last option that is wanted stays unchosen.
    if len(missing) > int(hasty):
        return f"click[{missing[0]}]"
    return BUY


def search_for(wanted: Wanted) -> str:
    """The search for what is wanted."""
    return _search(query_of(wanted))


def query_of(wanted: Wanted) -> str:
    """What to search for: the wanted attributes around the kind of product, and the options."""
    first, *others = wanted.attributes or ("",)
    return " ".join(_plain(text) for text in (first, wanted.query, *others, *wanted.options) if _plain(text))


def _from_results(
    wanted: Wanted, page: Page, *, opened: Sequence[str], steps_left: int, fits: Callable[[str], bool]
) -> str:
    """Open the likeliest product, or look further."""
    name, direct = _plain(wanted.title), _direct_steps(wanted)
    is_own = page.keywords in (query_of(wanted), name)
    listed = [one for one in page.listed if one.price <= wanted.price_upper]
    new = [one for one in listed if one.asin not in opened]
    if not is_own or len(set(opened)) >= MAX_COMPARED or steps_left < _COMPARING_STEPS + direct:
        new = [one for one in listed if fits(one.asin)]
    words = set(_plain(f"{wanted.query} {' '.join(wanted.attributes)}").split())
    best = max(new, key=lambda one: len(words & set(_plain(one.title).split())), default=None)
    if best is not None:
        return f"click[{best.asin}]"
    if not is_own and steps_left > direct:
        return search_for(wanted)
    if page.keywords != name and steps_left >= direct:
        return _search(name)
    # The name leads to the product; what stands first there is the best that is left when time runs out.
    if page.has_more and steps_left >= direct:
        return NEXT
    return f"click[{page.listed[0].asin}]" if page.listed else _search(_plain(wanted.query))


def _direct_steps(wanted: Wanted) -> int:
    """Steps that it takes to search for the wanted product by its name, to open it, choose its options and buy."""
    return 3 + len(wanted.options)


def equal_options(wanted: Wanted, page: Page) -> dict[str, str]:
    """Options that offer a wanted value, each wanted value once."""
    left = [value.lower() for value in wanted.options]
    found: dict[str, str] = {}
    for name, values in page.options.items():
        value = next((value for value in values if value.lower() in left), None)
        if value is not None:
            left.remove(value.lower())
            found[name] = value
    return found


def _search(text: str) -> str:
    return f"search[{text or 'product'}]"


def _plain(text: str) -> str:
    """Lower-case words without brackets or marks, which the shop reads in its own way."""
    return " ".join(re.findall(r"\w+", text.lower()))


def _is_hasty(seed: int) -> bool:
    return random.Random(f"haste {seed}").random() < HASTE
