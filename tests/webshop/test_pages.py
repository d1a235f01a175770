"""The pages against those that the official code wrote, and without data."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from steppo_gym.envs.webshop.pages import (
    as_rich_text,
    as_text,
    clickables,
    description_page,
    features_page,
    index_page,
    item_page,
    results_page,
    reviews_page,
)
from steppo_gym.envs.webshop.store.catalogue import Product, prices_of, products_of
from steppo_gym.errors import DataError

LAMP = Product("B000000001", "Lamp", "", (" Bright ",), ("DUMMY_ATTR",), {"color": ("red", "blue")}, (3.0,), "", "", "")


def test_an_item_page_marks_the_chosen_option_in_rich_text_alone():
    plain, chosen = item_page("Buy", LAMP, {}), item_page("Buy", LAMP, {"color": "red"})
    assert as_text(plain) == as_text(chosen)
    rich = as_rich_text(chosen)
    assert rich.startswith("You have clicked red.\nInstruction:\nBuy\n")
    assert "  [clicked button] red [clicked button_]\n  [button] blue [button_]\n" in rich


def test_empty_texts_leave_no_segment_and_blanks_what_the_official_parser_leaves():
    def named(title, option="color", value="red", bullet="Bright"):
        return dataclasses.replace(LAMP, title=title, options={option: (value,)}, bullet_points=(bullet,))

    for title in ("", "\n", " \n "):
        assert "color [SEP] red [SEP] Price: $3.0" in as_text(item_page("Buy", named(title), {}))
        assert "B000000001 [SEP] $3.0" in as_text(results_page("Buy", [named(title)], 1, 1))
    # One blank is a node.
    assert "red [SEP]  [SEP] Price" in as_text(item_page("Buy", named("  "), {}))
    assert "[SEP] < Prev [SEP] red [SEP]" in as_text(item_page("Buy", named("Lamp", option=""), {}))
    empty = item_page("Buy", named("Lamp", value=""), {})
    assert "color [SEP] Lamp" in as_text(empty) and "" not in clickables(empty)
    assert "[button]  [button_]" not in as_rich_text(empty)
    # Each feature has a blank before it, which stays.
    assert as_text(features_page("Buy", named("Lamp", bullet=""))).endswith("< Prev [SEP] ")
    assert as_text(features_page("Buy", named("Lamp", bullet="\n"))).endswith("< Prev")
    # A no-break space is a text.
    assert "\n\u00a0\nPrice: $3.0" in as_rich_text(item_page("Buy", named("\u00a0"), {}))


@pytest.mark.parametrize("pricing, prices", [("", (100.0,)), ("$1,036.99", (1036.99,)), ("$1 - $2 $3", (1.0, 2.0))])
def test_prices(pricing, prices):
    assert prices_of(pricing) == prices


def test_a_record_without_a_key_says_which():
    with pytest.raises(DataError, match="Product 0 has no key 'name'"):
        list(products_of([{"asin": "B1", "small_description": "", "customization_options": ""}], {}.get))


@pytest.mark.data
def test_every_official_page_is_reproduced(shared_data):
    folder = shared_data / "webshop"
    items = json.loads((folder / "items_shuffle_100.json").read_text(encoding="utf-8"))
    goals = json.loads((folder / "observation_goals.json").read_text(encoding="utf-8"))
    products = {product.asin: product for product in products_of(items, {}.get)}
    compared = 0
    for line in (folder / "observation_vectors.jsonl").read_text(encoding="utf-8").splitlines():
        step = json.loads(line)
        if step["action"] is None:
            visited: set[str] = set()
        if step["done"]:
            continue
        instruction = goals[step["session"]]["instruction_text"]
        url = step["url"].removeprefix("http://127.0.0.1:3000/")
        if url.startswith("search_results"):
            asins = [text.upper() for text in step["available_actions"]["clickables"] if text.upper() in products]
            page, total = map(int, re.findall(r"Page (\d+) \(Total results: (\d+)\)", step["text"])[0])
            nodes = results_page(instruction, [products[asin] for asin in asins], page, total, visited)
        elif url.startswith("item_page"):
            product = products[url.split("/")[2]]
            visited.add(product.asin)
            chosen = json.loads(url[url.rindex("/{") + 1 :])
            nodes = item_page(instruction, product, chosen)
        elif url.startswith("item_sub_page"):
            product = products[url.split("/")[2]]
            if step["action"] == "click[description]":
                nodes = description_page(instruction, product)
            elif step["action"] == "click[features]":
                nodes = features_page(instruction, product)
            else:
                nodes = reviews_page(instruction)
        else:
            nodes = index_page(instruction)
        where = (step["session"], step["step"])
        assert as_text(nodes) == step["text"], where
        assert as_rich_text(nodes) == step["text_rich"], where
        assert clickables(nodes) == step["available_actions"]["clickables"], where
        compared += 1
    assert compared > 0
