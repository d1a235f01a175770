"""What a purchase is worth, number for number the official reward, and the rules of the published protocols.

    total = r_type * (attributes found + options found + (price <= bound)) / (attributes + options + 1)

`score` follows `get_reward` in `web_agent_site/engine/goal.py` of princeton-nlp/WebShop (commit 64fa2a5, MIT), with
its oddities: a name without shared nouns makes everything worth nothing, colors match as parts of other words
("titanium" is tan), and a synthetic goal's option is compared as the text "('color', 'red')", so that its name alone
can match too. Strings are compared as thefuzz 0.22 compares them, by rapidfuzz.

Deviation: a goal without attributes or with a price bound of 0 or less is refused with a clear text, where the official
code fails with a ZeroDivisionError or a TypeError.

    score(goal, product=product, chosen={"color": "red"}, price=12.99, tagger=noun_tagger("auto")).total
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

from rapidfuzz.fuzz import token_set_ratio
from rapidfuzz.utils import default_process

from steppo_gym.envs.webshop.nouns import NounTagger
from steppo_gym.envs.webshop.store.catalogue import Goal, Product
from steppo_gym.protocol import EnvProtocol

FULL_SCORE = 0.999
"""Totals from here on are a success; below 1 the highest are fractions such as 9/10."""
_COLOR_WORDS = """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
    caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal
    dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory
    ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor
    mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand
    sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
    wheat white wine yellow
"""
COLORS = tuple(_COLOR_WORDS.split())
"""The 102 words of `web_agent_site/engine/normalize.py`, in its order, which is that of the alphabet.

