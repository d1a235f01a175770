"""Episodes told of another field: the same words stay the same, newer stays newer, calls name what is listed."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest
from expert_play import play_with_slips
from retold_episodes import assert_one_to_one, assert_told_alike, episode, exchanged

from steppo_gym.envs.paper_search.actions import Calls, Expand, Search, Stop, parse_action
from steppo_gym.envs.paper_search.built_in.words import word_lists
from steppo_gym.envs.paper_search.env import PaperSearchEnv
from steppo_gym.envs.paper_search.expert import WRONG, is_key_word
from steppo_gym.envs.paper_search.renaming import renamed

PIECE = re.compile(r"\d{4}\.\d+|(?<![\w</])[A-Za-z]+(?![\w>])")
LISTED = re.compile(r"\[(\d{4}\.\d+)\] \[...\] (.*)")


@pytest.fixture(scope="module")
def episodes():
    """Of every kind of question, in the append context, titles alone."""
    env = PaperSearchEnv(expert="clumsy", context="append", abstract_words=0, listed_papers=3)
    return [episode(env, task_id)[0] for task_id in env.task_ids[:12]]


def test_every_word_becomes_one_other_of_its_list(episodes):
    place = {word: number for number, words in enumerate(word_lists()) for word in words}
    changed = total = 0
    for number, texts in enumerate(episodes):
        pairs = exchanged(texts, renamed(texts, random.Random(number)), PIECE)
        assert_one_to_one(pairs)
        assert all(place.get(old) == place.get(new) for old, new in pairs)
        assert all(old == new for old, new in pairs if old not in place and not old[0].isdecimal())
        assert all(old == new for old, new in pairs if not is_key_word(old))
        changed += sum(old != new for old, new in pairs if old in place)
        total += sum(old in place for old, _ in pairs)
    assert changed > 0.9 * total > 0


def test_what_is_newer_stays_newer_and_papers_of_a_month_together(episodes):
    for texts in episodes:
        pairs = set(exchanged(texts, renamed(texts, random.Random(5)), PIECE))
        ids = sorted(pair for pair in pairs if pair[0][0].isdecimal())
        assert len(ids) > 3
        for (old, new), (later, other) in combinations(ids, 2):
            assert new < other
            assert (old[:4] == later[:4]) == (new[:4] == other[:4])
        assert all(len(old) == len(new) for old, new in ids)


def test_calls_name_what_was_listed(episodes):
    for texts in episodes:
        told = renamed(texts, random.Random(2))
        for place in range(1, len(told), 2):
            listed = dict(found for text in told[:place:2] for found in LISTED.findall(text))
            match parse_action(told[place], "tag", max_calls=1):
                case Calls((Expand(paper_id),)):
                    assert paper_id in listed
                case Calls((Search(query),)):
                    read = [told[0], *listed.values()]
                    assert any(set(query.split()) <= set(re.findall(r"\w+", text)) for text in read)
                case other:
                    assert other == Stop()


def test_names_depend_on_the_generator_alone(episodes):
    assert_told_alike(episodes[0], lambda rng: renamed(episodes[0], rng))


def test_no_word_stands_in_two_lists():
    words = [word for words in word_lists() for word in words]
    assert len(set(words)) == len(words)


def test_the_clumsy_expert_slips_and_finds_most_all_the_same():
    env = PaperSearchEnv(expert="clumsy", context="append", abstract_words=0, listed_papers=3)
    infos, slips, steps = play_with_slips(env, env.task_ids[:24])
    recalls = [info["metrics"]["recall"] for info in infos]
    assert sum(recalls) / len(recalls) > 0.8
    assert 0 < slips < 2 * WRONG * steps
