"""The expert that reads: it knows what the pages say and nothing else, slips now and then, and mostly succeeds."""

from __future__ import annotations

import dataclasses

import pytest

from steppo_gym.envs.webshop.env import WebShopEnv
from steppo_gym.envs.webshop.expert import BACK, BUY, FEATURES, NEXT, Listed, Page, Wanted
from steppo_gym.envs.webshop.reader import OVERLOOK, SLIP, overlook, reading_action, slip, thought

WANTED = Wanted("hoodie", ("slim fit", "soft lining", "zip pockets"), ("black",), 50.0, "none of its business")
RESULTS = Page(
    "results",
    listed=[Listed("DEAR", "Slim Fit Hoodie", 60.0), Listed("ONE", "Slim Fit Hoodie", 40.0), Listed("TWO", "", 20.0)],
    has_more=True,
)
ITEM = Page(
    "item",
    asin="ONE",
    title="Kestrel Lark Slim Fit Soft Lining Hoodie",
    options={"color": ("white", "black")},
    price=40.0,
    features=("A hoodie by Kestrel", "Zip pockets: made for daily use"),
)
SEARCH = "search[slim fit hoodie soft lining zip pockets black]"


def act(page, *, opened=(), looked=False, steps_left=10, wanted=WANTED):
    return reading_action(wanted, page, opened=opened, looked=looked, steps_left=steps_left)


def test_it_goes_down_the_list_and_passes_over_what_is_too_dear():
    assert act(Page("index")) == SEARCH
    assert act(RESULTS) == "click[ONE]"
    assert act(RESULTS, opened=["ONE"]) == "click[TWO]"
    assert act(RESULTS, opened=["ONE", "TWO"]) == NEXT
    assert act(RESULTS, opened=["ONE", "TWO"], steps_left=4) == "click[DEAR]"


def test_it_reads_the_features_of_what_the_title_leaves_open():
    assert act(ITEM) == FEATURES
    whole = dataclasses.replace(ITEM, title=f"{ITEM.title} Zip Pockets")
    assert act(whole) == act(ITEM, looked=True) == "click[black]"
    assert act(dataclasses.replace(ITEM, chosen={"color": "black"}), looked=True) == BUY
    assert act(ITEM, steps_left=3) == "click[black]"


def test_it_searches_again_where_the_features_lack_something():
    page = dataclasses.replace(ITEM, kind="sub")
    assert act(page, looked=True) == BACK
    other = dataclasses.replace(page, features=("A hoodie by Kestrel", "Tumble dry: made for daily use"))
    assert act(other, looked=True) == SEARCH
    assert act(other, looked=True, steps_left=3) == BACK


def test_it_thinks_of_each_wanted_attribute_where_it_reads_features():
    page = dataclasses.replace(ITEM, kind="sub")
    assert thought(WANTED, page, looked=True) == "slim fit yes soft lining yes zip pockets yes"
    other = dataclasses.replace(page, features=("A hoodie by Kestrel", "Tumble dry: made for daily use"))
    assert thought(WANTED, other, looked=True) == "slim fit yes soft lining yes zip pockets no"
    # The page of the description is of the same kind, and says nothing of features.
    assert thought(WANTED, other, looked=False) == ""
    assert {thought(WANTED, page, looked=True) for page in (Page("index"), RESULTS, ITEM)} == {""}


def test_what_it_thinks_is_what_it_does():
    env = WebShopEnv(split="validation", goals="synthetic", nouns="words", results_per_page=4, expert="clumsy")
    seen = set()
    for task_id in env.task_ids[:20]:
        env.reset(seed=1, options={"task_id": task_id})
        over = False
        while not over:
            response = env.expert_response()
            said, ended, action = response.partition("</think>")
            if ended and not env.expert_slip and env.num_steps < 8:
                lacks = "no" in said.split()
                seen.add(lacks)
                assert ("search[" in action) == lacks, response
            _, _, terminated, truncated, _ = env.step(response)
            over = terminated or truncated
    assert seen == {True, False}


def test_it_leaves_what_is_too_dear_or_lacks_an_option():
    assert act(dataclasses.replace(ITEM, price=60.0)) == BACK
    assert act(dataclasses.replace(ITEM, options={"color": ("white",)})) == BACK
    assert act(dataclasses.replace(ITEM, options={"color": ("white",)}), looked=True, steps_left=3) == BUY


def test_a_heedless_reader_minds_neither_price_nor_features_nor_the_last_option():
    def acts(page, *, wanted=WANTED, looked=False, seeds=500):
        right = act(page, wanted=wanted, looked=looked)
        return [overlook(wanted, page, seed=seed, step=0) or right for seed in range(seeds)]

    def share(page, wrong, *, right, looked=False):
        done = acts(page, looked=looked)
        assert {wrong, right} == set(done)
        return done.count(wrong) / len(done)

    two = dataclasses.replace(ITEM, options={"color": ("white", "black"), "size": ("small", "large")})
    wants_two = dataclasses.replace(WANTED, options=("black", "large"))
    unfit = dataclasses.replace(ITEM, kind="sub", features=("A hoodie by Kestrel",))
    shares = [
        share(ITEM, BUY, right=FEATURES),
        share(ITEM, BUY, right="click[black]", looked=True),
        share(dataclasses.replace(ITEM, price=60.0), BUY, right=BACK),
        share(unfit, BACK, right=SEARCH, looked=True),
    ]
    assert shares == pytest.approx([OVERLOOK] * 4, abs=0.06)
    assert set(acts(two, wanted=wants_two, looked=True)) == {"click[black]"}
    for page in (Page("index"), RESULTS):
        assert set(acts(page, seeds=100)) == {act(page)}


def test_a_slip_is_another_product_or_value_or_not_there():
    def slips(page, right):
        return {slip(page, right, seed=seed, step=0) for seed in range(1000)}

    assert slips(RESULTS, "click[ONE]") == {None, "click[DEAR]", "click[TWO]", BUY}
    assert slips(ITEM, "click[black]") == {None, "click[white]", NEXT}
    assert slips(ITEM, FEATURES) == {None, NEXT}
    assert slips(Page("index"), SEARCH) == {None}
    seen = sum(slip(ITEM, FEATURES, seed=seed, step=0) is not None for seed in range(1000))
    assert seen == pytest.approx(1000 * SLIP, rel=0.4)


def test_most_goals_can_be_read():
    env = WebShopEnv(split="validation", goals="synthetic", nouns="words", results_per_page=4, expert="clumsy")
    solved = 0
    for task_id in env.task_ids[:40]:
        env.reset(seed=1, options={"task_id": task_id})
        over = False
        while not over:
            _, _, terminated, truncated, info = env.step(env.expert_response())
            over = terminated or truncated
        solved += info["success"]
    assert solved >= 34
