"""The reward against recorded official ones, and its oddities by hand."""

from __future__ import annotations

import dataclasses
import json
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from webshop_official_reward import COLOR_SET, official_reward

from steppo_gym.envs.webshop.nouns import WordTagger
from steppo_gym.envs.webshop.reward import (
    COLORS,
    PROTOCOLS,
    is_success,
    normalize_color,
    purchase_reward,
    score,
)
from steppo_gym.envs.webshop.store.catalogue import Goal, Product
from steppo_gym.envs.webshop.store.shop import open_shop

PATH = "Home \u203a Lighting \u203a Lamps"
LAMP = Product(
    asin="B000000001",
    title="Brass Desk Lamp",
    description="Shines For Years.",
    bullet_points=("Easy to clean", "Comes with a BULB"),
    attributes=("energy efficient", "living room"),
    options={"color": ("red", "light blue"), "size": ("small", "large")},
    prices=(20.0,),
    query="desk lamps",
    product_category=PATH,
    category="garden",
)
WANTED = Goal(
    asin="B000000001",
    instruction="find a lamp",
    attributes=("energy efficient",),
    options=("red", "small"),
    price_upper=30.0,
    query="desk lamps",
    product_category=PATH,
    title="Brass Desk Lamp",
)
CHOSEN = {"color": "red", "size": "small"}


@dataclasses.dataclass(frozen=True)
class Recorded:
    """Nouns as they were recorded."""

    by_name: dict[str, list[str]]
    name: str = "recorded"

    def nouns(self, text):
        return self.by_name[text]


def bought(goal=WANTED, product=LAMP, chosen=CHOSEN, price=20.0, tagger=None):
    return score(goal, product=product, chosen=chosen, price=price, tagger=tagger or WordTagger())


def wanting(**changes):
    return dataclasses.replace(WANTED, **changes)


def with_options(options, chosen):
    """How many of the wanted options are found."""
    part = bought(wanting(options=options), chosen=chosen).r_option
    return round(part * len(options))


def has_attribute(attribute, **product):
    return bought(wanting(attributes=(attribute,)), dataclasses.replace(LAMP, **product)).r_att == 1


def test_the_wanted_product_earns_everything():
    found = bought()
    assert found.total == 1.0
    assert found.reward_info() == {
        "r_type": 1.0,
        "r_att": 1.0,
        "w_att": 0.25,
        "query_match": True,
        "category_match": True,
        "title_score": 1.0,
        "r_option": 1.0,
        "w_option": 0.5,
        "r_price": True,
        "w_price": 0.25,
    }


def test_every_part_counts_by_its_number():
    goal = wanting(attributes=("energy efficient", "waterproof", "foldable"), options=("red", "large"))
    found = bought(goal, chosen={"size": "large"}, price=31.0)
    assert found.total == pytest.approx((1 + 1 + 0) / (3 + 2 + 1))
    assert (found.r_att, found.r_option, found.r_price) == (1 / 3, 1 / 2, False)
    assert (found.w_att, found.w_option, found.w_price) == (3 / 6, 2 / 6, 1 / 6)


def test_without_wanted_options_their_parts_do_not_apply():
    found = bought(wanting(options=()))
    assert found.total == 1.0
    assert (found.r_option, found.w_option) == (None, None)
    assert not {"r_option", "w_option"} & set(found.reward_info())


def test_a_price_at_the_bound_counts():
    assert bought(price=30.0).r_price is True
    assert bought(price=30.01).r_price is False


