"""A shop's databases against the same files read into memory at once; built once, read by everybody, never half."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from steppo_gym.envs.webshop.built_in.generate import SPLITS, Files, generate_files, split_of, write_files
from steppo_gym.envs.webshop.data import find_files
from steppo_gym.envs.webshop.store import shop as shop_module
from steppo_gym.envs.webshop.store.catalogue import Product, products_of
from steppo_gym.envs.webshop.store.database import Database, build_once
from steppo_gym.envs.webshop.store.goals import human_goals, reward_prices, shuffled, synthetic_goals
from steppo_gym.envs.webshop.store.products import DRAW_SEED, KEPT_PRODUCTS
from steppo_gym.envs.webshop.store.shop import GOAL_KINDS, Shop, open_generated_shop, open_shop
from steppo_gym.errors import DataError

FILES = generate_files(60, seed=5)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files in the official layout."""
    write_files(tmp_path / "data", FILES)
    return tmp_path / "data"


@pytest.fixture(scope="module")
def shop() -> Shop:
    return open_generated_shop(60, 5)


def products_in_memory(files: Files) -> list[Product]:
    return list(products_of(files.items, {asin: row["attributes"] for asin, row in files.attributes.items()}.get))


def database_of(folder: Path, cache: Path) -> Path:
    """The database of the products of a folder."""
    open_shop(folder)
    (path,) = cache.glob("webshop/*/products.sqlite")
    return path


def test_products_are_those_of_the_files(shop):
    products = products_in_memory(FILES)
    assert shop.num_products == len(products) == 60
    assert [shop.product(product.asin) for product in products] == products
    # Twice: from the cache.
    assert [shop.product(product.asin) for product in products] == products
    assert all(shop.has(product.asin) for product in products)


def test_prices_are_drawn_in_the_order_of_the_file(shop):
    rng = random.Random(DRAW_SEED)
    for item in FILES.items:
        low, _, high = item["pricing"].replace("$", "").partition(" - ")
        expected = float(low) + (float(high) - float(low)) * rng.random() if high else float(low)
        assert shop.price(item["asin"]) == expected


@pytest.mark.parametrize("kind", GOAL_KINDS)
def test_goals_are_in_the_shuffled_order(shop, kind):
    products, rng = products_in_memory(FILES), random.Random(DRAW_SEED)
    prices = dict(reward_prices(products, rng))
    if kind == "human":
        goals = list(human_goals(products, FILES.human.get, prices, rng))
    else:
        goals = list(synthetic_goals(products, FILES.attributes.get, prices, rng))
    assert shop.num_goals(kind) == len(goals) >= 60
    assert [shop.goal(kind, number) for number in range(len(goals))] == [goals[made] for made in shuffled(len(goals))]


@pytest.mark.parametrize("kind", GOAL_KINDS)
def test_splits_share_out_all_goals_by_what_they_want(shop, kind):
    numbers = {split: list(shop.goal_numbers(kind, split)) for split in SPLITS}
    assert sorted(itertools.chain(*numbers.values())) == list(range(shop.num_goals(kind)))
    for split in SPLITS:
        assert numbers[split] == sorted(numbers[split])
        assert {split_of(goal.query, goal.attributes) for goal in (shop.goal(kind, n) for n in numbers[split])} == {
            split
        }


def test_splits_by_ranges_are_there_on_request(shop):
    num_goals = shop.num_goals("synthetic")
    assert shop.goal_numbers("synthetic", "test", "first-500") == range(min(500, num_goals))
    assert list(shop.goal_numbers("synthetic", "train", "first-500")) == list(range(500, num_goals))


def test_the_full_set_is_split_by_ranges(shop, monkeypatch):
    monkeypatch.setattr("steppo_gym.envs.webshop.store.goal_store.FULL_SET", 60)
    assert shop.goal_numbers("human", "test") == range(60)
    assert shop.goal_numbers("human", "train") == range(1500, 1500)


