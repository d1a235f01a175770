"""From responses to searches and answers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.actions import ACTION_FORMATS, Invalid, format_tool_call
from steppo_gym.envs.multihop_qa.actions import (
    MAX_ANSWER_CHARS,
    MAX_QUERY_CHARS,
    Answer,
    Search,
    format_action,
    parse_action,
)


def parse(response, action_format="tag", max_searches=4):
    return parse_action(response, action_format, max_searches=max_searches)


def calls(*queries):
    return "".join(format_tool_call("search", {"query": query}) for query in queries)


def test_tags():
    assert parse("<think>so</think><search> Golden\n Tower </search>") == Search(("Golden Tower",))
    assert parse("<answer> Clara  Barlow </answer>") == Answer("Clara  Barlow")
    # Within a thought nothing counts.
    assert parse("<think><answer>a</answer></think><search>b</search>") == Search(("b",))


def test_tool_calls():
    assert parse(calls("a", "b c"), "tool_call") == Search(("a", "b c"))
    assert parse("<think>so</think> <answer>yes</answer>", "tool_call") == Answer("yes")


@pytest.mark.parametrize(
    ("response", "action_format", "reason"),
    [
        ("I do not know.", "tag", "Expected exactly one <search>...</search> or <answer>...</answer>, found 0."),
        ("<search>a</search><answer>b</answer>", "tag", "found 2"),
        ("<search> </search>", "tag", "found nothing"),
        ("<search>\x00</search>", "tag", "Expected words in the query"),
        (f"<search>{'a' * (MAX_QUERY_CHARS + 1)}</search>", "tag", "at most 1000 characters, found 1001"),
        (f"<answer>{'a' * (MAX_ANSWER_CHARS + 1)}</answer>", "tag", "at most 1000 characters, found 1001"),
        ("I do not know.", "tool_call", 'found 0 and no <tool_call> of "search" either.'),
        (calls("a") + "<answer>b</answer>", "tool_call", "found both"),
        (calls(*"abcde"), "tool_call", "1 to 4"),
        (format_tool_call("look", {"query": "a"}), "tool_call", "Expected calls of \"search\", found 'look'"),
        (format_tool_call("search", {"text": "a"}), "tool_call", 'Expected the single argument "query"'),
        (format_tool_call("search", {"query": 7}), "tool_call", 'Expected the single argument "query"'),
        (calls("a", " "), "tool_call", "Expected words in the query"),
    ],
)
def test_what_is_no_action_gets_a_reason(response, action_format, reason):
    found = parse(response, action_format)
    assert isinstance(found, Invalid)
    assert reason in found.reason


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<>"), min_size=1)


@given(text=WORDS, action_format=st.sampled_from(ACTION_FORMATS), answer=st.booleans())
def test_what_is_written_is_read_back(text, action_format, answer):
    action = Answer(text) if answer else Search((text,))
    assert parse(format_action(action, action_format), action_format) == action


def test_several_searches_are_read_back():
    action = Search(("a", "</search> b"))
    assert parse(format_action(action, "tool_call"), "tool_call") == action


@given(st.text(), st.sampled_from(ACTION_FORMATS))
def test_any_text_is_read(text, action_format):
    for response in (text, f"<search>{text}</search>", f"<answer>{text}</answer>", f"<tool_call>{text}</tool_call>"):
        found = parse(response, action_format)
        if isinstance(found, Search):
            assert all(query.isprintable() and query.strip() == query for query in found.queries)