# Nouns of the wanted and the bought name, same query, same category, title score and factor.
TYPES = [
    ("lamp desk", "lamp desk", True, True, 1.0, 1.0),
    ("lamp desk", "lamp desk", False, False, 1.0, 1.0),
    # At .2 the names say nothing: the query or the category has to.
    ("a b c d lamp", "lamp", False, False, 0.2, 0.5),
    ("a b c d lamp", "lamp", True, False, 0.2, 1.0),
    ("a b c d lamp", "lamp", False, True, 0.2, 1.0),
    ("a b c d e f g h i lamp", "lamp", False, True, 0.1, 1.0),
    ("a b c d e f g h i lamp", "lamp", False, False, 0.1, 0.5),
    # Below .1 nothing else helps.
    ("a b c d e f g h i j lamp", "lamp", True, True, 1 / 11, 0.1),
    ("lamp", "rug", True, True, 0.0, 0.0),
    ("lamp", "", True, True, 0.0, 0.0),
    # No wanted nouns: neither for nor against.
    ("", "lamp", False, False, 0.2, 0.5),
    ("", "", True, False, 0.2, 1.0),
    # Repeated nouns count in what is wanted and not in what is found.
    ("lamp lamp lamp lamp", "lamp lamp", True, True, 0.25, 1.0),
    ("lamp lamp lamp lamp lamp lamp", "lamp", False, False, 1 / 6, 0.5),
]


@pytest.mark.parametrize("wanted, found, same_query, same_category, title_score, factor", TYPES)
def test_the_kind_of_product(wanted, found, same_query, same_category, title_score, factor):
    product = dataclasses.replace(
        LAMP,
        title="bought",
        query="desk lamps" if same_query else "rugs",
        product_category=PATH if same_category else "Home \u203a Rugs",
    )
    tagger = Recorded({"bought": found.split(), WANTED.title: wanted.split()})
    result = bought(product=product, tagger=tagger)
    assert (result.query_match, result.category_match) == (same_query, same_category)
    assert result.title_score == pytest.approx(title_score)
    assert result.r_type == factor
    assert result.total == factor


@pytest.mark.parametrize(
    "path, matches",
    [
        ("Lamps \u203a  Home", True),  # in any order, blanks aside
        ("Home \u203a Home \u203a Home", False),  # each part once
        ("Home \u203a Rugs", False),
        ("home \u203a lamps", False),
        ("", False),
    ],
)
def test_two_shared_parts_make_a_category(path, matches):
    assert bought(product=dataclasses.replace(LAMP, product_category=path)).category_match is matches


@pytest.mark.parametrize(
    "attribute, found",
    [
        ("efficient energy", True),  # the order of words does not matter
        ("energy efficiency", True),  # similar enough
        ("room", True),  # part of an attribute's words
        ("desk lamp", True),  # in the title, whatever its capitals
        ("Desk Lamp", False),  # officially its own capitals stay
        ("with a bulb", True),
        ("clean comes", True),  # features are read as one text
        ("for years.", True),
        ("water resistant", False),
        ("!", False),
    ],
)
def test_attributes(attribute, found):
    assert has_attribute(attribute) is found


@pytest.mark.parametrize(
    "wanted, chosen, found",
    [
        (["red"], ["red"], 1),
        (["red"], ["blue"], 0),
        (["red", "small"], ["small"], 1),
        (["red"], ["red", "red wine"], 1),  # each wanted one once
        (["red", "brick red"], ["red"], 2),  # one choice can meet several
        (["red", "dark red"], ["red"], 1),  # dark comes first in the list
        (["light blue"], ["blue"], 1),  # and blue before light
        (["light pink"], ["light purple"], 1),  # both are light
        (["natural oak"], ["natural"], 1),
        (["navy blue"], ["blue"], 1),  # blue comes first in the list
        (["titanium"], ["tan"], 1),
        (["cured oak"], ["red"], 1),
        (["pack of 12"], ["12 pack of"], 1),
        (["cool powder snow"], ["powder snow"], 1),
        (["10"], ["10.5"], 1),  # its words contain 10
        (["10"], ["105"], 0),
        (["x-large"], ["large"], 1),
        (["\u9ed1\u8272"], ["\u9ed1\u8272"], 1),
        (["\u00e9\u00fc"], ["\u00e9\u00fc"], 0),  # nothing is left of either
        (["caf\u00e9"], ["caf"], 1),
        (["RED"], ["red"], 1),  # no color, but compared without capitals
        ([""], [""], 0),
        (["red"], [], 0),
    ],
)
def test_options_of_a_human_goal(wanted, chosen, found):
    assert with_options(tuple(wanted), dict(enumerate(chosen))) == found