def test_what_is_not_there_is_said(shop):
    for asin in ("", "B000000000", "\ud800", "a\0b", "' OR 1=1 --", FILES.items[0]["asin"].lower()):
        assert not shop.has(asin)
        for look_up in (shop.product, shop.price):
            with pytest.raises(KeyError, match="Expected the id of a product, found"):
                look_up(asin)
    for number in (-1, shop.num_goals("human"), 2**70):
        with pytest.raises(IndexError, match="Expected the number of a goal below"):
            shop.goal("human", number)
    with pytest.raises(ValueError, match="split must be one of 'train', 'validation', 'test', got 'dev'"):
        shop.goal_numbers("human", "dev")


def test_the_built_in_shop_is_the_generated_one():
    assert open_shop(None) is open_generated_shop(1000, 0)
    assert open_shop(None).num_products == open_shop(None).num_goals("human") == 1000
    assert all(len(open_shop(None).goal_numbers("human", split)) >= 50 for split in SPLITS)
    with pytest.raises(ValueError, match="at least 1"):
        open_generated_shop(0, 0)


def test_files_and_generator_give_the_same_shop(cache, folder, shop):
    read = open_shop(folder)
    assert read is not shop
    for kind in GOAL_KINDS:
        numbers = range(shop.num_goals(kind))
        assert [read.goal(kind, number) for number in numbers] == [shop.goal(kind, number) for number in numbers]


def test_a_shop_is_open_once(cache, folder, monkeypatch):
    opened = open_shop(folder)
    monkeypatch.chdir(folder.parent)
    assert open_shop("data") is open_shop(str(folder)) is open_shop(folder / "items_shuffle.json") is opened


def test_changed_files_are_read_again(cache, folder):
    before = open_shop(folder)
    path = folder / "items_shuffle.json"
    items = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps([items[0] | {"name": "Anvil"}]), encoding="utf-8")
    after = open_shop(folder)
    assert (before.num_products, after.num_products) == (60, 1)
    assert after.product(items[0]["asin"]).title == "Anvil"
    assert before.product(items[0]["asin"]).title == items[0]["name"]


def test_a_cached_shop_is_not_built_again(cache, folder, monkeypatch):
    path = database_of(folder, cache)
    before = path.stat()
    shop_module._open_official.cache_clear()

    def fail(*args, **kwargs):
        raise AssertionError("built again")

    monkeypatch.setattr(shop_module, "write_products", fail)
    assert open_shop(folder).num_products == 60
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_reading_leaves_the_files_as_they_are(cache, folder):
    path = database_of(folder, cache)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        for item in FILES.items:
            open_shop(folder).product(item["asin"])
    finally:
        path.parent.chmod(0o755)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert sorted(file.name for file in path.parent.iterdir()) == ["products.sqlite", "products.sqlite.lock"]
    with pytest.raises(DataError, match="readonly"):
        Database(path).rows("DELETE FROM products")


def test_memory_is_bounded(cache):
    shop = open_generated_shop(KEPT_PRODUCTS + 20, 1)
    for item in generate_files(KEPT_PRODUCTS + 20, 1).items:
        shop.product(item["asin"])
    assert shop._products.product.cache_info().currsize == KEPT_PRODUCTS


def test_threads_read_at_the_same_time(shop):
    asins = [item["asin"] for item in FILES.items]
    barrier = threading.Barrier(8)

    def read(number: int) -> list[str]:
        barrier.wait()
        order = random.Random(number).sample(asins, len(asins))
        found = {asin: shop._products._product(asin).asin for asin in order}
        assert all(shop.has(asin) for asin in order)
        return [found[asin] for asin in asins]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, range(8))) == [asins] * 8


