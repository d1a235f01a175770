"""The experts, who read what is shown, and the oracle, who knows which papers are answers."""

from __future__ import annotations

import random

import pytest

from steppo_gym.envs.paper_search.actions import Calls, Expand, Search, Stop
from steppo_gym.envs.paper_search.built_in.generate import builtin_corpus, generate_query
from steppo_gym.envs.paper_search.corpus.build import Citation, build_corpus
from steppo_gym.envs.paper_search.corpus.corpus import open_corpus
from steppo_gym.envs.paper_search.expert import HASTE, MAX_WORDS, WRONG, Seen, View, expert_action, key_words
from steppo_gym.envs.paper_search.expert_view import view_of
from steppo_gym.envs.paper_search.oracle import oracle_action
from steppo_gym.envs.paper_search.papers import Paper, Query
from steppo_gym.envs.paper_search.pool import PaperPool, carry_out
from steppo_gym.envs.paper_search.relevance import GoldMembership
from steppo_gym.envs.paper_search.reward import PROTOCOLS

PROTOCOL = PROTOCOLS["steppo"]
QUERY = Query(
    "q", "Which papers use gated encoders for text summarisation?", ("2001.00001", "2101.00001", "2102.00002")
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    papers = [
        Paper("2001.00001", "Towards text summarisation with gated encoders", "We do.", "2020-01-01"),
        Paper("2002.00001", "Cooking with rice", "Food.", "2020-02-01"),
        Paper("2101.00001", "Introducing frozen agents for content condensing", "We do so.", "2021-01-01"),
        Paper("2102.00002", "Improving content condensing with frozen agents", "Better.", "2021-02-01"),
    ]
    folder = tmp_path_factory.mktemp("papers") / "corpus"
    records = [*papers, Citation("2101.00001", "2001.00001")]
    return open_corpus(build_corpus(records, folder, edges="generated", source="made"))


def steps(query, source, *, seed=None, max_steps=8, oracle=False, listed=10, context="rebuilt", pool=None):
    pool, actions, slips = pool or PaperPool(), [], 0
    for step in range(max_steps):
        view = view_of(query.text, pool, context=context, listed_papers=listed, by_score=False)
        action, slip = (oracle_action(query, pool), False) if oracle else expert_action(view, step=step, seed=seed)
        slips += slip
        actions.append(action)
        if isinstance(action, Stop):
            break
        for call in action.calls:
            carry_out(call, pool, query=query, source=source, relevance=GoldMembership(), protocol=PROTOCOL)
    return pool, actions, slips


@pytest.mark.parametrize("oracle", [False, True])
def test_searches_expands_and_searches_for_the_new_name(corpus, oracle):
    _, actions, _ = steps(QUERY, corpus, oracle=oracle)
    followed = [
        Calls((Search("gated encoders text summarisation"),)),
        Calls((Expand("2001.00001"),)),
        Calls((Search("frozen agents content condensing"),)),
    ]
    # Who does not know the answers looks whether the work went on once more.
    more = [] if oracle else [Calls((Expand("2102.00002"),))]
    assert actions == [*followed, *more, Stop()]


def test_without_any_answer_the_oracle_goes_through_the_list_and_stops(corpus):
    query = Query("q", "gated rice", ("9901.00001",))
    pool, actions, _ = steps(query, corpus, oracle=True)
    assert isinstance(actions[-1], Stop)
    assert pool.entries and all(entry.expanded for entry in pool.entries.values())
    assert not any(outcome.problem for outcome in pool.outcomes)
    nothing = Query("q", "???", ("9901.00001",))
    assert steps(nothing, corpus, oracle=True)[1] == [Calls((Search("???"),)), Stop()]


def test_without_a_title_of_its_words_the_expert_expands_what_has_most_of_them(corpus):
    query = Query("q", "Which papers bring gated encoders and rice together?", ("9901.00001",))
    pool, actions, _ = steps(query, corpus)
    assert actions[1] == Calls((Expand("2001.00001"),))
    assert isinstance(actions[-1], Stop)
    assert not any(outcome.problem for outcome in pool.outcomes)
    nothing = Query("q", "???", ("9901.00001",))
    assert steps(nothing, corpus)[1] == [Calls((Search("???"),)), Stop()]


def test_only_a_later_introduction_in_new_words_is_followed():
    own = Seen("2001.00001", "Towards text summarisation with gated encoders", is_expanded=True)
    searches = ("gated encoders text summarisation",)

    def act(*papers):
        return expert_action(View(QUERY.text, (*papers, own), searches, 2), step=2)[0]

    new = Seen("2101.00001", "Introducing frozen agents for content condensing", is_expanded=False)
    assert act(new) == Calls((Search("frozen agents content condensing"),))
    earlier = Seen("1901.00001", new.title, is_expanded=False)
    related = Seen("2101.00001", "Introducing frozen encoders for content condensing", is_expanded=False)
    usual = Seen("2101.00001", "Improving content condensing with frozen agents", is_expanded=False)
    assert act(earlier, related, usual) == Stop()
    assert act(earlier, related, usual, new) == act(new)


@pytest.mark.parametrize(("listed", "context"), [(10, "rebuilt"), (3, "rebuilt"), (3, "append")])
def test_what_is_shown_is_enough_to_find_nearly_all_answers(listed, context):
    recalls = []
    for index in range(120):
        query = generate_query("validation", index)
        pool, _, slips = steps(query, builtin_corpus(), max_steps=5, listed=listed, context=context)
        recalls.append(len(set(query.answers) & pool.entries.keys()) / len(query.answers))
        assert slips == 0 and not any(outcome.problem for outcome in pool.outcomes)
    assert sum(recalls) / len(recalls) > 0.98


def test_the_oracle_finds_all_answers_with_fewer_calls():
    calls = [0, 0]
    for index in range(60):
        query = generate_query("validation", index)
        for oracle in (False, True):
            pool, _, _ = steps(query, builtin_corpus(), max_steps=5, oracle=oracle)
            calls[oracle] += len(pool.outcomes)
        assert set(query.answers) <= pool.entries.keys()
    assert calls[True] < calls[False]


BAD_CALLS = (Search("graph pruning"), Search("board search"), Search("learning models"))


@pytest.mark.parametrize("oracle", [False, True])
def test_experts_go_on_after_bad_steps(oracle):
    solved = []
    for index in range(60):
        query, rng = generate_query("train", index), random.Random(index)
        pool = PaperPool()
        for _ in range(rng.randrange(4)):
            listed = [entry.paper.paper_id for entry in pool.listed(by_score=False)][:10]
            call = Expand(rng.choice(listed)) if listed and rng.random() < 0.5 else rng.choice(BAD_CALLS)
            carry_out(call, pool, query=query, source=builtin_corpus(), relevance=GoldMembership(), protocol=PROTOCOL)
        steps(query, builtin_corpus(), oracle=oracle, pool=pool, max_steps=9)
        solved.append(len(set(query.answers) & pool.entries.keys()) / len(query.answers) >= 0.8)
    assert sum(solved) == 60 if oracle else sum(solved) > 54


def test_the_hasty_expert_mostly_stops_after_the_first_search():
    played = [steps(generate_query("train", seed), builtin_corpus(), seed=seed, max_steps=5) for seed in range(150)]
    stopped = [len(actions) == 2 and isinstance(actions[1], Stop) for _, actions, _ in played]
    assert abs(sum(stopped) / len(stopped) - HASTE) < 0.12
    num_late_steps = sum(len(actions) - 1 for (_, actions, _), stop in zip(played, stopped, strict=True) if not stop)
    slips = sum(slips for _, _, slips in played)
    assert 0.3 * WRONG < slips / num_late_steps < 2 * WRONG
    assert not any(outcome.problem for pool, _, _ in played for outcome in pool.outcomes)


def test_the_hasty_expert_is_seeded():
    query = generate_query("train", 5)
    for seed in range(20):
        assert steps(query, builtin_corpus(), seed=seed)[1:] == steps(query, builtin_corpus(), seed=seed)[1:]


def test_slips_expand_papers_of_other_words():
    seen = tuple(
        Seen(f"2001.0000{number}", title, is_expanded=False)
        for number, title in enumerate(("Improving gated encoders", "Cooking with rice", "Towards frozen agents"))
    )
    view = View(QUERY.text, seen, ("gated encoders",), 1)
    slips = set()
    for seed in range(400):
        action, slip = expert_action(view, step=1, seed=seed)
        if slip:
            slips.add(action.calls[0].paper_id)
    assert slips == {"2001.00001", "2001.00002"}


def test_key_words():
    assert key_words("Which papers from 2014 to 2017 use gated encoders for text summarisation?") == (
        "gated encoders text summarisation"
    )
    assert key_words("Introducing gated encoders for word tagging") == "gated encoders word tagging"
    assert key_words("Could you list the works on 3D scenes?") == "3D scenes"
    assert key_words("of the and") == ""
    assert len(key_words("word " * 50).split()) == MAX_WORDS
