"""The built-in shop: products and what people want of them, in the layout of WebShop's official files.

    files = generate_files(1000)
    files.items[0]["name"]                   # "Kestrel Fjord Quick Drying Slim Fit Hoodie"
    files.attributes["B0..."]["instruction"] # "Find me quick drying, slim fit hoodie with zip pockets"
    write_files("shop", files)               # the three official files, for the loader

Products come in families of five that share brand, series and kind. Within a family two have another attribute, one
lacks values of an option, and one costs far more. A title shows two of the three wanted attributes and the third stands
in the bullet points alone, so the right product has to be looked for, opened and compared.
"""

from __future__ import annotations

import dataclasses
import json
import random
import string
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from steppo_gym.envs.webshop.built_in.words import BRANDS, DEPARTMENTS, SERIES, Department
from steppo_gym.errors import DataError

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
FILE_NAMES = ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json")
"""Names of the products' file, the attributes' file and the human instructions' file."""

_FAMILY = ("first", "attribute", "attribute", "option", "price")
"""What sets each product of a family apart."""
_NUM_ATTRIBUTES = 4
_NUM_WANTED = 3
_NUM_IN_TITLE = 2
_DEARER = (60, 120)
"""Dollars between a product and its dear twin; price limits are at most 50 dollars above a price."""
_RANGE_SHARE = 0.2
_SEPARATOR = " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} "
_ASIN_CHARS = string.ascii_uppercase
"""No digits, so that an id is one word."""
_HUMAN_WORDINGS = (
    "i am looking for a {first} {query} that is {second} and {third}{options}.",
    "i need {first}, {third} {query}, it should be {second}{options}.",
    "find {query} with {third}, {second} and {first}{options}.",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Files:
    """What the three official files hold.

    Attributes:
        items: products, rows of `items_shuffle.json`.
        attributes: by asin, attributes and synthetic instruction, as in `items_ins_v2.json`.
        human: by asin, human instructions, as in `items_human_ins.json`.
    """

    items: list[dict[str, Any]]
    attributes: dict[str, dict[str, Any]]
    human: dict[str, list[dict[str, Any]]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Draft:
    """What a product is, before it is worded."""

    category: str
    query: str
    line: str
    attributes: tuple[str, ...]
    options: dict[str, tuple[str, ...]]
    low: float
    high: float


def generate_files(num_products: int = 1000, seed: int = 0) -> Files:
    """A shop; the same arguments give the same bytes.

    Args:
        num_products: at least 1.
        seed: of all draws.

    Raises:
        ValueError: fewer than one product.
    """
    if num_products < 1:
        raise ValueError(f"Expected num_products of at least 1, found {num_products}.")
    rng = random.Random(f"webshop {seed}")
    drafts: list[_Draft] = []
    while len(drafts) < num_products:
        drafts.extend(_family(rng))
    del drafts[num_products:]
    rng.shuffle(drafts)
    files = Files([], {}, {})
    for draft in drafts:
        asin = _asin(rng)
        while asin in files.attributes:
            asin = _asin(rng)
        files.items.append(_item(asin, draft))
        files.attributes[asin] = _synthetic(draft)
        files.human[asin] = [_human(rng, asin, draft)]
    return files


def write_files(folder: str | Path, files: Files) -> None:
    """Write the three official files into a folder, which is made if missing.

    Raises:
        DataError: one of the files is there already.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in FILE_NAMES]
    for path in paths:
        if path.exists():
            raise DataError(f"Expected no file {path}, found one. Delete it or choose another folder.")
    for path, content in zip(paths, (files.items, files.attributes, files.human), strict=True):
        path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def split_of(query: str, attributes: Sequence[str]) -> Split:
    """The split of a goal of a reduced or generated set of products, by the combination of what is wanted.

    A tenth of the combinations each are for validation and test. Every word of a held-out combination is known from
    training, the combination is not. All goals of a product want the same attributes and so fall into one split.

    Args:
        query: kind of product.
        attributes: wanted ones, in any order.
    """
    place = zlib.crc32("|".join((query, *sorted(attributes))).encode()) % 10
    return "test" if place == 0 else "validation" if place == 1 else "train"


def _family(rng: random.Random) -> list[_Draft]:
    category = rng.choice(tuple(DEPARTMENTS))
    department = DEPARTMENTS[category]
    low = rng.randint(*department.prices) + rng.choice((0.49, 0.95, 0.99))
    first = _Draft(
        category,
        query=rng.choice(tuple(department.kinds)),
        line=f"{rng.choice(BRANDS)} {rng.choice(SERIES)}",
        attributes=tuple(rng.sample(department.attributes, _NUM_ATTRIBUTES)),
        options=_options(rng, department),
        low=low,
        high=round(low * 1.3, 2) if rng.random() < _RANGE_SHARE else low,
    )
    return [_twin(rng, first, difference) for difference in _FAMILY]


def _twin(rng: random.Random, first: _Draft, difference: str) -> _Draft:
    """A near-duplicate."""
    if difference == "attribute":
        others = [word for word in DEPARTMENTS[first.category].attributes if word not in first.attributes]
        attributes = list(first.attributes)
        # Mostly the wanted attribute that no title shows.
        attributes[rng.choice((0, 1, 2, 2, 2, 2))] = rng.choice(others)
        return dataclasses.replace(first, attributes=tuple(attributes))
    if difference == "option" and first.options:
        name = rng.choice(tuple(first.options))
        kept = first.options[name][: len(first.options[name]) // 2]
        return dataclasses.replace(first, options={**first.options, name: kept})
    if difference == "price":
        more = rng.randint(*_DEARER)
        return dataclasses.replace(first, low=round(first.low + more, 2), high=round(first.high + more, 2))
    return first


def _options(rng: random.Random, department: Department) -> dict[str, tuple[str, ...]]:
    """A quarter of the families have no options, a quarter one, half of them two."""
    names = tuple(department.options)
    chosen = {0: (), 1: (rng.choice(names),)}.get(rng.randrange(4), names)
    return {name: tuple(rng.sample(department.options[name], rng.randint(3, 4))) for name in chosen}


def _asin(rng: random.Random) -> str:
    return "B" + "".join(rng.choices(_ASIN_CHARS, k=9))


def _item(asin: str, draft: _Draft) -> dict[str, Any]:
    department = DEPARTMENTS[draft.category]
    titled = " ".join(draft.attributes[:_NUM_IN_TITLE])
    name = f"{draft.line} {f'{titled} {draft.query}'.title()}"
    price = f"${draft.low:.2f}"
    return {
        "asin": asin,
        "name": name,
        "full_description": f"The {draft.line} is a {draft.query} for every day. It comes {draft.attributes[0]}.",
        "small_description": [
            f"A {draft.query} by {draft.line.split()[0]}",
            *(f"{attribute.capitalize()}: made for daily use" for attribute in draft.attributes),
        ],
        "pricing": price if draft.high == draft.low else f"{price} - ${draft.high:.2f}",
        "images": [f"https://images.invalid/{asin}.jpg"],
        "category": draft.category,
        "query": draft.query,
        "product_category": _SEPARATOR.join((department.path, draft.query.title(), department.kinds[draft.query])),
        "average_rating": "",
        "page": "1",
        "customization_options": {
            option.title(): [{"value": value, "image": None} for value in values]
            for option, values in draft.options.items()
        }
        or "",
    }


def _synthetic(draft: _Draft) -> dict[str, Any]:
    first, second, third = draft.attributes[:_NUM_WANTED]
    return {
        "attributes": list(draft.attributes),
        "instruction": f"Find me {first}, {second} {draft.query} with {third}",
        "instruction_attributes": [first, second, third],
    }


def _human(rng: random.Random, asin: str, draft: _Draft) -> dict[str, Any]:
    wanted = {name: rng.choice(values) for name, values in draft.options.items()}
    first, second, third = draft.attributes[:_NUM_WANTED]
    options = "".join(f", {name} {value}" for name, value in wanted.items())
    wording = rng.choice(_HUMAN_WORDINGS)
    return {
        "asin": asin,
        "instruction": wording.format(first=first, second=second, third=third, query=draft.query, options=options),
        "attributes": list(draft.attributes),
        "options": [f"{name}: {value}" for name, value in wanted.items()] or [""],
        "instruction_attributes": [first, second, third],
        "instruction_options": list(wanted.values()),
        "assignment_id": f"built-in {asin}",
        "worker_id": "built-in",
    }
