"""What the experts are told: the goal, the page, what they did so far, and which options of a product serve best."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from steppo_gym.envs.webshop.actions import Click, command_text, is_sayable
from steppo_gym.envs.webshop.expert import FEATURES, Listed, Page, Wanted
from steppo_gym.envs.webshop.session import Session, Shelves, option_of
from steppo_gym.envs.webshop.store.catalogue import Goal, Product

_KINDS = {"description": "sub", "features": "sub", "reviews": "sub"}


def wanted(goal: Goal) -> Wanted:
    """The goal without its right product."""
    options = tuple(goal.options.values()) if isinstance(goal.options, Mapping) else goal.options
    return Wanted(goal.query, goal.attributes, options, goal.price_upper, goal.title)


def expert_page(session: Session, shop: Shelves) -> Page:
    """What is shown.

    Args:
        session: not at "done".
        shop: where it is.
    """
    listed = [shop.product(asin) for asin in session.listed()] if session.page == "results" else []
    product = shop.product(session.asin) if session.asin else None
    return Page(
        kind=_KINDS.get(session.page, session.page),
        listed=[Listed(product.asin, product.title, product.prices[0]) for product in listed],
        has_more=session.has_more(),
        keywords=session.keywords,
        asin=session.asin,
        title="" if product is None else product.title,
        options={} if product is None else product.options,
        chosen=dict(session.chosen),
        price=0.0 if product is None else product.prices[0],
        features=() if product is None else product.bullet_points,
    )


def has_looked(actions: Sequence[str], asin: str) -> bool:
    """Whether the features of the product shown have been seen since it was opened."""
    opened = f"click[{asin.lower()}]"
    for action in reversed(actions):
        if action == FEATURES:
            return True
        if action.lower() == opened:
            return False
    return False


def best_choice(product: Product, score: Callable[[Mapping[str, str]], float]) -> tuple[dict[str, str], float]:
    """Options of a product that score best, and their score.

    One option after the other, which is exact unless one value serves for two wanted ones; options that change nothing
    are left alone.

    Args:
        product: with the options.
        score: of the product with options, by name.
    """
    chosen: dict[str, str] = {}
    best = score(chosen)
    for name, values in product.options.items():
        for value in values:
            if option_of(product, value) != name or not is_sayable(command_text(Click(value))):
                continue  # the shop's own rules make it impossible to choose
            reached = score({**chosen, name: value})
            if reached > best:
                chosen, best = {**chosen, name: value}, reached
    return chosen, best
