"""Episodes told of another shop: the same words stay the same, the same products fit, dear ones stay too dear."""

from __future__ import annotations

import random
import re

import pytest
from retold_episodes import assert_one_to_one, assert_told_alike, episode, exchanged

from steppo_gym.envs.webshop.built_in.words import BRANDS, DEPARTMENTS, SERIES
from steppo_gym.envs.webshop.env import WebShopEnv
from steppo_gym.envs.webshop.renaming import renamed
from steppo_gym.envs.webshop.render import EXAMPLE

LISTS = [tuple(map(str.lower, BRANDS)), tuple(map(str.lower, SERIES))]
for department in DEPARTMENTS.values():
    LISTS += [department.attributes, tuple(department.kinds), *department.options.values()]
PHRASES = sorted({phrase for words in LISTS for phrase in words}, key=len, reverse=True)
WORDS = re.compile(rf"\b(?:{'|'.join(PHRASES)})\b", re.IGNORECASE)
ASIN = re.compile(r"\bB[A-Z]{9}\b")
AMOUNT = re.compile(r"\d+\.\d\d")
PIECE = re.compile(rf"{ASIN.pattern}|{AMOUNT.pattern}|{WORDS.pattern}", re.IGNORECASE)
CLICK = re.compile(r"click\[(.*)\]")


@pytest.fixture(scope="module")
def env():
    return WebShopEnv(goals="synthetic", nouns="words", results_per_page=4, expert="clumsy", context="append")


@pytest.fixture(scope="module")
def episodes(env):
    """In the append context, some with a click on what was not there."""
    return [episode(env, task_id)[0] for task_id in env.task_ids[:15]]


def told_by(env, texts, seed):
    return env.retold([text.replace(EXAMPLE, "_") for text in texts], random.Random(seed))


def test_every_phrase_becomes_one_other_of_a_list_it_is_in(env, episodes):
    changed = total = 0
    for number, texts in enumerate(episodes):
        pairs = exchanged([text.replace(EXAMPLE, "_") for text in texts], told_by(env, texts, number), PIECE)
        phrases = [(old.lower(), new.lower()) for old, new in pairs if WORDS.fullmatch(old)]
        assert_one_to_one(phrases)
        assert all(any(old in words and new in words for words in LISTS) for old, new in phrases)
        changed += sum(old != new for old, new in phrases)
        total += len(phrases)
    assert changed > 0.8 * total > 0


def test_spellings_stay(env, episodes):
    for old, new in exchanged(episodes[0], told_by(env, episodes[0], 0), PIECE):
        assert (old.islower(), old.istitle()) == (new.islower(), new.istitle())


def test_amounts_move_together_and_ids_are_those_of_products(env, episodes):
    moves = set()
    for number, texts in enumerate(episodes):
        told = told_by(env, texts, number)
        pairs = exchanged([text.replace(EXAMPLE, "_") for text in texts], told, PIECE)
        moved = {round(float(new) - float(old), 2) for old, new in pairs if AMOUNT.fullmatch(old)}
        assert len(moved) == 1
        assert all(float(new) > 0 for old, new in pairs if AMOUNT.fullmatch(old))
        moves |= moved
        ids = [(old, new) for old, new in pairs if ASIN.fullmatch(old)]
        assert_one_to_one(ids)
        assert all(env.shop.has(new) for _, new in ids)
    assert all(move % 10 == 0 for move in moves)
    assert len(moves) > 5


def test_what_is_clicked_stands_on_the_page(env, episodes):
    for number, texts in enumerate(episodes):
        told = told_by(env, texts, number)
        for place in range(1, len(told), 2):
            for label in CLICK.findall(told[place]):
                before = [text.lower() for text in (texts[place - 1], told[place - 1])]
                (old,) = CLICK.findall(texts[place])
                assert (old.lower() in before[0]) == (label.lower() in before[1])


def test_what_explains_how_to_act_stays(episodes):
    problems = {text for texts in episodes for text in texts if EXAMPLE in text}
    assert problems
    assert all(EXAMPLE in text for text in renamed(sorted(problems), random.Random(0), asins=()))


def test_names_depend_on_the_generator_alone(env, episodes):
    assert_told_alike(episodes[0], lambda rng: env.retold(episodes[0], rng))


def test_words_of_official_files_are_not_known(env, episodes, monkeypatch):
    monkeypatch.setattr(env, "_asins", None)
    with pytest.raises(NotImplementedError, match="built-in"):
        env.retold(episodes[0], random.Random(0))
