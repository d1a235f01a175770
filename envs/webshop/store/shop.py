"""A shop to buy in: its products, prices, goals and search, shared by all environments of a process.

    shop = open_shop(None)                             # the built-in shop
    shop = open_shop("~/webshop")                      # a folder with the official files
    shop.search(["slim", "fit", "hoodie"], rng)        # asins, the best first
    shop.goal("human", shop.goal_numbers("human", "train")[0])

A shop lies in the cache (see `steppo_gym.storage.cache`): its products in one database, its goals in one for each kind,
and the index of its search. They are built when they are first needed, and named by the files they are made of and the
code that makes them, so a change of either builds new ones. All processes read the same files.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import tempfile
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from steppo_gym.envs.webshop.built_in.generate import SPLITS, Split, generate_files, write_files
from steppo_gym.envs.webshop.data import find_files
from steppo_gym.envs.webshop.store.catalogue import Goal, Product
from steppo_gym.envs.webshop.store.database import build_once
from steppo_gym.envs.webshop.store.goal_store import GOAL_KINDS, GoalKind, GoalStore, write_goals
from steppo_gym.envs.webshop.store.goals import SplitRule
from steppo_gym.envs.webshop.store.products import ProductStore, write_products
from steppo_gym.envs.webshop.store.search import open_search
from steppo_gym.errors import DataError
from steppo_gym.keywords import check_split
from steppo_gym.storage.cache import cache_dir
from steppo_gym.storage.file_stamps import FileStamp, file_stamps

__all__ = ["GOAL_KINDS", "GoalKind", "Shop", "open_generated_shop", "open_shop"]

NUM_PRODUCTS = 1000
"""Products of the built-in shop."""

_MODULES = (
    "../data.py",
    "../built_in/generate.py",
    "../built_in/words.py",
    "catalogue.py",
    "goal_store.py",
    "goals.py",
    "products.py",
)
"""What the content of a shop depends on."""


class Shop:
    """A read-only shop; safe in several threads, and in processes forked from one that has it open.

    Args:
        folder: where its databases lie; that of the products is there.
        stamps: of the official files it was made of, none of a generated one.

    Raises:
        DataError: a database or the index is damaged; from all that asks for human goals, there is no file of them.
    """

    def __init__(self, folder: Path, stamps: tuple[FileStamp, ...] = ()) -> None:
        self._folder, self.stamps = folder, stamps
        self._products = ProductStore(folder / "products.sqlite")
        self._search = open_search(self._products)
        self._goals: dict[GoalKind, GoalStore] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, and another process, opens the same folder."""
        return Shop, (self._folder, self.stamps)

    @property
    def num_products(self) -> int:
        """How many products there are."""
        return self._products.num_products

    def asins(self) -> list[str]:
        """Ids of all products, in the order of their file; a list of its own."""
        return [self._products.asin_at(position) for position in range(self.num_products)]

    def product(self, asin: str) -> Product:
        """Look up a product, or raise a KeyError."""
        return self._products.product(asin)

    def has(self, asin: str) -> bool:
        """Whether there is a product of this id; any text may be asked for."""
        return self._products.has(asin)

    def price(self, asin: str) -> float:
        """What the reward takes as the price of a product, in dollars; a KeyError if there is no such product."""
        return self._products.price(asin)

    def search(self, keywords: Sequence[str], rng: random.Random) -> list[str]:
        """See `store.search.ProductSearch`."""
        return self._search(keywords, rng)

    def num_goals(self, kind: GoalKind) -> int:
        """How many goals of a kind there are."""
        return self._goals_of(kind).num_goals

    def goal(self, kind: GoalKind, number: int) -> Goal:
        """A goal by its number in the shuffled order, from 0; an IndexError if there is no such number."""
        return self._goals_of(kind).goal(number)

    def goal_numbers(self, kind: GoalKind, split: Split, rule: SplitRule | None = None) -> Sequence[int]:
        """Numbers of the goals of a split, ascending, see `GoalStore.numbers`.

        Raises:
            UnknownTaskError: no such split.
            ValueError: no such rule.
        """
        check_split(split, SPLITS)
        return self._goals_of(kind).numbers(split, rule)

    def _goals_of(self, kind: GoalKind) -> GoalStore:
        if kind not in self._goals:
            if kind == "human" and not self._products.has_human_instructions:
                raise DataError(
                    "Expected items_human_ins.json beside the products, found none. `steppo-gym download webshop` "
                    'fetches it; goals="synthetic" needs none.'
                )
            path = self._folder / f"{kind}-goals.sqlite"
            build_once(path, partial(write_goals, products=self._products, kind=kind, progress=True))
            self._goals[kind] = GoalStore(path, self._products)
        return self._goals[kind]


def open_shop(data: str | Path | None) -> Shop:
    """The shop of official files, or the built-in one; open once in a process.

    Args:
        data: None, or a folder or file, see `data.find_files`.

    Raises:
        DataError: files are missing or damaged.
    """
    if data is None:
        return open_generated_shop(NUM_PRODUCTS, 0)
    return _open_official(file_stamps(find_files(data).paths), cache_dir())


def open_generated_shop(num_products: int, seed: int) -> Shop:
    """A generated shop of any size, read through the same files as official ones; open once in a process.

    Raises:
        ValueError: fewer than one product.
    """
    return _open_generated(num_products, seed, cache_dir())


@lru_cache(maxsize=4)
def _open_official(stamps: tuple[FileStamp, ...], cache: Path) -> Shop:
    folder = _folder(cache, repr(stamps))
    files = find_files(stamps[0][0])
    build_once(folder / "products.sqlite", partial(write_products, files=files, progress=True))
    return Shop(folder, stamps)


@lru_cache(maxsize=4)
def _open_generated(num_products: int, seed: int, cache: Path) -> Shop:
    folder = _folder(cache, f"generated {num_products} {seed}")
    build_once(folder / "products.sqlite", partial(_write_generated, num_products=num_products, seed=seed))
    return Shop(folder)


def _write_generated(connection: sqlite3.Connection, *, num_products: int, seed: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        write_files(temporary, generate_files(num_products, seed))
        write_products(connection, find_files(temporary), progress=False)


def _folder(cache: Path, source: str) -> Path:
    """Where the shop of a source lies."""
    code = b"".join((Path(__file__).parent / name).read_bytes() for name in _MODULES)
    return cache / "webshop" / hashlib.sha256(code + source.encode(errors="surrogateescape")).hexdigest()[:32]
