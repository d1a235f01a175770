"""Products and goals of WebShop, in the layout of the official data files (princeton-nlp/WebShop, MIT).

>>> prices_of("$1,036.99 - $48.99")
(1036.99, 48.99)
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from steppo_gym.errors import DataError

DEFAULT_PRICE = 100.0
"""Price in dollars of a product that names none."""
_NO_ATTRIBUTES = ("DUMMY_ATTR",)
_LONGEST_ASIN = 10


@dataclasses.dataclass(frozen=True, slots=True)
class Product:
    """A product as the shop shows it.

    Attributes:
        asin: its id, at most ten characters.
        title: its name.
        description: may be empty.
        bullet_points: its features, in the order of the page.
        attributes: what it counts as having.
        options: values to choose from, by lower-case name.
        prices: one price in dollars, or the lowest and the highest.
        query: the search it was found by, lower case.
        product_category: parts joined by U+203A between blanks.
        category: department.
    """

    asin: str
    title: str
    description: str
    bullet_points: tuple[str, ...]
    attributes: tuple[str, ...]
    options: Mapping[str, tuple[str, ...]]
    prices: tuple[float, ...]
    query: str
    product_category: str
    category: str

    @property
    def price_tag(self) -> str:
        """The price as the pages show it, "$36.99 to $48.99"."""
        return " to ".join(f"${price}" for price in self.prices)


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What to buy.

    Attributes:
        asin: the product that the goal was made from.
        instruction: the text shown, with its price bound.
        attributes: wanted ones.
        options: wanted values: a tuple for human goals, values by option name for synthetic ones.
        price_upper: most that the product may cost, in dollars.
        query: of the product.
        product_category: of the product.
        title: of the product.
    """

    asin: str
    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...] | Mapping[str, str]
    price_upper: float
    query: str
    product_category: str
    title: str


def products_of(
    items: Iterable[Mapping[str, Any]], attributes: Callable[[str], Sequence[str] | None]
) -> Iterator[Product]:
    """The products of `items_shuffle*.json`, without repeated or unusable ids.

    Args:
        items: the records of the file.
        attributes: those that `items_ins_v2*.json` has for an asin, None where it has no list of them.

    Raises:
        DataError: a record lacks a key, or has something else than the official files in one.
    """
    seen: set[str] = set()
    for number, item in enumerate(items):
        try:
            asin = _text(item, "asin")
            if asin == "nan" or len(asin) > _LONGEST_ASIN or asin in seen:
                continue
            seen.add(asin)
            known = attributes(asin)
            yield _product(item, _NO_ATTRIBUTES if known is None else tuple(known))
        except KeyError as error:
            raise DataError(
                f"Product {number} has no key {error}; found {sorted(item)}. Use an official items_shuffle file."
            ) from None
        except (TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"Product {number} is none of an official items_shuffle file ({type(error).__name__}: {error}). "
                "`steppo-gym download webshop` fetches one."
            ) from error


def prices_of(pricing: str) -> tuple[float, ...]:
    """The first two prices of a text such as "$1 - $2", in dollars; `DEFAULT_PRICE` where there are none.

    Raises:
        ValueError: a price is no number, or more than one can say.
    """
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    if not all(map(math.isfinite, prices[:2])):
        raise ValueError(f"expected prices in dollars, found {pricing!r:.80}")
    return tuple(prices[:2]) or (DEFAULT_PRICE,)


def _product(item: Mapping[str, Any], attributes: tuple[str, ...]) -> Product:
    bullets = item["small_description"]
    options = item["customization_options"] or {}
    return Product(
        asin=item["asin"],
        title=_text(item, "name"),
        description=_text(item, "full_description"),
        bullet_points=(bullets,) if isinstance(bullets, str) else tuple(map(_as_text, bullets)),
        attributes=attributes,
        options={
            name.lower(): tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
            for name, values in options.items()
            if values is not None
        },
        prices=prices_of(item.get("pricing", "")),
        query=_text(item, "query").lower().strip(),
        product_category=_text(item, "product_category"),
        category=_text(item, "category"),
    )


def _text(item: Mapping[str, Any], key: str) -> str:
    """A text of a record. The official code stops at a null too, at the latest when such a product is bought."""
    if not isinstance(item[key], str):
        raise TypeError(f"expected a text as {key!r}, found {item[key]!r:.80}")
    return item[key]


def _as_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected texts in 'small_description', found {value!r:.80}")
    return value
