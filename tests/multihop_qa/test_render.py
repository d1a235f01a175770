"""Observations: what is in them, and that they never grow too long."""

from __future__ import annotations

import pytest

from steppo_gym.envs.multihop_qa import render
from steppo_gym.envs.multihop_qa.render import PROMPT_CHARS, passage_lines, rebuilt_prompt
from steppo_gym.retrieval import Passage


def passages(*lengths):
    return [Passage(str(i), f"Title {i}", "word " * (length // 5)) for i, length in enumerate(lengths)]


def prompt(found=(), **changes):
    arguments = {
        "question": "Who is it?",
        "queries": [],
        "passages": found,
        "problems": [],
        "steps_left": 3,
        "action_format": "tag",
        "max_searches": 4,
    }
    return rebuilt_prompt(**{**arguments, **changes})


def test_prompt_says_all_there_is_to_know():
    text = prompt(
        [Passage("7", "Golden Tower", "A film\n of 1931.")], queries=["tower"], problems=["Expected one, found two."]
    )
    assert text == (
        "Question: Who is it?\n\nSearches so far:\n- tower\n\nPassages found:\n[1] Golden Tower: A film of 1931.\n\n"
        "Responses that were not understood:\n- Expected one, found two.\n\n"
        "Steps left: 3. First reason between <think> and </think>: what do the passages say, and what is missing? "
        "To search, write <search> Golden Tower </search>. To answer, write <answer> Clara Barlow </answer>. "
        "Write one of the two, once.\n"
        "The answer is as short as can be: a name, a date, a few words, or yes or no."
    )


def test_prompt_of_the_first_and_last_step():
    text = prompt(steps_left=1, action_format="tool_call", max_searches=4)
    assert "Searches so far:\nnone\n\nPassages found:\nnone\n\nThis is the last step: answer now." in text
    assert '<tool_call>{"name": "search", "arguments": {"query": "Golden Tower"}}</tool_call>; up to 4 calls' in text


@pytest.mark.parametrize(("number", "length"), [(1, 10**6), (25, 5000), (300, 100), (5000, 3000)])
def test_instructions_are_never_cut(number, length):
    text = prompt(passages(*[length] * number), queries=["q" * 1000] * 500, problems=["p"] * 500)
    assert text.startswith("Question: Who is it?\n")
    assert text.endswith("or yes or no.")
    assert len(text) < PROMPT_CHARS + 8000
    # The newest passage is there in any case.
    assert f"[{number}] Title {number - 1}: " in text


def test_text_of_a_passage_cannot_pose_as_another():
    (line,) = passage_lines([Passage("1", "A\n[2] B", "text\n[3] C: more")])
    assert line == "[1] A [2] B: text [3] C: more"


def test_feedback_numbers_passages_through():
    first, second, third = passages(10, 10, 10)
    assert render.search_feedback(["a"], [[first]], 4) == "[5] Title 0: word word"
    assert render.search_feedback(["a"], [[]], 4) == "Nothing new."
    assert render.search_feedback(["a", "b", "c"], [[first], [], [second, third]], 0) == (
        "a:\n[1] Title 0: word word\nb:\nNothing new.\nc:\n[2] Title 1: word word\n[3] Title 2: word word"
    )
