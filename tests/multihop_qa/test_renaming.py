"""Episodes told of another encyclopaedia: the same words stay the same, older stays older, the way stays the way."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest
from expert_play import play_with_slips
from retold_episodes import assert_one_to_one, assert_told_alike, episode, exchanged

from steppo_gym.envs.multihop_qa.actions import Answer, Search, parse_action
from steppo_gym.envs.multihop_qa.built_in.names import word_lists
from steppo_gym.envs.multihop_qa.env import HotpotQAEnv, TwoWikiMultihopQAEnv
from steppo_gym.envs.multihop_qa.expert import WRONG
from steppo_gym.envs.multihop_qa.renaming import renamed

PIECE = re.compile(r"\b(?:[A-Z][a-z]+|\d{4})\b")


@pytest.fixture(scope="module")
def episodes():
    """Of every kind of question, in the append context."""
    envs = [cls(expert="clumsy", context="append", top_k=2) for cls in (HotpotQAEnv, TwoWikiMultihopQAEnv)]
    return [episode(env, task_id)[0] for env in envs for task_id in env.task_ids[:10]]


def test_every_word_becomes_one_other_of_its_list(episodes):
    place = {word: number for number, words in enumerate(word_lists()) for word in words}
    changed = total = 0
    for number, texts in enumerate(episodes):
        pairs = exchanged(texts, renamed(texts, random.Random(number)), PIECE)
        assert_one_to_one(pairs)
        assert all(place.get(old) == place.get(new) for old, new in pairs)
        assert all(old == new for old, new in pairs if old not in place and not old.isdecimal())
        changed += sum(old != new for old, new in pairs if old in place)
        total += sum(old in place for old, _ in pairs)
    assert changed > 0.9 * total > 0


def test_what_is_older_stays_older(episodes):
    for texts in episodes:
        pairs = {pair for pair in exchanged(texts, renamed(texts, random.Random(7)), PIECE) if pair[0].isdecimal()}
        years = sorted((int(old), int(new)) for old, new in pairs)
        assert years
        assert all(one < other for (_, one), (_, other) in combinations(years, 2))


def test_what_is_searched_for_and_answered_stands_in_what_was_read(episodes):
    for texts in episodes:
        told = renamed(texts, random.Random(3))
        for place in range(1, len(told), 2):
            action = parse_action(told[place], "tag", max_searches=1)
            assert isinstance(action, Search | Answer)
            (text,) = action.queries if isinstance(action, Search) else (action.text,)
            read = "\n".join(told[:place:2])
            assert (text in read) == (parse_text(texts[place]) in "\n".join(texts[:place:2]))


def parse_text(response):
    return re.sub(r"</?\w+>", "", response.rpartition("</think>")[2]).strip()


def test_names_depend_on_the_generator_alone(episodes):
    assert_told_alike(episodes[0], lambda rng: renamed(episodes[0], rng))


def test_no_word_stands_in_two_lists_and_questions_begin_with_none():
    words = [word for words in word_lists() for word in words]
    assert len(set(words)) == len(words)
    assert not {"Question", "Who", "What", "When", "The", "Nothing"} & set(words)


def test_the_clumsy_expert_slips_and_answers_all_the_same():
    env = HotpotQAEnv(expert="clumsy", top_k=2)
    infos, slips, steps = play_with_slips(env, env.task_ids[:40])
    assert sum(info["success"] for info in infos) >= 38
    assert 0 < slips < 3 * WRONG * steps
