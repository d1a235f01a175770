"""Search: BM25 against its definition, the special words, and texts that mean harm."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import random
from collections import Counter

import hypothesis
import pytest
from hypothesis import strategies as st

from steppo_gym.envs.webshop.built_in.generate import generate_files
from steppo_gym.envs.webshop.store.catalogue import Product, products_of
from steppo_gym.envs.webshop.store.products import contents
from steppo_gym.envs.webshop.store.search import KEPT_SEARCHES, NUM_RESULTS
from steppo_gym.envs.webshop.store.shop import Shop, open_generated_shop, open_shop
from steppo_gym.retrieval.analysis import terms

FILES = generate_files(300, seed=2)
PRODUCTS = list(products_of(FILES.items, {asin: row["attributes"] for asin, row in FILES.attributes.items()}.get))
LAMP = Product(
    "B000000001",
    "Oak Lamp",
    "A Lamp.",
    ("Made of OAK", "dims"),
    ("solid wood",),
    {"color": ("red", "blue"), "size": ("large",)},
    (9.5,),
    "lamps",
    "Home",
    "garden",
)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return open_generated_shop(300, 2)


def find(shop: Shop, text: str, seed: int = 0) -> list[str]:
    return shop.search(text.split(" "), random.Random(seed))


def bm25_slow(query: str, documents: list[str]) -> list[float]:
    """Scores by the definition of BM25 with Lucene's parameters."""
    words = [terms(document) for document in documents]
    average = sum(map(len, words)) / len(words)
    scores = []
    for document in words:
        score = 0.0
        for term in terms(query):
            having = sum(term in other for other in words)
            frequency = document.count(term)
            rarity = math.log(1 + (len(words) - having + 0.5) / (having + 0.5))
            score += rarity * frequency / (frequency + 0.9 * (1 - 0.4 + 0.4 * len(document) / average))
        scores.append(score)
    return scores


def test_what_is_searched_of_a_product():
    assert contents(LAMP) == "oak lamp a lamp. made of oak color: red, blue, and size: large"
    assert contents(dataclasses.replace(LAMP, options={}, description="")) == "oak lamp  made of oak "
    assert contents(dataclasses.replace(LAMP, options={}, bullet_points=())) == "oak lamp a lamp. "


@pytest.mark.parametrize(
    "query",
    ["slim fit hoodie", "Hoodies with zip pockets!", "red", "organic cotton, gluten free (red) red", "every day"],
)
def test_the_order_is_that_of_bm25(shop, query):
    scores = bm25_slow(query, [contents(product) for product in PRODUCTS])
    found = find(shop, query)
    place = {product.asin: number for number, product in enumerate(PRODUCTS)}
    positions = [place[asin] for asin in found]
    assert len(found) == min(NUM_RESULTS, sum(score > 0 for score in scores))
    # Scores are added up in single precision; what ties exactly is in the order of the file.
    for one, other in itertools.pairwise(positions):
        assert scores[one] > scores[other] - 1e-5
        if contents(PRODUCTS[one]) == contents(PRODUCTS[other]):
            assert one < other
    left_out = [score for number, score in enumerate(scores) if number not in positions]
    assert max(left_out, default=0) <= scores[positions[-1]] + 1e-5


def test_near_duplicates_tie(shop):
    # The test above needs some.
    texts = Counter(map(contents, PRODUCTS))
    assert sum(number > 1 for number in texts.values()) > 20


def test_attributes_and_later_features_are_not_searched(shop):
    (item, *_) = FILES.items
    assert item["small_description"][-1].startswith(FILES.attributes[item["asin"]]["attributes"][-1].capitalize())
    hidden = FILES.attributes[item["asin"]]["attributes"][-1]
    assert hidden not in contents(PRODUCTS[0])
    assert PRODUCTS[0].asin not in find(shop, hidden)


