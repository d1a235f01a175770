"""Searches and clicks: official vectors, and random walks beside a server that keeps the official books."""

from __future__ import annotations

import dataclasses
import json
import random
import re

import pytest

from steppo_gym.actions import Invalid
from steppo_gym.envs.webshop.actions import Click, Search, parse_command
from steppo_gym.envs.webshop.pages import as_rich_text, as_text, clickables
from steppo_gym.envs.webshop.session import PAGE_SIZE, Session, click, impossible, option_of, page, search
from steppo_gym.envs.webshop.store.catalogue import Product, products_of
from steppo_gym.snapshot import restored

BLANK = Product("", "", "", (), ("DUMMY_ATTR",), {}, (1.0,), "", "", "")
OPTIONS = {
    "color": ("red", "blue", "medium"),
    "size": ("small", "medium"),
    # Labels of buttons, which are clicked instead, and one that no bracket can say.
    "style": ("reviews", "buy now", "next >", "[wide"),
}


class Shelf:
    """Products in a fixed order; finds all of them, or those whose title has a word of the search."""

    def __init__(self, products):
        self.products = {product.asin: product for product in products}

    def has(self, asin):
        return asin in self.products

    def product(self, asin):
        return self.products[asin]

    def search(self, keywords, rng):
        if keywords[0] == "<r>":
            return rng.sample(sorted(self.products), 5)
        return [asin for asin, product in self.products.items() if set(keywords) & {"all", *product.title.split()}]


def make_shelf(number=23):
    return Shelf(
        dataclasses.replace(BLANK, asin=f"B{index:09d}", title=f"lamp {index % 3}", options=OPTIONS)
        for index in range(number)
    )


def act(session, shop, *commands, seed=0):
    for command in commands:
        match parse_command(command):
            case Search(keywords):
                session = search(session, keywords, shop, random.Random(seed))
            case Click(label):
                session = click(session, label, shop, random.Random(seed)) or session
    return session


def item(number):
    return f"click[b{number:09d}]"


class Server:
    """The books of the official server, written from its description: one dictionary, changed in place."""

    def __init__(self, shop):
        self.shop = shop
        self.reset()

    def reset(self):
        self.kind = "index"
        self.books = {"keywords": "", "page": 0, "asin": None, "asins": set(), "options": {}}

    def labels(self):
        if self.kind == "index":
            return ["search"]
        if self.kind == "results":
            back = ["back to search", *(["< prev"] if self.books["page"] > 1 else []), "next >"]
            return back + [asin.lower() for asin in self.listed()]
        if self.kind in ("description", "features", "reviews"):
            return ["back to search", "< prev"]
        buttons = ["back to search", "< prev", "description", "features", "reviews", "buy now"]
        return list(dict.fromkeys([*buttons, *(value for values in OPTIONS.values() for value in values)]))

    def listed(self):
        found = self.shop.search(self.books["keywords"].split(" "), None)
        return found[(self.books["page"] - 1) * 10 : self.books["page"] * 10]

    def receive(self, action):
        if isinstance(action, Search):
            self.kind = "results"
            self.books |= {"keywords": action.keywords, "page": 1, "asin": None, "options": {}}
            return True
        label = action.label
        if label not in self.labels() or label == "search":
            return False
        if label == "buy now":
            self.kind = "done"
        elif label == "back to search":
            self.reset()
        elif label in ("next >", "< prev") and self.kind == "results":
            self.books["page"] += 1 if label == "next >" else -1
        elif label == "< prev" and self.kind == "item":
            self.kind = "results"
            self.books |= {"asin": None, "options": {}}
        elif label == "< prev":
            self.kind = "item"
        elif label in ("description", "features", "reviews"):
            self.kind = label
        elif self.kind == "results":
            self.kind = "item"
            self.books["asin"] = label.upper()
            self.books["asins"].add(label.upper())
        else:
            names = {value: name for name, values in OPTIONS.items() for value in values}
            self.books["options"][names[label]] = label
        return True


