"""Goals against recorded official ones, a plain reference of the official draws, and their rules by hand."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.envs.webshop.built_in.generate import SPLITS, generate_files, split_of
from steppo_gym.envs.webshop.store.catalogue import Product, products_of
from steppo_gym.envs.webshop.store.goals import (
    NO_BOUND,
    human_goals,
    price_bound,
    reward_prices,
    shuffled,
    split_range,
    synthetic_goals,
)
from steppo_gym.errors import DataError

# The official test vectors were made with this seed before the draws.
OFFICIAL_SEED = 7


def product(asin, prices=(20.0,), **options):
    return Product(asin, f"Title {asin}", "", (), ("soft",), options, prices, "query", "A \u203a B", "garden")


def human(**changes):
    record = {"instruction": "i want it.", "instruction_attributes": ["soft"], "instruction_options": ["red"]}
    return {**record, "options": ["color: red"], "worker_id": "nobody", **changes}


def synthetic(**changes):
    return {"attributes": ["soft"], "instruction": "Find me it", "instruction_attributes": ["soft"], **changes}


def human_goals_of(products, records, seed=0):
    rng = random.Random(seed)
    prices = dict(reward_prices(products, rng))
    return list(human_goals(products, records.get, prices, rng))


def synthetic_goals_of(products, records, seed=0):
    rng = random.Random(seed)
    prices = dict(reward_prices(products, rng))
    return list(synthetic_goals(products, records.get, prices, rng))


@pytest.fixture(scope="module")
def shop():
    """Products, synthetic records and human records of a generated shop."""
    files = generate_files(60)
    products = list(products_of(files.items, {asin: row["attributes"] for asin, row in files.attributes.items()}.get))
    return products, files.attributes, files.human


# Bounds, that is the multiples of 10 above a price of which two are drawn.
BOUNDS = [
    (0.0, [10, 20, 30, 40]),
    (9.99, [10, 20, 30, 40]),
    (10.0, [20, 30, 40, 50]),
    (955.0, [960, 970, 980, 990]),
    (960.0, [970, 980, 990]),
    (975.0, [980, 990]),
]


@pytest.mark.parametrize("price, bounds", BOUNDS)
def test_a_bound_is_the_higher_of_two(price, bounds):
    drawn = {price_bound(price, random.Random(seed)) for seed in range(100)}
    assert drawn == set(bounds[1:])


@pytest.mark.parametrize("price", [980.0, 989.99, 990.0, 5000.0, float("inf")])
def test_without_two_bounds_there_is_none_and_nothing_is_drawn(price):
    rng = random.Random(0)
    assert price_bound(price, rng) == NO_BOUND
    assert rng.getstate() == random.Random(0).getstate()


def test_a_human_goal():
    (goal,) = human_goals_of([product("B1", color=("red",))], {"B1": [human()]})
    assert goal.instruction == f"i want it, and price lower than {goal.price_upper:.2f} dollars"
    assert (goal.asin, goal.title, goal.query) == ("B1", "Title B1", "query")
    assert goal.product_category == "A \u203a B"
    assert (goal.attributes, goal.options) == (("soft",), ("red",))


def test_a_dear_product_has_no_bound_in_its_instruction():
    (goal,) = human_goals_of([product("B1", prices=(985.0,))], {"B1": [human(instruction="..i want it. now..")]})
    assert (goal.instruction, goal.price_upper) == ("i want it. now", NO_BOUND)


def test_products_and_instructions_without_wishes_have_no_human_goal():
    products = [product("B1"), product("B2"), product("B3")]
    records = {"B2": [human(instruction_attributes=[]), human(instruction="second")], "B3": []}
    assert [goal.instruction.partition(",")[0] for goal in human_goals_of(products, records)] == ["second"]


def test_a_synthetic_goal_for_every_combination_of_options():
    goals = synthetic_goals_of([product("B1", size=("s", "m"), color=("red", "blue"))], {"B1": synthetic()})
    bound = f", and price lower than {goals[0].price_upper:.2f} dollars"
    assert [goal.instruction.removesuffix(bound) for goal in goals] == [
        "Find me it with color: red, and size: s",
        "Find me it with color: red, and size: m",
        "Find me it with color: blue, and size: s",
        "Find me it with color: blue, and size: m",
    ]
    assert goals[2].options == {"color": "blue", "size": "s"}
    assert len({goal.price_upper for goal in goals}) == 1


def test_a_product_without_options_has_one_synthetic_goal():
    (goal,) = synthetic_goals_of([product("B1", prices=(5000.0,))], {"B1": synthetic()})
    assert (goal.instruction, goal.options) == ("Find me it", {})


@pytest.mark.parametrize("record", [{"attributes": ["soft"]}, synthetic(instruction=None), None])
def test_a_product_without_an_instruction_has_no_synthetic_goal(record):
    products, records = [product("B1"), product("B2")], {"B1": record, "B2": synthetic()}
    assert [goal.asin for goal in synthetic_goals_of(products, records)] == ["B2"]
    # And draws nothing.
    for seed in range(10):
        assert synthetic_goals_of(products, records, seed) == synthetic_goals_of(products[1:], records, seed)


def test_an_option_without_values_leaves_no_goal_and_still_draws():
    products = [product("B1", color=()), product("B2")]
    records = {"B1": synthetic(), "B2": synthetic()}
    bounds = {synthetic_goals_of(products, records, seed)[0].price_upper for seed in range(20)}
    assert len(bounds) > 1
    rng = random.Random(3)
    price_bound(20.0, rng)
    assert synthetic_goals_of(products, records, 3)[0].price_upper == price_bound(20.0, rng)


def official_draws(products, records, seed, kind):
    """Prices and bounds as the official code draws them, from one generator and step by step."""
    random.seed(seed)
    prices, bounds = {}, []
    for item in products:
        prices[item.asin] = random.uniform(*item.prices) if len(item.prices) > 1 else item.prices[0]
    for item in products:
        found = records.get(item.asin)
        for _ in (found or []) if kind == "human" else [found] if found else []:
            above = [10.0 * tens for tens in range(1, 100) if 10.0 * tens > prices[item.asin]][:4]
            bounds.append(sorted(random.sample(above, 2))[1] if len(above) >= 2 else 1000000)
    return prices, bounds


@pytest.fixture
def global_random():
    """Leaves the global generator as it was found."""
    state = random.getstate()
    yield
    random.setstate(state)


@pytest.mark.parametrize("seed", [0, 1, 42])
def test_draws_come_in_the_official_order(shop, seed, global_random):
    products, annotations, instructions = shop
    assert any(len(item.prices) > 1 for item in products)
    prices, bounds = official_draws(products, instructions, seed, "human")
    assert dict(reward_prices(products, random.Random(seed))) == prices
    assert [goal.price_upper for goal in human_goals_of(products, instructions, seed)] == bounds
    _, bounds = official_draws(products, annotations, seed, "synthetic")
    goals = synthetic_goals_of(products, annotations, seed)
    assert [first.price_upper for _, (first, *_) in itertools.groupby(goals, lambda goal: goal.asin)] == bounds


def test_goals_follow_from_their_arguments_alone(shop, global_random):
    products, annotations, instructions = shop
    random.seed(0)
    first = human_goals_of(products, instructions), synthetic_goals_of(products, annotations)
    state = random.getstate()
    random.seed(1)
    assert (human_goals_of(products, instructions), synthetic_goals_of(products, annotations)) == first
    random.seed(0)
    assert random.getstate() == state


def test_goals_are_made_one_at_a_time():
    products = (product(f"B{number}") for number in itertools.count())
    prices = dict.fromkeys((f"B{number}" for number in range(4)), 20.0)
    goals = human_goals(products, lambda asin: [human()], prices, random.Random(0))
    assert [next(goals).asin for _ in range(3)] == ["B0", "B1", "B2"]
    goals = synthetic_goals(products, lambda asin: synthetic(), {"B3": 20.0}, random.Random(0))
    assert next(goals).asin == "B3"


# Wanted at the first eight places, recorded from the official shuffle.
SHUFFLED = {
    501: [296, 201, 84, 129, 196, 466, 142, 33],
    6910: [3963, 2638, 2193, 1856, 4358, 6149, 2504, 3220],
    12087: [8655, 10304, 6940, 2750, 3667, 2144, 3577, 9548],
}


@pytest.mark.parametrize("num_goals", SHUFFLED)
def test_the_official_order(num_goals):
    order = shuffled(num_goals)
    assert list(order[:8]) == SHUFFLED[num_goals]
    assert sorted(order) == list(range(num_goals))
    assert shuffled(num_goals, seed=42) != order


@pytest.mark.parametrize(
    "num_goals, rule, sizes",
    [
        (12087, "official", (500, 1000, 10587)),
        (12087, "first-500", (500, 500, 11587)),
        (1500, "official", (500, 1000, 0)),
        (900, "official", (500, 400, 0)),
        (300, "official", (300, 0, 0)),
        (300, "first-500", (300, 300, 0)),
        (0, "official", (0, 0, 0)),
    ],
)
def test_splits_of_the_full_set(num_goals, rule, sizes):
    ranges = {split: split_range(num_goals, split, rule) for split in SPLITS}
    assert tuple(len(ranges[split]) for split in ("test", "validation", "train")) == sizes
    assert set(ranges["test"]) | set(ranges["validation"]) | set(ranges["train"]) == set(range(num_goals))
    assert not set(ranges["train"]) & (set(ranges["test"]) | set(ranges["validation"]))
    if rule == "first-500":
        assert ranges["validation"] == ranges["test"]


@pytest.mark.parametrize("split, rule", [("dev", "official"), ("test", "all")])
def test_an_unknown_split_or_rule_is_refused(split, rule):
    with pytest.raises(ValueError, match=r"split must be one of .*, got .dev.|Expected a rule of .*, found .all."):
        split_range(12087, split, rule)


def test_goals_of_a_generated_shop_are_split_by_what_is_wanted(shop):
    products, annotations, instructions = shop
    for goals in (human_goals_of(products, instructions), synthetic_goals_of(products, annotations)):
        splits = {goal.asin: split_of(goal.query, goal.attributes) for goal in goals}
        assert all(splits[goal.asin] == split_of(goal.query, goal.attributes) for goal in goals)
        assert set(splits.values()) == set(SPLITS)


MALFORMED_HUMAN = [
    (human(instruction=None), r"a text as instruction in human instruction 1 of product B1, found None"),
    (human(instruction_attributes="soft"), r"a list of texts as instruction_attributes in human .*, found 'soft'"),
    (human(instruction_options=[1]), r"a list of texts as instruction_options in human .*, found \[1\]"),
    ({"instruction": "x"}, r"a key 'instruction_attributes' in human .*, found \['instruction'\]"),
    ("text", r"an object in human instruction 1 of product B1, found 'text'"),
    (None, r"an object in human instruction 1 of product B1, found None"),
]


@pytest.mark.parametrize("record, message", MALFORMED_HUMAN)
def test_a_malformed_human_record_says_where(record, message):
    with pytest.raises(DataError, match=f"Expected {message}. Use an official file"):
        human_goals_of([product("B1")], {"B1": [human(), record]})


MALFORMED_SYNTHETIC = [
    (synthetic(instruction=3), r"a text as instruction in the attributes of product B1, found 3"),
    (synthetic(instruction_attributes=[]), r"some instruction_attributes beside an instruction in the .*, found \(\)"),
    (synthetic(instruction_attributes=None), r"a list of texts as instruction_attributes in the .*, found None"),
    ({"instruction": "x"}, r"a key 'instruction_attributes' in the attributes .*, found \['instruction'\]"),
    (["soft"], r"an object in the attributes of product B1, found \['soft'\]"),
]


@pytest.mark.parametrize("record, message", MALFORMED_SYNTHETIC)
def test_a_malformed_synthetic_record_says_where(record, message):
    with pytest.raises(DataError, match=f"Expected {message}. Use an official file"):
        synthetic_goals_of([product("B1")], {"B1": record})


FIELDS = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.none() | st.text(max_size=5), max_size=3)
RECORDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("instruction", "instruction_attributes", "instruction_options"), FIELDS)
)


@pytest.mark.parametrize("records", [3, "text", {"instruction": "x"}])
def test_human_instructions_are_a_list(records):
    with pytest.raises(DataError, match="Expected a list of human instructions in those of product B1, found"):
        human_goals_of([product("B1")], {"B1": records})


@given(record=FIELDS | RECORDS, prices=st.lists(st.floats(0, 1e6), min_size=1, max_size=2).map(tuple))
def test_any_record_makes_goals_or_a_data_error(record, prices):
    products = [product("B1", prices, color=("red", "blue"))]
    for goals_of, records in ((human_goals_of, {"B1": [record]}), (synthetic_goals_of, {"B1": record})):
        try:
            goals = goals_of(products, records)
        except DataError:
            continue
        assert all(goal.attributes and goal.price_upper > 0 and isinstance(goal.instruction, str) for goal in goals)


@pytest.fixture(scope="module")
def official_shop(shared_data):
    folder = shared_data / "webshop"
    annotations = json.loads((folder / "items_ins_v2_1000.json").read_text(encoding="utf-8"))
    items = json.loads((folder / "items_shuffle_100.json").read_text(encoding="utf-8"))
    products = products_of(items, {asin: row["attributes"] for asin, row in annotations.items()}.get)
    return list(products), annotations


@pytest.mark.data
def test_recorded_goals_of_the_official_code(shared_data, official_shop):
    goals = synthetic_goals_of(*official_shop, seed=OFFICIAL_SEED)
    order = shuffled(len(goals))
    recorded = json.loads((shared_data / "webshop" / "observation_goals.json").read_text(encoding="utf-8"))
    assert recorded
    for place, expected in enumerate(recorded):
        goal = goals[order[place]]
        assert goal.asin == expected["asin"]
        assert goal.instruction == expected["instruction_text"]
        assert goal.attributes == tuple(expected["attributes"])
        assert goal.options == expected["goal_options"]
        assert goal.price_upper == expected["price_upper"]
        assert goal.title == expected["name"]
        assert (goal.query, goal.product_category) == (expected["query"], expected["product_category"])


@pytest.mark.data
def test_recorded_prices_of_the_official_code(shared_data, official_shop):
    prices = dict(reward_prices(official_shop[0], random.Random(OFFICIAL_SEED)))
    lines = (shared_data / "webshop" / "reward_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    unchanged = [
        vector
        for vector in map(json.loads, lines)
        if not vector["kind"].startswith("edge") and "above bound" not in vector["kind"]
    ]
    assert any(prices[vector["purchased"]["asin"]] % 0.01 for vector in unchanged)
    for vector in unchanged:
        assert vector["price"] == pytest.approx(prices[vector["purchased"]["asin"]], abs=1e-9), vector["id"]