def test_a_forked_process_reads_on(shop):
    shop.product(FILES.items[0]["asin"])
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Later Pythons warn of threads, of which the tests before may have left some.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        status = 1
        try:
            # One that is not in memory, goals and a search.
            titles = [shop._products._product(item["asin"]).title for item in FILES.items]
            found = shop.search(["hoodie"], random.Random(0))
            os.write(writer, json.dumps([titles, shop.goal("synthetic", 3).instruction, found]).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = json.loads(pipe.read())
    assert os.waitpid(child, 0)[1] == 0
    titles = [item["name"] for item in FILES.items]
    assert told == [titles, shop.goal("synthetic", 3).instruction, shop.search(["hoodie"], random.Random(0))]


def test_several_processes_build_one_shop(cache, folder):
    code = (
        "import sys; from steppo_gym.envs.webshop.store.shop import open_shop; shop = open_shop(sys.argv[1]);"
        "print(shop.goal('human', 7).instruction, shop.num_goals('synthetic'), shop.price(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(folder), FILES.items[0]["asin"]]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate(timeout=120)[0] for process in started}
    assert [process.returncode for process in started] == [0, 0, 0]
    assert len(outputs) == 1
    assert len(list(cache.glob("webshop/*"))) == 1
    assert not list(cache.glob("webshop/*/*.unfinished"))
    shop = open_shop(folder)
    price = shop.price(FILES.items[0]["asin"])
    assert outputs == {f"{shop.goal('human', 7).instruction} {shop.num_goals('synthetic')} {price}\n"}


def test_one_thread_builds_and_the_others_wait(tmp_path):
    built = []

    def fill(connection):
        built.append(threading.get_ident())
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", ((i,) for i in range(10_000)))

    def build(_: int) -> list[tuple[int]]:
        build_once(tmp_path / "a" / "db", fill)
        return Database(tmp_path / "a" / "db").rows("SELECT count(*) FROM t")

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(build, range(6))) == [[(10_000,)]] * 6
    assert len(built) == 1


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(connection):
        connection.execute("CREATE TABLE t (x)")
        raise DataError("no more data")

    with pytest.raises(DataError, match="no more data"):
        build_once(tmp_path / "db", fail)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["db.lock"])


def test_what_a_killed_process_left_is_not_used(cache, folder):
    path = database_of(folder, cache)
    half = path.read_bytes()[:8192]
    path.unlink()
    path.with_name("products.sqlite.unfinished").write_bytes(half)
    shop_module._open_official.cache_clear()
    assert open_shop(folder).num_products == 60
    assert not path.with_name("products.sqlite.unfinished").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_a_damaged_database_is_explained(cache, folder, damage):
    path = database_of(folder, cache)
    path.write_bytes({"cut": path.read_bytes()[:20_000], "empty": b"", "other": b"no database" * 1000}[damage])
    shop_module._open_official.cache_clear()
    with pytest.raises(DataError, match=r"The shop in .*products\.sqlite is damaged or gone .* Delete the file"):
        for item in FILES.items:
            open_shop(folder).product(item["asin"])


def test_no_worker_is_named_in_the_cache(cache, folder):
    path = database_of(folder, cache)
    with closing(sqlite3.connect(path)) as connection:
        text = "\n".join(connection.iterdump())
    assert "instruction_options" in text
    assert "worker_id" not in text
    assert "assignment_id" not in text