def test_random_walks_agree_with_a_server_that_keeps_the_official_books():
    shop, rng = make_shelf(), random.Random(0)
    server, session, reached = Server(shop), Session(), set()
    for _ in range(5000):
        labels = [*server.labels(), "search", "b000000001", "medium", "buy now", "B000000002", "< prev", "nothing"]
        if rng.random() < 0.15 or (server.kind == "index" and rng.random() < 0.8):
            action = Search(rng.choice(("all", "lamp", "0", "1 2", "nothing", " ")))
            after = search(session, action.keywords, shop, rng)
        else:
            action = Click(rng.choice(labels))
            after = click(session, action.label, shop, rng)
        assert server.receive(action) == (after is not None), action
        session = after or session
        books = server.books
        assert session.page == server.kind, action
        if session.page != "index":
            assert session.number == books["page"]
            assert session.keywords == books["keywords"]
        assert (session.asin or None, dict(session.chosen)) == (books["asin"], books["options"])
        assert set(session.visited) == books["asins"]
        reached.add(session.page)
        assert impossible(session, shop) == ""
        if session.page == "done":
            server.reset()
            session = Session()
        else:
            assert clickables(page(session, "", shop)) == server.labels()
            assert restored(json.loads(json.dumps(dataclasses.asdict(session))), Session) == session
    assert reached == {"index", "results", "item", "description", "features", "reviews", "done"}


def test_pages_are_counted_past_the_end():
    shop = make_shelf()
    session = act(Session(), shop, "search[all]", *["click[next >]"] * 4)
    assert "Page 5 (Total results: 23)" in as_text(page(session, "", shop))
    assert session.listed() == ()
    assert act(session, shop, *["click[< prev]"] * 2).listed() == tuple(shop.products)[20:]


def test_the_way_back_from_a_product_leads_to_its_page_of_results():
    shop = make_shelf()
    session = act(Session(), shop, "search[all]", "click[next >]", item(12), "click[red]", "click[< prev]")
    assert (session.page, session.number, session.chosen, session.asin) == ("results", 2, (), "")
    assert session.visited == ("B000000012",)
    assert act(session, shop, item(12)).chosen == ()


def test_options_are_kept_over_pages_below_and_lost_in_a_search():
    shop = make_shelf()
    session = act(Session(), shop, "search[all]", item(3), "click[red]", "click[features]", "click[< prev]")
    assert (session.page, dict(session.chosen)) == ("item", {"color": "red"})
    assert dict(act(session, shop, "click[small]", "click[blue]").chosen) == {"color": "blue", "size": "small"}
    again = act(session, shop, "click[reviews]", "search[lamp]")
    assert (again.page, again.chosen, again.visited) == ("results", (), ("B000000003",))
    assert act(session, shop, "click[back to search]") == Session()


def test_of_options_that_share_a_value_the_last_is_set():
    shop = make_shelf()
    session = act(Session(), shop, "search[all]", item(0), "click[medium]")
    assert dict(session.chosen) == {"size": "medium"}
    product = shop.product("B000000000")
    assert [option_of(product, label) for label in ("red", "medium", "reviews", "buy now", "x")] == [
        *("color", "size"),
        *("", "", ""),
    ]


@pytest.mark.parametrize("label", ["B000000001", "b000000015", "next>", "buy now", "red", "", "search", "features"])
@pytest.mark.parametrize("commands", [[], ["search[all]"], ["search[all]", item(2), "click[features]"]])
def test_what_is_not_on_the_page_cannot_be_clicked(label, commands):
    shop = make_shelf()
    assert click(act(Session(), shop, *commands), label, shop, random.Random(0)) is None


def test_products_are_opened_from_the_page_that_lists_them():
    shop = make_shelf()
    assert act(Session(), shop, "search[all]", item(PAGE_SIZE)).page == "results"
    assert act(Session(), shop, "search[all]", item(PAGE_SIZE - 1)).asin == "B000000009"


def test_a_random_search_draws_again_on_the_way_back():
    shop = make_shelf()
    session = act(Session(), shop, "search[<r>]")
    assert act(session, shop, "click[next >]", seed=1).results != session.results
    opened = dataclasses.replace(session, page="item", asin=session.results[0])
    assert act(opened, shop, "click[< prev]", seed=1).results != session.results
    assert act(opened, shop, "click[< prev]", seed=0).results == session.results


def test_the_hidden_state_is_what_follows_depends_on():
    shop = make_shelf()

    def state(*commands):
        return json.dumps(act(Session(), shop, *commands).hidden_state())

    assert state("search[all]") == state("search[lamp all]") == state("search[1]", "search[all]")
    first = ["search[all]", item(3)]
    assert state(*first, "click[red]", "click[small]") == state(*first, "click[small]", "click[blue]", "click[red]")
    other = [
        [],
        ["search[all]"],
        ["search[1]"],
        ["search[all]", "click[next >]"],
        first,
        [*first, "click[red]"],
        [*first, "click[features]"],
        [*first, "click[reviews]"],
        [*first, "click[< prev]"],
        [*first, "click[buy now]"],
        ["search[all]", item(4)],
        ["search[<r>]"],
    ]
    assert len({state(*commands) for commands in other}) == len(other)


