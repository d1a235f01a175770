"""From responses to searches and answers."""

from __future__ import annotations

import time

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


def parse(response, action_format="tag", max_searches=4, skips_broken=False):
    return parse_action(response, action_format, max_searches=max_searches, skips_broken=skips_broken)


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


A, B = (format_tool_call("search", {"query": query}) for query in "ab")


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (calls(*"abcdef"), Search(("a", "b", "c", "d"))),
        ("<tool_call>{not json}</tool_call>" + A + "<tool_call>[1]</tool_call>" + B, Search(("a", "b"))),
        # What cannot be read does not count towards the limit, another tool does.
        (5 * "<tool_call>{</tool_call>" + A, Search(("a",))),
        (4 * format_tool_call("look", {"query": "a"}) + B, None),
        (format_tool_call("look", {"query": "a"}) + B, Search(("b",))),
        (format_tool_call("search", {"text": "a"}) + format_tool_call("search", {"query": ""}) + B, Search(("b",))),
        (format_tool_call("search", {"query": "a", "top_k": 3}), Search(("a",))),
        (format_tool_call("wiki_search", {"query": 1912}), Search(("1912",))),
        ('<tool_call>{"name": "search", "arguments": "{\\"query\\": \\"a\\"}"}</tool_call>', Search(("a",))),
        (format_tool_call("search", {"query": "a" * (MAX_QUERY_CHARS + 1)}) + B, Search(("b",))),
        (format_tool_call("search", {"text": "a"}), None),
        # Calls come before an answer, the last answer before others.
        ("<answer>no</answer>" + A, Search(("a",))),
        ("<answer>no</answer> rather <ANSWER> yes </ANSWER>", Answer("yes")),
        ("<tool_call>{</tool_call><answer>yes</answer>", Answer("yes")),
        ("<tool_call>{</tool_call>", None),
        ("I do not know.", None),
        # Within a thought nothing counts.
        (f"<think>{A}</think><answer>yes</answer>", Answer("yes")),
    ],
)
def test_what_the_recipe_passes_over(response, expected):
    found = parse(response, "tool_call", skips_broken=True)
    assert isinstance(found, Invalid) if expected is None else found == expected


def test_many_tags_take_no_time():
    started = time.process_time()
    for piece in ("<tool_call>", "<answer>", "</tool_call>", "<tool_call></tool_call>", "<tool_call>{"):
        assert isinstance(parse(piece * (190_000 // len(piece)), "tool_call", skips_broken=True), Invalid)
    assert time.process_time() - started < 2


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<>"), min_size=1)


@given(text=WORDS, action_format=st.sampled_from(ACTION_FORMATS), answer=st.booleans())
def test_what_is_written_is_read_back(text, action_format, answer):
    action = Answer(text) if answer else Search((text,))
    assert parse(format_action(action, action_format), action_format) == action


def test_several_searches_are_read_back():
    action = Search(("a", "</search> b"))
    assert parse(format_action(action, "tool_call"), "tool_call") == action


@given(st.text(), st.sampled_from(ACTION_FORMATS), st.booleans())
def test_any_text_is_read(text, action_format, skips_broken):
    for response in (text, f"<search>{text}</search>", f"<answer>{text}</answer>", f"<tool_call>{text}</tool_call>"):
        found = parse(response, action_format, skips_broken=skips_broken)
        if isinstance(found, Search):
            assert all(query.isprintable() and query.strip() == query for query in found.queries)