def test_without_human_instructions_there_are_synthetic_goals(cache, folder):
    (folder / "items_human_ins.json").unlink()
    shop = open_shop(folder)
    for ask in (shop.num_goals, lambda kind: shop.goal_numbers(kind, "train"), lambda kind: shop.goal(kind, 0)):
        with pytest.raises(DataError, match=r"Expected items_human_ins\.json beside the products"):
            ask("human")
    assert shop.num_goals("synthetic") > 60


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("items_shuffle.json", [], "Expected products in .*, found none"),
        ("items_shuffle.json", [{"asin": "B1"}], "Product 0 has no key 'small_description'"),
        (
            "items_shuffle.json",
            [FILES.items[0], {**FILES.items[1], "query": 5}],
            r"shuffle\.json: Product 1 is none .* expected a text as 'query', found 5",
        ),
        (
            "items_shuffle.json",
            [{**FILES.items[0], "customization_options": {"a": [3]}}],
            "Product 0 is none of an official",
        ),
        ("items_shuffle.json", [{**FILES.items[0], "pricing": "$1.2.3"}], "could not convert string to float"),
        *(
            ("items_shuffle.json", [{**FILES.items[0], key: None}], f"items_shuffle.json: Product 0 is none .*{key!r}")
            for key in ("asin", "name", "full_description", "query", "product_category", "category")
        ),
        (
            "items_shuffle.json",
            [{**FILES.items[0], "small_description": [None]}],
            "texts in 'small_description', found",
        ),
        ("items_shuffle.json", [{**FILES.items[0], "small_description": None}], "Product 0 is none of an official"),
        ("items_ins_v2.json", {"B1": {"attributes": [None]}}, "Expected an object with a list of attributes for 'B1'"),
        ("items_ins_v2.json", {"B1": []}, "Expected an object with a list of attributes for 'B1'"),
        ("items_ins_v2.json", {"B1": {"attributes": None}}, "Expected an object with a list of attributes for 'B1'"),
        ("items_human_ins.json", {"B1": {"instruction": "a"}}, "Expected a list of objects for 'B1'"),
        ("items_human_ins.json", {"B1": ["a"]}, "Expected a list of objects for 'B1'"),
    ],
)
def test_files_of_another_kind_are_explained(cache, folder, name, change, message):
    (folder / name).write_text(json.dumps(change), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        open_shop(folder)
    assert not list(cache.glob("webshop/*/*.sqlite"))


def test_only_where_there_is_no_list_of_attributes_is_there_a_dummy(cache, folder):
    rows = dict(FILES.attributes)
    empty, keyless, absent = (item["asin"] for item in FILES.items[:3])
    rows[empty] = {**rows[empty], "attributes": []}
    rows[keyless] = {key: value for key, value in rows[keyless].items() if key != "attributes"}
    del rows[absent]
    (folder / "items_ins_v2.json").write_text(json.dumps(rows), encoding="utf-8")
    shop = open_shop(folder)
    assert shop.product(empty).attributes == ()
    assert shop.product(keyless).attributes == shop.product(absent).attributes == ("DUMMY_ATTR",)
    # No one finds a product by an attribute that it does not have.
    assert empty not in shop.search(["<a>", "DUMMY_ATTR"], random.Random(0))


@pytest.mark.parametrize("depth", [5_000, 200_000])
@pytest.mark.parametrize("name", ["items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"])
def test_deep_nesting_is_refused_at_once(cache, folder, name, depth):
    nested = "[" * depth + "]" * depth
    first = f'"B1": {nested}'
    (folder / name).write_text(f'[{{"asin": {nested}}}]' if name == "items_shuffle.json" else f"{{{first}}}")
    started = time.process_time()
    with pytest.raises(DataError, match=rf"Expected an official file in .*{name}, found lists or objects nested"):
        open_shop(folder)
    assert time.process_time() - started < 5


@pytest.mark.data
def test_the_official_products_are_read(shared_data):
    shop = open_shop(shared_data / "webshop")
    files = find_files(shared_data / "webshop")
    items = json.loads(files.items.read_text(encoding="utf-8"))
    rows = json.loads(files.attributes.read_text(encoding="utf-8"))
    products = list(products_of(items, {asin: row["attributes"] for asin, row in rows.items()}.get))
    assert shop.num_products == len(products) == 100
    assert [shop.product(product.asin) for product in products] == products
    for product in products:
        assert product.prices[0] <= shop.price(product.asin) <= product.prices[-1]
    assert shop.num_goals("synthetic") > 100
    assert sum(len(shop.goal_numbers("synthetic", split)) for split in SPLITS) == shop.num_goals("synthetic")
