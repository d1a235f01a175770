"""The products of a shop in a database, looked up one at a time.

    build_once(path, lambda connection: write_products(connection, find_files("~/webshop"), progress=True))
    store = ProductStore(path)
    store.product("B09MQWJNWW").title

It also has what the official files know of them: attributes, instructions, and the price that the reward takes.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from steppo_gym.envs.webshop.data import OfficialFiles, read_by_asin, read_items
from steppo_gym.envs.webshop.store.catalogue import Product, products_of
from steppo_gym.envs.webshop.store.database import Database
from steppo_gym.envs.webshop.store.goals import reward_prices
from steppo_gym.errors import DataError
from steppo_gym.retrieval import Passage
from steppo_gym.retrieval.corpus import hash_passages

DRAW_SEED = 0
"""Of the draws that the official code makes when it loads its files, and leaves unseeded; see `goals`."""
KEPT_PRODUCTS = 1024
"""Products that stay decoded; a page of results shows ten."""

_TABLES = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE annotations (asin TEXT PRIMARY KEY, annotation TEXT NOT NULL)",
    "CREATE TABLE instructions (asin TEXT PRIMARY KEY, instructions TEXT NOT NULL)",
    """CREATE TABLE products (
        position INTEGER PRIMARY KEY, asin TEXT NOT NULL, price REAL NOT NULL, category TEXT NOT NULL,
        query TEXT NOT NULL, product TEXT NOT NULL
    )""",
    """CREATE TABLE attributes (
        attribute TEXT NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (attribute, position)
    ) WITHOUT ROWID""",
)
_INDEXES = (
    "CREATE UNIQUE INDEX by_asin ON products (asin)",
    "CREATE INDEX by_category ON products (category)",
    "CREATE INDEX by_query ON products (query)",
)
# Personal, or not needed.
_DROPPED = frozenset({"worker_id", "assignment_id"})
_ALL_PRODUCTS = "SELECT product FROM products ORDER BY position"


class ProductStore:
    """Reads the products that `write_products` wrote; they are numbered in the order of their file, from 0.

    Args:
        path: the database.

    Raises:
        DataError: the database is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        facts = dict(self.database.rows("SELECT name, value FROM facts"))
        self.num_products = int(facts["num_products"])
        self.corpus: str = facts["corpus"]
        """SHA-256 of what is searched, in hex."""
        self.has_human_instructions = bool(int(facts["has_human_instructions"]))
        self.product = lru_cache(KEPT_PRODUCTS)(self._product)

    def has(self, asin: str) -> bool:
        """Whether there is a product of this id."""
        return bool(self.database.rows("SELECT 1 FROM products WHERE asin = ?", asin))

    def price(self, asin: str) -> float:
        """What the reward takes as the price of a product, in dollars.

        Raises:
            KeyError: no such product.
        """
        rows = self.database.rows("SELECT price FROM products WHERE asin = ?", asin)
        if not rows:
            raise _unknown(asin)
        return rows[0][0]

    def products(self) -> Iterator[Product]:
        """All products, in their order."""
        return (_decode(text) for (text,) in self.database.iterate(_ALL_PRODUCTS))

    def asin_at(self, position: int) -> str:
        """The id of a product by its number."""
        ((asin,),) = self.database.rows("SELECT asin FROM products WHERE position = ?", position)
        return asin

    def asins_with_attribute(self, attribute: str, limit: int) -> list[str]:
        """The first ids of products that have an attribute."""
        query = """
            SELECT asin FROM attributes JOIN products USING (position) WHERE attribute = ?
            ORDER BY attributes.position LIMIT ?
        """
        return [asin for (asin,) in self.database.rows(query, attribute, limit)]

    def asins_of_category(self, category: str, limit: int) -> list[str]:
        """The first ids of a category."""
        query = "SELECT asin FROM products WHERE category = ? ORDER BY position LIMIT ?"
        return [asin for (asin,) in self.database.rows(query, category, limit)]

    def asins_of_query(self, text: str, limit: int) -> list[str]:
        """The first ids of products that a search of the data's makers found."""
        query = "SELECT asin FROM products WHERE query = ? ORDER BY position LIMIT ?"
        return [asin for (asin,) in self.database.rows(query, text, limit)]

    def annotation(self, asin: str) -> Mapping[str, Any] | None:
        """What "items_ins_v2*.json" has for a product."""
        rows = self.database.rows("SELECT annotation FROM annotations WHERE asin = ?", asin)
        return json.loads(rows[0][0]) if rows else None

    def instructions(self, asin: str) -> Sequence[Mapping[str, Any]]:
        """What "items_human_ins.json" has for a product."""
        rows = self.database.rows("SELECT instructions FROM instructions WHERE asin = ?", asin)
        return json.loads(rows[0][0]) if rows else ()

    def passages(self) -> Iterator[Passage]:
        """What is searched of all products, in their order."""
        return _passages(text for (text,) in self.database.iterate(_ALL_PRODUCTS))

    def _product(self, asin: str) -> Product:
        rows = self.database.rows("SELECT product FROM products WHERE asin = ?", asin)
        if not rows:
            raise _unknown(asin)
        return _decode(rows[0][0])