@pytest.mark.data
def test_every_official_session_is_reproduced(shared_data):
    folder = shared_data / "webshop"
    items = json.loads((folder / "items_shuffle_100.json").read_text(encoding="utf-8"))
    goals = json.loads((folder / "observation_goals.json").read_text(encoding="utf-8"))
    steps = [
        json.loads(line) for line in (folder / "observation_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    shop = Shelf(products_of(items, {}.get))
    session = Session()
    for step in steps:
        action = parse_command(step["action"] or "")
        # The ranking of the vectors is a stand-in: their products are put in the place of what is found.
        listed = [label.upper() for label in step["available_actions"]["clickables"] if label.upper() in shop.products]
        if step["action"] is None:
            session = Session()
        elif isinstance(action, Search):
            (total,) = map(int, re.findall(r"Total results: (\d+)", step["text"]))
            found = [*listed, *(asin for asin in shop.products if asin not in listed)][:total]
            shop.search = lambda keywords, rng, found=found: found
            session = search(session, action.keywords, shop, random.Random(0))
        elif not isinstance(action, Invalid):
            session = click(session, action.label, shop, random.Random(0)) or session
        nodes = page(session, goals[step["session"]]["instruction_text"], shop)
        where = (step["session"], step["step"])
        # Our last page stops where the official one goes on with the reward.
        score = ["Reward", "Your score (min 0.0, max 1.0)", str(step["reward"]), "Reward Details ", "None"]
        ending = score if step["done"] else []
        assert " [SEP] ".join([as_text(nodes), *(text.strip() for text in ending)]) == step["text"], where
        assert as_rich_text(nodes) + "".join(f"{text}\n" for text in ending) == step["text_rich"], where
        assert clickables(nodes) == step["available_actions"]["clickables"], where
        assert (session.page == "index") == step["available_actions"]["has_search_bar"], where
        assert (session.page == "done") == step["done"], where
    assert {step["session"] for step in steps} >= {0, 1, 2, 3}


ON_ITEM = Session("item", "all", ("A",), number=1, asin="A", chosen=(("color", "red"),), visited=("A",))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"asin": "Z"}, "a product that was listed and opened, found 'Z'"),
        ({"results": ("A", "")}, "products of this shop, found ''"),
        ({"visited": ("Z",)}, "products of this shop, found 'Z'"),
        ({"page_size": 0}, "pages from 1 of at least 1 product, found 1 and 0"),
        ({"number": 0}, "pages from 1 of at least 1 product, found 0 and 10"),
        ({"page": "index"}, "pages from 1"),
        ({"asin": "", "chosen": ()}, "a product where one is shown, found '' on the page 'item'"),
        ({"page": "results"}, "a product where one is shown, found 'A' on the page 'results'"),
        ({"chosen": (("color", "green"),)}, "options of the product"),
        ({"chosen": (("colour", "red"),)}, "options of the product"),
        ({"chosen": (("color", "red"), ("color", "blue"))}, "options of the product"),
        ({"results": ("A", "A")}, "what this shop finds for 'all', found 2 others"),
        ({"keywords": "nothing"}, "what this shop finds for 'nothing', found 1 others"),
        ({"keywords": "<r> lamp", "results": ("Z",)}, "products of this shop, found 'Z'"),
        ({"keywords": "<r> lamp", "results": ("A",)}, ""),
        ({"number": 2}, "a product that was listed and opened, found 'A'"),
        ({"visited": ()}, "a product that was listed and opened, found 'A'"),
        ({"visited": ("A", "A")}, "each once"),
        ({"page": "results", "asin": ""}, "options of the product"),
        ({"page": "index", "number": 0, "asin": "", "chosen": ()}, "what this shop finds for 'all'"),
        ({"page": "index", "number": 0, "asin": "", "chosen": (), "results": ()}, "opened since the search bar"),
    ],
)
def test_a_session_that_cannot_be_is_told_from_one_that_can(change, reason):
    shelf = Shelf([dataclasses.replace(BLANK, asin="A", options=OPTIONS)])
    found = impossible(dataclasses.replace(ON_ITEM, **change), shelf)
    assert reason in found and bool(reason) == bool(found)
