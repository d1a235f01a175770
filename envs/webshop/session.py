"""Where a customer is in the shop, and what searches and clicks change: the official server as pure functions.

session = search(Session(), "slim fit hoodie", shop, rng)
session = click(session, "b01hqtwl6s", shop, rng)       # None if there is nothing of this label on the page
page(session, instruction, shop)                        # its nodes, see `pages`
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from steppo_gym.envs.webshop import pages
from steppo_gym.envs.webshop.pages import Node
from steppo_gym.envs.webshop.store.catalogue import Product
from steppo_gym.quoting import one_line, valid_text

PageName = Literal["index", "results", "item", "description", "features", "reviews", "done"]

PAGE_SIZE = 10
"""Products on a page of results, officially."""
SUB_PAGES: dict[str, PageName] = {"description": "description", "features": "features", "reviews": "reviews"}
"""Pages below that of a product, by label."""
BUY, BACK, NEXT, PREVIOUS = "buy now", "back to search", "next >", "< prev"
SEARCH_BUTTON = "search"
_RANDOM = "<r>"
"""First word of a search for random products."""


class Shelves(Protocol):
    """What a session needs of a shop; see `shop.Shop`."""

    def has(self, asin: str) -> bool:
        """Whether there is a product of this id."""
        ...

    def product(self, asin: str) -> Product:
        """Look up a product."""
        ...

    def search(self, keywords: Sequence[str], rng: random.Random) -> list[str]:
        """Asins, the best first."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """A customer's state; a new one is at the search bar.

    Attributes:
        page: where the customer is.
        keywords: of the last search, as typed.
        results: asins that it found, on all pages.
        number: of the page of results, from 1; counts on past the last one.
        asin: of the product shown or bought, else "".
        chosen: (name, value) of the options clicked, in order.
        visited: asins opened since the search bar was last seen, in order.
        page_size: products on a page of results.
    """

    page: PageName = "index"
    keywords: str = ""
    results: tuple[str, ...] = ()
    number: int = 0
    asin: str = ""
    chosen: tuple[tuple[str, str], ...] = ()
    visited: tuple[str, ...] = ()
    page_size: int = PAGE_SIZE

    def listed(self) -> tuple[str, ...]:
        """Asins on the page of results."""
        return self.results[(self.number - 1) * self.page_size : self.number * self.page_size]

    def has_more(self) -> bool:
        """Whether there are results after those of this page."""
        return len(self.results) > self.number * self.page_size

    def is_random(self) -> bool:
        """Whether the last search was for random products."""
        return self.keywords.split(" ")[0] == _RANDOM

    def hidden_state(self) -> list[Any]:
        """What all that follows depends on, JSON-serialisable; equal for sessions that differ in wording alone."""
        chosen, visited = sorted(self.chosen), sorted(self.visited)
        return [self.page, self.is_random(), self.results, self.number, self.asin, chosen, visited]


def impossible(session: Session, shop: Shelves) -> str:
    """What is wrong with a session that cannot have come about in this shop, "" if it can."""
    if session.page_size < 1 or (session.number == 0) != (session.page == "index"):
        return f"expected pages from 1 of at least 1 product, found {session.number} and {session.page_size}"
    unknown = [asin for asin in (*session.results, *session.visited) if not shop.has(asin)]
    if unknown:
        return f"expected products of this shop, found {one_line(unknown[0])!r}"
    if not session.is_random() and list(session.results) != _found(session, shop):
        return f"expected what this shop finds for {one_line(session.keywords)!r}, found {len(session.results)} others"
    if len(set(session.visited)) < len(session.visited) or (session.visited and session.page == "index"):
        return f"expected products opened since the search bar, each once, found {one_line(repr(session.visited))}"
    return _impossible_product(session, shop)


def _found(session: Session, shop: Shelves) -> list[str]:
    """What the last search found, unless it was for random products."""
    return [] if session.page == "index" else shop.search(session.keywords.split(" "), random.Random(0))


def _impossible_product(session: Session, shop: Shelves) -> str:
    """What is wrong with the product that a session shows, and with its options."""
    shown = session.page not in ("index", "results")
    if shown != bool(session.asin):
        return f"expected a product where one is shown, found {one_line(session.asin)!r} on the page {session.page!r}"
    if shown and not (session.asin in session.listed() and session.asin in session.visited):
        return f"expected a product that was listed and opened, found {one_line(session.asin)!r}"
    options, chosen = shop.product(session.asin).options if shown else {}, dict(session.chosen)
    if len(chosen) < len(session.chosen) or not all(value in options.get(name, ()) for name, value in chosen.items()):
        return f"expected options of the product, found {one_line(repr(session.chosen))}"
    return ""


def search(session: Session, keywords: str, shop: Shelves, rng: random.Random) -> Session:
    """Search, which works from any page but the last; leaves the product shown and forgets its options.

    Args:
        session: not at "done".
        keywords: at least one character.
        shop: where to search.
        rng: draws for a search for random products.
    """
    # A response can hold half of a surrogate pair; a page and a snapshot cannot.
    keywords = valid_text(keywords)
    results = tuple(shop.search(keywords.split(" "), rng))
    return Session("results", keywords, results, number=1, visited=session.visited, page_size=session.page_size)


def click(session: Session, label: str, shop: Shelves, rng: random.Random) -> Session | None:
    """Click something, or None if there is nothing of this label, in which case nothing happens.

    Args:
        session: not at "done".
        label: lower case.
        shop: whose products are shown.
        rng: draws for a search for random products, which is done again on the way back to its results.
    """
    # The official environment clicks nothing that is called as the button of the search bar is, on no page.
    if label == SEARCH_BUTTON or label not in pages.clickables(page(session, "", shop)):
        return None
    if label == BACK:
        return Session(page_size=session.page_size)
    match session.page:
        case "results":
            return _click_results(session, label, shop, rng)
        case "item":
            return _click_item(session, label, shop, rng)
        case _:
            return dataclasses.replace(session, page="item")


def page(session: Session, instruction: str, shop: Shelves) -> list[Node]:
    """The page that the customer sees."""
    match session.page:
        case "index":
            return pages.index_page(instruction)
        case "results":
            listed = [shop.product(asin) for asin in session.listed()]
            return pages.results_page(
                instruction, listed, session.number, len(session.results), frozenset(session.visited)
            )
        case "item":
            return pages.item_page(instruction, shop.product(session.asin), dict(session.chosen))
        case "description":
            return pages.description_page(instruction, shop.product(session.asin))
        case "features":
            return pages.features_page(instruction, shop.product(session.asin))
        case "reviews":
            return pages.reviews_page(instruction)
        case "done":
            return pages.done_page(session.asin, dict(session.chosen))


def option_of(product: Product, label: str) -> str:
    """The name of the option that a click on a value sets; of several with this value the last, as officially.

    Empty where no option has the value, or a button of the same label is clicked instead.
    """
    if label in (BUY, BACK, PREVIOUS, *SUB_PAGES):
        return ""
    return next((name for name, values in reversed(tuple(product.options.items())) if label in values), "")


def _click_results(session: Session, label: str, shop: Shelves, rng: random.Random) -> Session:
    if label in (NEXT, PREVIOUS):
        return _results_again(session, session.number + (1 if label == NEXT else -1), shop, rng)
    asin = next(asin for asin in session.listed() if asin.lower() == label)
    visited = session.visited if asin in session.visited else (*session.visited, asin)
    return dataclasses.replace(session, page="item", asin=asin, visited=visited)


def _results_again(session: Session, number: int, shop: Shelves, rng: random.Random) -> Session:
    """The results of the last search; the official server searches once more, which only a random search shows."""
    again = search(session, session.keywords, shop, rng) if session.is_random() else session
    return dataclasses.replace(again, page="results", number=number, asin="", chosen=())


def _click_item(session: Session, label: str, shop: Shelves, rng: random.Random) -> Session:
    if label == BUY:
        return dataclasses.replace(session, page="done")
    if label == PREVIOUS:
        return _results_again(session, session.number, shop, rng)
    if label in SUB_PAGES:
        return dataclasses.replace(session, page=SUB_PAGES[label])
    name = option_of(shop.product(session.asin), label)
    return dataclasses.replace(session, chosen=tuple({**dict(session.chosen), name: label}.items()))