@pytest.mark.parametrize(
    "wanted, chosen, found",
    [
        ({"color": "royal blue"}, {"color": "royal blue"}, 1),  # blue is in "('color', 'royal blue')"
        ({"color": "green2"}, {"color": "green2"}, 0),  # green is not: green2 is another word
        ({"color": "blue"}, {"color": "royal blue"}, 1),
        ({"size": "xx"}, {"a": "size"}, 1),  # the name alone
        ({"red": "xx"}, {"a": "brick red"}, 1),  # a name can be a color
        ({"size": "xx-large"}, {"size": "large"}, 1),
        ({"size": "xx-large"}, {"size": "xl"}, 0),
        ({"fit": "it's"}, {"fit": "it's"}, 1),
    ],
)
def test_options_of_a_synthetic_goal(wanted, chosen, found):
    assert with_options(wanted, chosen) == found


def test_scores_are_rounded_before_they_are_compared():
    # rapidfuzz gives 85.2 and 86.8 for these pairs, thefuzz 85 and 87.
    assert with_options(("a" * 23 + "x" * 8,), {"style": "a" * 23}) == 0
    assert with_options(("a" * 23 + "x" * 7,), {"style": "a" * 23}) == 1


def test_colors():
    assert list(COLORS) == COLOR_SET
    assert len(set(COLORS)) == 102
    assert normalize_color("light blue") == "blue"
    assert normalize_color("royal oak") == "royal"
    assert normalize_color("12 inch") == "12 inch"


@pytest.mark.parametrize("changes", [{"attributes": ()}, {"price_upper": 0.0}, {"price_upper": float("nan")}])
def test_a_goal_that_officially_fails_is_refused(changes):
    with pytest.raises(ValueError, match="Expected a goal with attributes and a price bound above 0, found"):
        bought(wanting(**changes))


TEXTS = st.text(max_size=30)
TEXTS_OF = st.lists(TEXTS, max_size=4).map(tuple)


@given(
    attributes=TEXTS_OF.filter(len),
    options=TEXTS_OF | st.dictionaries(TEXTS, TEXTS, max_size=4),
    chosen=st.dictionaries(TEXTS, TEXTS, max_size=4),
    title=TEXTS,
    path=TEXTS,
    price=st.floats(0, 1e6),
)
def test_any_text_has_a_score_that_its_parts_make_up(attributes, options, chosen, title, path, price):
    goal = wanting(attributes=attributes, options=options)
    product = dataclasses.replace(LAMP, title=title, product_category=path, attributes=(*attributes[1:], "\x00"))
    found = bought(goal, product, chosen, price)
    assert 0 <= found.total <= 1
    shares = found.w_att + (found.w_option or 0) + found.w_price
    assert shares == pytest.approx(1)
    parts = found.r_att * found.w_att + (found.r_option or 0) * (found.w_option or 0) + found.r_price * found.w_price
    assert found.total == pytest.approx(parts * found.r_type)
    assert found == bought(goal, product, dict(reversed(chosen.items())), price)


def test_rewards_of_the_protocols():
    paid = {
        name: [purchase_reward(rules, total) for total in (0.0, 0.6, 0.998, 1.0)] for name, rules in PROTOCOLS.items()
    }
    assert paid == {
        "official": [0.0, 0.6, 0.998, 1.0],
        "steppo": [0.0, 0.0, 0.0, 10.0],
        "verl-agent": [0.0, 0.0, 0.0, 10.0],
    }
    assert [PROTOCOLS[name].max_steps for name in paid] == [100, 15, 15]
    assert [PROTOCOLS[name].invalid_action_reward for name in paid] == [0.0, -0.1, -0.1]
    assert (PROTOCOLS["steppo"].history_length, PROTOCOLS["steppo"].history_chars) == (2, 1800)
    assert is_success(0.999)
    assert not is_success(998 / 999)