def contents(product: Product) -> str:
    """What of a product is searched (WebShop's `convert_product_file_format.py`): no attributes, the first feature."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join((product.title, product.description, *product.bullet_points[:1], options)).lower()


def write_products(connection: sqlite3.Connection, files: OfficialFiles, *, progress: bool) -> None:
    """Fill a new database from the official files, which are read one record at a time.

    Raises:
        DataError: a file is damaged or not what its name says.
    """
    for statement in _TABLES:
        connection.execute(statement)
    annotations = (_annotation(files.attributes, *row) for row in read_by_asin(files.attributes, progress=progress))
    connection.executemany("INSERT OR REPLACE INTO annotations VALUES (?, ?)", annotations)
    if files.human is not None:
        instructions = (_instructions(files.human, *row) for row in read_by_asin(files.human, progress=progress))
        connection.executemany("INSERT OR REPLACE INTO instructions VALUES (?, ?)", instructions)
    num_products, rng = 0, random.Random(DRAW_SEED)
    for product in _read_products(connection, files, progress):
        ((asin, price),) = reward_prices([product], rng)
        row = (num_products, asin, price, product.category, product.query, _encode(product))
        connection.execute("INSERT INTO products VALUES (?, ?, ?, ?, ?, ?)", row)
        attributes = [(attribute, num_products) for attribute in set(product.attributes)]
        connection.executemany("INSERT INTO attributes VALUES (?, ?)", attributes)
        num_products += 1
    if not num_products:
        raise DataError(f"Expected products in {files.items}, found none.")
    for statement in _INDEXES:
        connection.execute(statement)
    facts = {
        "num_products": num_products,
        "has_human_instructions": int(files.human is not None),
        "corpus": hash_passages(_passages(text for (text,) in connection.execute(_ALL_PRODUCTS))),
    }
    connection.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())


def _read_products(connection: sqlite3.Connection, files: OfficialFiles, progress: bool) -> Iterator[Product]:
    def attributes(asin: str) -> Sequence[str] | None:
        row = connection.execute("SELECT annotation FROM annotations WHERE asin = ?", (asin,)).fetchone()
        return None if row is None else json.loads(row[0]).get("attributes")

    try:
        yield from products_of(read_items(files.items, progress=progress), attributes)
    except DataError as error:
        raise error if str(files.items) in str(error) else DataError(f"In {files.items}: {error}") from error


def _annotation(path: Path, asin: str, row: Any) -> tuple[str, str]:
    """A row of "items_ins_v2*.json"."""
    attributes = row.get("attributes", []) if isinstance(row, dict) else None
    if not isinstance(attributes, list) or not all(isinstance(attribute, str) for attribute in attributes):
        raise DataError(f"Expected an object with a list of attributes for {asin!r} in {path}, found {row!r:.80}.")
    return asin, json.dumps(row)


def _instructions(path: Path, asin: str, rows: Any) -> tuple[str, str]:
    """A row of "items_human_ins.json" without what is dropped of it."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"Expected a list of objects for {asin!r} in {path}, found {rows!r:.80}.")
    return asin, json.dumps([{key: row[key] for key in row if key not in _DROPPED} for row in rows])


def _passages(texts: Iterable[str]) -> Iterator[Passage]:
    for text in texts:
        product = _decode(text)
        yield Passage(product.asin, "", contents(product))


def _unknown(asin: str) -> KeyError:
    return KeyError(f"Expected the id of a product, found {asin!r:.80}.")


def _encode(product: Product) -> str:
    fields = {name: getattr(product, name) for name in Product.__slots__}
    return json.dumps(list(fields.values()))


def _decode(text: str) -> Product:
    asin, title, description, bullets, attributes, options, prices, *others = json.loads(text)
    return Product(
        asin,
        title,
        description,
        tuple(bullets),
        tuple(attributes),
        {name: tuple(values) for name, values in options.items()},
        tuple(prices),
        *others,
    )