@pytest.mark.parametrize("query", ["", " ", "the", "of the and", "!?", "zzzzz", "的", "\ud800", "a\0", "<x>"])
def test_nothing_is_found_without_a_known_word(shop, query):
    assert find(shop, query) == []


def test_no_keyword_at_all_finds_nothing(shop):
    assert shop.search([], random.Random(0)) == []


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("<a> slim fit", lambda product: "slim fit" in product.attributes),
        ("<a>  slim fit ", lambda product: "slim fit" in product.attributes),
        ("<a> slim", lambda product: False),
        ("<a>", lambda product: False),
        ("<c> fashion", lambda product: product.category == "fashion"),
        ("<c> fashion and more", lambda product: product.category == "fashion"),
        ("<c> shoes", lambda product: False),
        ("<c>", lambda product: False),
        ("<q> polo shirt", lambda product: product.query == "polo shirt"),
        ("<q> polo", lambda product: False),
        ("<q>", lambda product: False),
        ("<a> \ud800", lambda product: False),
        ("<q> ' OR 1=1 --", lambda product: False),
    ],
)
def test_special_words_pick_products_in_the_order_of_the_file(shop, query, wanted):
    assert find(shop, query) == [product.asin for product in PRODUCTS if wanted(product)][:NUM_RESULTS]


def test_a_special_word_is_one_in_front_only(shop):
    assert find(shop, "hoodie <a> slim fit") == find(shop, "hoodie a slim fit") != find(shop, "<a> slim fit")


def test_products_of_a_whole_category_are_cut_off(shop):
    assert sum(product.category == "fashion" for product in PRODUCTS) > NUM_RESULTS
    assert len(find(shop, "<c> fashion")) == NUM_RESULTS


def test_random_products_are_those_that_the_generator_draws(shop):
    asins = [product.asin for product in PRODUCTS]
    for seed in range(5):
        assert find(shop, "<r> hoodie", seed) == random.Random(seed).sample(asins, NUM_RESULTS)
    rng = random.Random(0)
    assert shop.search(["<r>"], rng) != shop.search(["<r>"], rng)


def test_only_random_products_draw(shop):
    rng = random.Random(0)
    for text in ("slim fit hoodie", "<a> slim fit", "<c> fashion", "<q> hoodie", ""):
        shop.search(text.split(" "), rng)
    assert rng.getstate() == random.Random(0).getstate()


def test_a_small_shop_gives_all_products_at_random():
    shop = open_generated_shop(7, 0)
    assert sorted(find(shop, "<r>")) == sorted(item["asin"] for item in generate_files(7, 0).items)


@hypothesis.given(st.lists(st.text() | st.sampled_from(["<r>", "<a>", "<c>", "<q>", "hoodie", "fashion", "slim fit"])))
def test_any_words_may_be_searched_for(keywords):
    shop = open_generated_shop(300, 2)
    found = shop.search(keywords, random.Random(0))
    assert len(found) <= NUM_RESULTS
    assert len(set(found)) == len(found)
    assert all(shop.has(asin) for asin in found)
    assert shop.search(keywords, random.Random(0)) == found


def test_endless_texts_are_cut(shop):
    assert find(shop, "hoodie " + "x" * 2_000_000) == find(shop, "hoodie")


def test_the_results_kept_are_not_handed_out(shop):
    find(shop, "hoodie").clear()
    assert find(shop, "hoodie")
    for number in range(KEPT_SEARCHES + 10):
        find(shop, f"hoodie {number}")
    assert shop._search._ranked.cache_info().currsize == KEPT_SEARCHES


@pytest.mark.data
def test_official_products_are_found(shared_data):
    shop = open_shop(shared_data / "webshop")
    assert find(shop, "vhomes lights reclaimed")[0] == "B06Y3VLDFB"
    items = json.loads((shared_data / "webshop" / "items_shuffle_100.json").read_text(encoding="utf-8"))
    first = [item["asin"] in find(shop, item["name"].lower())[:1] for item in items]
    assert sum(first) >= 98