@pytest.mark.data
def test_recorded_rewards_of_the_official_code(shared_data):
    lines = (shared_data / "webshop" / "reward_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for vector in map(json.loads, lines):
        wanted, product = vector["goal"], vector["purchased"]
        options = wanted["goal_options"]
        goal = Goal(
            wanted["asin"],
            wanted["instruction_text"],
            tuple(wanted["attributes"]),
            options if isinstance(options, dict) else tuple(options),
            wanted["price_upper"],
            wanted["query"],
            wanted["product_category"],
            wanted["name"],
        )
        found = score(
            goal,
            product=Product(
                product["asin"],
                product["name"],
                product["Description"],
                tuple(product["BulletPoints"]),
                tuple(product["Attributes"]),
                {},
                (),
                product["query"],
                product["product_category"],
                product["category"],
            ),
            chosen=vector["options"],
            price=vector["price"],
            tagger=Recorded({product["name"]: vector["purchased_nouns"], wanted["name"]: vector["goal_nouns"]}),
        )
        where = (vector["id"], vector["kind"])
        assert found.total == pytest.approx(vector["expected_reward"], abs=1e-9), where
        assert found.reward_info() == vector["expected_info"], where


@pytest.mark.data
def test_recorded_rewards_of_the_real_site(shared_data):
    """The bought products are not on record, so each is made from the recorded parts; options are compared for real."""
    lines = (shared_data / "webshop" / "human_trajectories_30.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for session in map(json.loads, lines):
        wanted, info, purchase = session["goal"], session["reward_info"], session["steps"][-1]["content"]
        num_attributes = round(info["r_att"] * len(wanted["attributes"]))
        goal = wanting(
            attributes=tuple(wanted["attributes"]),
            options=tuple(wanted["goal_options"]),
            price_upper=wanted["price_upper"],
        )
        product = Product(
            "",
            "bought",
            "",
            (),
            tuple(wanted["attributes"][:num_attributes]),
            {},
            (),
            "desk lamps" if info["query_match"] else "",
            PATH if info["category_match"] else "",
            "",
        )
        title = Fraction(info["title_score"]).limit_denominator(60)
        nouns = [f"noun {number}" for number in range(title.denominator)]
        tagger = Recorded({"bought": nouns[: title.numerator], WANTED.title: nouns})
        found = bought(goal, product, purchase["options"], purchase["price"], tagger)
        expected = {name: part for name, part in info.items() if name.startswith("r_")}
        assert {name: part for name, part in found.reward_info().items() if name in expected} == expected
        assert found.total == pytest.approx(session["reward"], abs=1e-9)


@pytest.mark.data
def test_random_purchases_of_real_products_earn_what_the_official_rule_gives(shared_data):
    """6,000 of them, half under goals as people state them and half under goals made from options."""
    folder = shared_data / "webshop"
    items = {item["asin"]: item for item in json.loads((folder / "items_shuffle_100.json").read_text(encoding="utf-8"))}
    known = json.loads((folder / "items_ins_v2_1000.json").read_text(encoding="utf-8"))
    shop, tagger, rng = open_shop(folder / "items_shuffle_100.json"), WordTagger(), random.Random(0)
    asins, totals = sorted(items), []
    for number in range(6000):
        goal = shop.goal("synthetic", rng.randrange(shop.num_goals("synthetic")))
        if number % 2:
            goal = dataclasses.replace(goal, options=tuple(goal.options.values()))
        product = shop.product(goal.asin if rng.random() < 0.5 else rng.choice(asins))
        chosen = {name: rng.choice(values) for name, values in product.options.items() if rng.random() < 0.8}
        price = shop.price(product.asin) * rng.choice((0.5, 1, 2))
        found = score(goal, product=product, chosen=chosen, price=price, tagger=tagger)
        expected, parts = official_reward(
            {
                "attributes": goal.attributes,
                "goal_options": dict(goal.options) if isinstance(goal.options, dict) else goal.options,
                "price_upper": goal.price_upper,
                "query": items[goal.asin]["query"].lower().strip(),
                "product_category": items[goal.asin]["product_category"],
                "name": items[goal.asin]["name"],
            },
            items[product.asin],
            known[product.asin].get("attributes", ["DUMMY_ATTR"]),
            chosen,
            price,
            tagger.nouns,
        )
        assert (found.total, found.reward_info()) == (expected, parts), (number, goal, product.asin, chosen)
        totals.append(found.total)
    # Neither all nothing nor all full.
    assert 200 < sum(map(is_success, totals)) < 5000 and len(set(totals)) > 30
