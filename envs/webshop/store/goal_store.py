"""The goals of a shop in a database, looked up by their number in the shuffled order.

    build_once(path, lambda connection: write_goals(connection, products, "human", progress=True))
    GoalStore(path, products).goal(17)

A goal keeps what is its own; what it has of its product is read from there.
"""

from __future__ import annotations

import json
import random
import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

from tqdm import tqdm

from steppo_gym.envs.webshop.built_in.generate import SPLITS, Split, split_of
from steppo_gym.envs.webshop.store.catalogue import Goal
from steppo_gym.envs.webshop.store.database import Database
from steppo_gym.envs.webshop.store.goals import (
    SplitRule,
    human_goals,
    reward_prices,
    shuffled,
    split_range,
    synthetic_goals,
)
from steppo_gym.envs.webshop.store.products import DRAW_SEED, ProductStore

GoalKind = Literal["human", "synthetic"]

GOAL_KINDS: tuple[GoalKind, ...] = get_args(GoalKind)
KEPT_GOALS = 1024
"""Goals that stay decoded."""
FULL_SET = 1_000_000
"""Products from which on a set is the full official one, whose goals the official code splits."""

_TABLES = (
    "CREATE TABLE goals (made INTEGER PRIMARY KEY, asin TEXT NOT NULL, goal TEXT NOT NULL)",
    "CREATE TABLE numbers (number INTEGER PRIMARY KEY, made INTEGER NOT NULL, split INTEGER NOT NULL)",
)


class GoalStore:
    """Reads the goals that `write_goals` wrote.

    Args:
        path: the database.
        products: of the same shop.

    Raises:
        DataError: the database is missing or damaged.
    """

    def __init__(self, path: Path, products: ProductStore) -> None:
        self._database, self._products = Database(path), products
        ((self.num_goals,),) = self._database.rows("SELECT count(*) FROM goals")
        self._kept = lru_cache(KEPT_GOALS)(self._goal)
        self._combinations = lru_cache(len(SPLITS))(self._numbers)

    def goal(self, number: int) -> Goal:
        """A goal by its number in the shuffled order, from 0.

        Raises:
            IndexError: no such number.
        """
        if not 0 <= number < self.num_goals:
            raise IndexError(f"Expected the number of a goal below {self.num_goals}, found {number}.")
        return self._kept(number)

    def numbers(self, split: Split, rule: SplitRule | None) -> Sequence[int]:
        """Numbers of the goals of a split, ascending.

        Args:
            split: "train", "validation" or "test".
            rule: ranges of the shuffled order, see `goals.split_range`. None takes the official ones for the full set,
                and splits others by what is wanted.
        """
        if rule is None and self._products.num_products < FULL_SET:
            return self._combinations(split)
        return split_range(self.num_goals, split, rule or "official")

    def _goal(self, number: int) -> Goal:
        query = "SELECT asin, goal FROM numbers JOIN goals USING (made) WHERE number = ?"
        ((asin, text),) = self._database.rows(query, number)
        product = self._products.product(asin)
        instruction, attributes, options, price_upper = json.loads(text)
        return Goal(
            asin=asin,
            instruction=instruction,
            attributes=tuple(attributes),
            options=options if isinstance(options, dict) else tuple(options),
            price_upper=price_upper,
            query=product.query,
            product_category=product.product_category,
            title=product.title,
        )

    def _numbers(self, split: Split) -> Sequence[int]:
        query = "SELECT number FROM numbers WHERE split = ? ORDER BY number"
        return array("q", (number for (number,) in self._database.iterate(query, SPLITS.index(split))))


def write_goals(connection: sqlite3.Connection, products: ProductStore, kind: GoalKind, *, progress: bool) -> None:
    """Fill a new database with the goals of a shop, made and shuffled as `goals` says.

    Raises:
        DataError: an instruction is malformed.
    """
    for statement in _TABLES:
        connection.execute(statement)
    splits = bytearray()

    def rows() -> Iterator[tuple[int, str, str]]:
        for made, goal in enumerate(_goals(products, kind, progress)):
            splits.append(SPLITS.index(split_of(goal.query, goal.attributes)))
            yield made, goal.asin, _encode(goal)

    connection.executemany("INSERT INTO goals VALUES (?, ?, ?)", rows())
    order = ((number, made, splits[made]) for number, made in enumerate(shuffled(len(splits))))
    connection.executemany("INSERT INTO numbers VALUES (?, ?, ?)", order)


def _goals(products: ProductStore, kind: GoalKind, progress: bool) -> Iterator[Goal]:
    rng = random.Random(DRAW_SEED)
    # The draws of the prices come before those of the goals.
    prices = dict(reward_prices(products.products(), rng))
    # `disable=None`: only on a terminal.
    shown = tqdm(
        products.products(),
        desc=f"Goals ({kind})",
        total=products.num_products,
        unit=" products",
        disable=None if progress else True,
    )
    if kind == "human":
        return human_goals(shown, products.instructions, prices, rng)
    return synthetic_goals(shown, products.annotation, prices, rng)


def _encode(goal: Goal) -> str:
    options = goal.options if isinstance(goal.options, tuple) else dict(goal.options)
    return json.dumps([goal.instruction, goal.attributes, options, goal.price_upper])