Each stands for any option value that contains it, and of several in a value the first of this list counts: "light blue"
is blue, "light pink" is light.
"""

_SIMILAR = 85
"""Two strings match above this, of 100."""
_CATEGORY_MARK = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"
_NUM_SHARED_CATEGORIES = 2
_KEPT_TEXTS = 8192
# thefuzz deletes these before it compares, and no others above ASCII.
_NO_LATIN_1 = dict.fromkeys(range(0x80, 0x100))


@dataclasses.dataclass(frozen=True, slots=True)
class Score:
    """The reward of a purchase and its parts, by their official names.

    Attributes:
        total: the official reward, 0 to 1.
        r_type: factor for the kind of product: 0, 0.1, 0.5 or 1.
        r_att: share of the wanted attributes that the product has.
        w_att: share of the attributes among all that is wanted.
        query_match: the product was found by the same query.
        category_match: two parts of its category are those of the wanted product.
        title_score: share of the nouns of the wanted product's name that are in this one's.
        r_option: share of the wanted option values that were chosen; None if none is wanted.
        w_option: share of the options among all that is wanted; None if none is wanted.
        r_price: the price is within the bound.
        w_price: share of the price among all that is wanted.
    """

    total: float
    r_type: float
    r_att: float
    w_att: float
    query_match: bool
    category_match: bool
    title_score: float
    r_option: float | None
    w_option: float | None
    r_price: bool
    w_price: float

    def reward_info(self) -> dict[str, float | bool]:
        """The parts as the official `reward_info`, without those that do not apply."""
        parts = {name: getattr(self, name) for name in self.__slots__ if name != "total"}
        return {name: part for name, part in parts.items() if part is not None}


@dataclasses.dataclass(frozen=True)
class ShopProtocol(EnvProtocol):
    """The rules of one published way to shop."""

    pays_score: bool
    """Whether a purchase earns `success_reward` times its score, or nothing below a full score."""
    history_chars: int | None
    """Most characters of an observation in the history; None for all."""
    folds_case: bool
    """Whether a command is lower-cased before it is read, so that "Search[shoe]" is a search."""
    first_tag: bool = False
    """Whether the first tag of a response counts, in a thought too, or the only one after the thoughts."""


PROTOCOLS = {
    # The official environment and its baselines (arXiv:2207.01206). The environment has no step limit; its baselines
    # stop after 100 steps (`train_rl.py`) and see the current page alone.
    "official": ShopProtocol(
        max_steps=100,
        success_reward=1.0,
        invalid_action_reward=0.0,
        history_length=0,
        pays_score=True,
        history_chars=None,
        folds_case=False,
    ),
    # `recipe/webshop` of the official StepPO code, which charges for a missing or malformed call alone.
    "steppo": ShopProtocol(
        max_steps=15,
        success_reward=10.0,
        invalid_action_reward=-0.1,
        history_length=2,
        pays_score=False,
        history_chars=1800,
        folds_case=True,
    ),
    # The recipe of GiGPO (arXiv:2505.10978); its trainer takes the penalty, for missing tags alone, on top of what the
    # environment pays.
    "verl-agent": ShopProtocol(
        max_steps=15,
        success_reward=10.0,
        invalid_action_reward=-0.1,
        history_length=2,
        pays_score=False,
        history_chars=None,
        folds_case=True,
        first_tag=True,
    ),
}


def score(goal: Goal, *, product: Product, chosen: Mapping[str, str], price: float, tagger: NounTagger) -> Score:
    """What buying a product is worth under a goal.

    Args:
        goal: what was wanted.
        product: what was bought.
        chosen: option values clicked, by option name; officially any text.
        price: what the product costs, in dollars; of a range the price drawn when the products were loaded.
        tagger: finds the nouns of the two names.

    Raises:
        ValueError: the goal wants no attributes, or its price bound is not above 0.
    """
    if not goal.attributes or not goal.price_upper > 0:
        raise ValueError(
            f"Expected a goal with attributes and a price bound above 0, found {goal.attributes!r} and "
            f"{goal.price_upper!r} for {goal.asin!r}. Leave such goals out, as the official ones do."
        )
    query_match = product.query == goal.query
    category_match = _shares_category(product.product_category, goal.product_category)
    title_score = _title_score(tagger.nouns(product.title), tagger.nouns(goal.title))
    r_type = _type_factor(query_match or category_match, title_score)
    num_attributes = _num_attributes_found(goal.attributes, product)
    num_options = _num_options_found(goal.options, chosen.values())
    r_price = price <= goal.price_upper
    num_wanted = len(goal.attributes) + len(goal.options) + 1
    return Score(
        total=(num_attributes + num_options + r_price) / num_wanted * r_type,
        r_type=r_type,
        r_att=num_attributes / len(goal.attributes),
        w_att=len(goal.attributes) / num_wanted,
        query_match=query_match,
        category_match=category_match,
        title_score=title_score,
        r_option=num_options / len(goal.options) if goal.options else None,
        w_option=len(goal.options) / num_wanted if goal.options else None,
        r_price=r_price,
        w_price=1 / num_wanted,
    )


def is_success(total: float) -> bool:
    """Whether a purchase got everything that was wanted."""
    return total >= FULL_SCORE


def purchase_reward(protocol: ShopProtocol, total: float) -> float:
    """The reward of the step that buys, whose `Score` has this total."""
    return protocol.success_reward * (total if protocol.pays_score else float(is_success(total)))


def normalize_color(value: str) -> str:
    """The first color that a value contains, else the value as it is."""
    return next((color for color in COLORS if color in value), value)


def _title_score(bought: Sequence[str], wanted: Sequence[str]) -> float:
    """Share of nouns found; a name without nouns gets a score that neither earns nor costs anything."""
    return len(set(bought) & set(wanted)) / len(wanted) if wanted else 0.2


def _shares_category(bought: str, wanted: str) -> bool:
    """Whether two category paths share enough parts, in whatever order."""
    bought_parts, wanted_parts = ({part.strip() for part in path.split(_CATEGORY_MARK)} for path in (bought, wanted))
    return len(bought_parts & wanted_parts) >= _NUM_SHARED_CATEGORIES


def _type_factor(is_same_kind: bool, title_score: float) -> float:
    """How much of the reward a product of this kind can earn; a name with too little in common overrides the rest."""
    if title_score == 0:
        return 0.0
    if title_score < 0.1:
        return 0.1
    return 1.0 if is_same_kind or title_score > 0.2 else 0.5


def _num_attributes_found(wanted: Sequence[str], product: Product) -> int:
    texts = [text.lower() for text in (product.title, " ".join(product.bullet_points), product.description)]
    # In the texts an attribute is officially looked for with its own capitals.
    return sum(
        any(_is_similar(other, attribute) for other in product.attributes) or any(attribute in text for text in texts)
        for attribute in wanted
    )


def _num_options_found(wanted: Sequence[str] | Mapping[str, str], chosen: Iterable[str]) -> int:
    bought = [normalize_color(value) for value in chosen]
    return sum(any(_is_similar(value, option) for value in bought) for option in _comparable(wanted))


def _comparable(wanted: Sequence[str] | Mapping[str, str]) -> list[str]:
    """Wanted options as the texts that the official code compares."""
    if not isinstance(wanted, Mapping):
        return [normalize_color(value) for value in wanted]
    # The official code looks for a color in the pair of name and value, where it must equal one of them, and compares
    # the whole pair otherwise.
    return [next((color for color in COLORS if color in pair), str(pair)) for pair in wanted.items()]


def _is_similar(bought: str, wanted: str) -> bool:
    """Whether thefuzz's `token_set_ratio`, which rounds, is above the official bound."""
    # Below the cutoff rapidfuzz stops early and says 0.
    return round(token_set_ratio(_plain(bought), _plain(wanted), score_cutoff=_SIMILAR)) > _SIMILAR


@functools.lru_cache(_KEPT_TEXTS)
def _plain(text: str) -> str:
    """A text as thefuzz compares it: lower case, anything but letters and digits a blank."""
    return default_process(text.translate(_NO_LATIN_1))
