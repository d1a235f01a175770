"""Goals from products and the official instructions, in the official order and with the official draws.

The official code draws from one generator: first a price for every product that has two, then a price bound for every
human instruction, or for every product with a synthetic one. After that it shuffles with the seed 233. Where the
official code leaves the generator unseeded, here it is passed in:

    rng = random.Random(0)
    prices = dict(reward_prices(products, rng))
    goals = list(human_goals(products, instructions.get, prices, rng))
    order = shuffled(len(goals))                            # goals[order[0]] comes first
    test = split_range(len(goals), "test", "official")      # places in that order

The rules are those of `web_agent_site/engine/goal.py` and `engine.py` of princeton-nlp/WebShop (commit 64fa2a5, MIT).
Everything is read and yielded one at a time: a full shop has 1.18 million products.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

from steppo_gym.envs.webshop.built_in.generate import Split
from steppo_gym.envs.webshop.store.catalogue import Goal, Product
from steppo_gym.errors import DataError
from steppo_gym.keywords import check_split

SplitRule = Literal["official", "first-500"]
SPLIT_RULES: tuple[SplitRule, ...] = get_args(SplitRule)

SHUFFLE_SEED = 233
NO_BOUND = 1_000_000.0
"""Price bound, in dollars, of a goal whose instruction names none."""

_BOUNDS = tuple(10.0 * tens for tens in range(1, 100))
_NUM_BOUNDS = 4
_NUM_TEST = 500
_NUM_VALIDATION = 1000


def reward_prices(products: Iterable[Product], rng: random.Random) -> Iterator[tuple[str, float]]:
    """Ids with the price that the reward takes, in dollars: the only one, or one drawn between the two.

    All prices are drawn before the first goal: make a mapping of them first.

    Args:
        products: in the order of their file.
        rng: one draw for every product with two prices.
    """
    for product in products:
        prices = product.prices
        yield product.asin, prices[0] if len(prices) == 1 else rng.uniform(prices[0], prices[1])


def human_goals(
    products: Iterable[Product],
    instructions: Callable[[str], Sequence[Mapping[str, Any]] | None],
    prices: Mapping[str, float],
    rng: random.Random,
) -> Iterator[Goal]:
    """Goals that people wrote, those without wanted attributes left out.

    Args:
        products: in the order of their file.
        instructions: the records of `items_human_ins.json` for an id; None or empty where there are none.
        prices: of `reward_prices`, all of them.
        rng: one draw of two bounds for every goal whose price leaves a choice, after those of the prices.

    Raises:
        DataError: a record is malformed.
    """
    for product in products:
        for number, record in enumerate(_human_records(product.asin, instructions(product.asin))):
            where = f"human instruction {number} of product {product.asin}"
            attributes = _texts(record, "instruction_attributes", where)
            if not attributes:
                continue
            text = _text(record, "instruction", where).strip(".")
            options = _texts(record, "instruction_options", where)
            yield _goal(product, text, attributes, options, price_bound(prices[product.asin], rng))


def synthetic_goals(
    products: Iterable[Product],
    annotations: Callable[[str], Mapping[str, Any] | None],
    prices: Mapping[str, float],
    rng: random.Random,
) -> Iterator[Goal]:
    """Goals made from attributes: one for every combination of a product's option values.

    Args:
        products: in the order of their file.
        annotations: the record of `items_ins_v2*.json` for an id, None where there is none.
        prices: of `reward_prices`, all of them.
        rng: one draw of two bounds for every product with an instruction, after those of the prices.

    Raises:
        DataError: a record is malformed.
    """
    for product in products:
        wanted = _synthetic_wanted(product.asin, annotations(product.asin))
        if wanted is None:
            continue
        instruction, attributes = wanted
        bound = price_bound(prices[product.asin], rng)
        # An option without values leaves no combination, though the bound is drawn.
        if not all(product.options.values()):
            continue
        names = sorted(product.options)
        for values in itertools.product(*(product.options[name] for name in names)):
            options = dict(zip(names, values, strict=True))
            named = ", and ".join(f"{name}: {value}" for name, value in options.items())
            text = f"{instruction} with {named}" if named else instruction
            yield _goal(product, text, attributes, options, bound)


def price_bound(price: float, rng: random.Random) -> float:
    """A price bound in dollars: the higher of two of the four multiples of 10 above a price, at most 990.

    Args:
        price: in dollars.
        rng: one draw of two, none where fewer than two bounds are left and the result is `NO_BOUND`.
    """
    above = [bound for bound in _BOUNDS if bound > price][:_NUM_BOUNDS]
    return max(rng.sample(above, 2)) if len(above) > 1 else NO_BOUND


def shuffled(num_goals: int, seed: int = SHUFFLE_SEED) -> array[int]:
    """The official order.

    Args:
        num_goals: human or synthetic ones.
        seed: verl-agent shuffles with a seed of its own.

    Returns:
        (num_goals,) int64, the number that the goal at each place has before the shuffle.
    """
    order = array("q", range(num_goals))
    random.Random(seed).shuffle(order)
    return order


def split_range(num_goals: int, split: Split, rule: SplitRule) -> range:
    """Places of a split in the shuffled order of the full set of products.

    The official code splits no smaller set. For those there is `built_in.generate.split_of`.

    Args:
        num_goals: in the shuffled order.
        split: "train", "validation" or "test".
        rule: "official": 500 goals to test, 1,000 to validate, the rest to train, as in the paper's baselines.
            "first-500": 500 goals to test and the rest to train. These are the places of StepPO's and verl-agent's
            splits and not their goals: StepPO shuffles with the generator that drew its price bounds, verl-agent with
            a seed of its own. Both validate on the test goals, so those are the validation split.

    Raises:
        UnknownTaskError: no such split.
        ValueError: no such rule.
    """
    if rule not in SPLIT_RULES:
        raise ValueError(f"Expected a rule of {', '.join(map(repr, SPLIT_RULES))}, found {rule!r}.")
    num_validation = _NUM_VALIDATION if rule == "official" else 0
    test = range(_NUM_TEST)
    ranges = {
        "test": test,
        "validation": range(_NUM_TEST, _NUM_TEST + num_validation) if num_validation else test,
        "train": range(_NUM_TEST + num_validation, max(num_goals, _NUM_TEST + num_validation)),
    }
    check_split(split, ranges)
    # A set with fewer goals has them in the first ranges.
    return ranges[split][: max(0, num_goals - ranges[split].start)]


def _goal(
    product: Product,
    text: str,
    attributes: tuple[str, ...],
    options: tuple[str, ...] | Mapping[str, str],
    bound: float,
) -> Goal:
    limit = f", and price lower than {bound:.2f} dollars" if bound != NO_BOUND else ""
    return Goal(
        asin=product.asin,
        instruction=text + limit,
        attributes=attributes,
        options=options,
        price_upper=bound,
        query=product.query,
        product_category=product.product_category,
        title=product.title,
    )


def _human_records(asin: str, records: object) -> Sequence[Mapping[str, Any]]:
    if records is None:
        return ()
    if not isinstance(records, list | tuple):
        raise _error("a list of human instructions", records, f"those of product {asin}")
    return records


def _synthetic_wanted(asin: str, annotation: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]] | None:
    """The instruction and the wanted attributes, None where there is no instruction."""
    where = f"the attributes of product {asin}"
    # Products without an instruction lack the key or have null.
    if annotation is None or (isinstance(annotation, Mapping) and annotation.get("instruction") is None):
        return None
    attributes = _texts(annotation, "instruction_attributes", where)
    if not attributes:
        raise _error("some instruction_attributes beside an instruction", attributes, where)
    return _text(annotation, "instruction", where), attributes


def _text(record: Mapping[str, Any], key: str, where: str) -> str:
    value = _field(record, key, where)
    if not isinstance(value, str):
        raise _error(f"a text as {key}", value, where)
    return value


def _texts(record: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = _field(record, key, where)
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise _error(f"a list of texts as {key}", value, where)
    return tuple(value)


def _field(record: Mapping[str, Any], key: str, where: str) -> Any:
    if not isinstance(record, Mapping):
        raise _error("an object", record, where)
    if key not in record:
        raise _error(f"a key {key!r}", sorted(map(str, record)), where)
    return record[key]


def _error(expected: str, found: object, where: str) -> DataError:
    return DataError(
        f"Expected {expected} in {where}, found {found!r:.200}. Use an official file; `steppo-gym download webshop` "
        "fetches them."
    )
