"""From responses to calls and to the end."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.actions import ACTION_FORMATS, Invalid, format_tool_call
from steppo_gym.envs.paper_search.actions import (
    MAX_ID_CHARS,
    MAX_QUERY_CHARS,
    Calls,
    Expand,
    Search,
    Stop,
    format_action,
    parse_action,
    tool_schemas,
)
from steppo_gym.quoting import one_line
from steppo_gym.testing.adversarial_texts import adversarial_texts


def parse(response, action_format="tag", **changes):
    return parse_action(response, action_format, **{"max_calls": 5, **changes})


def tool_calls(*calls):
    argument = {"search": "query", "expand": "paper_id"}
    return "".join(format_tool_call(name, {argument[name]: text}) for name, text in calls)


def test_tags_in_their_order():
    assert parse("<search> graph\n pruning </search>") == Calls((Search("graph pruning"),))
    assert parse("<expand>b</expand> and <search>c</search><expand> d </expand>") == Calls(
        (Expand("b"), Search("c"), Expand("d"))
    )
    # Within a thought nothing counts.
    assert parse("<think><answer>a</answer></think><search>b</search>") == Calls((Search("b"),))


def test_tool_calls_in_their_order():
    response = tool_calls(("search", "a"), ("expand", "b"), ("search", "c d"))
    assert parse(response, "tool_call") == Calls((Search("a"), Expand("b"), Search("c d")))


@pytest.mark.parametrize(
    ("text", "paper_id"),
    [
        ("2401.01234v2", "2401.01234"),
        ("2401.01234", "2401.01234"),
        ("cs/0112017v1", "cs/0112017"),
        ("conv/1", "conv/1"),
        ("204e3073870fae3d05bcbc2f6a8e263d9b72e776", "204e3073870fae3d05bcbc2f6a8e263d9b72e776"),
    ],
)
@pytest.mark.parametrize("action_format", ACTION_FORMATS)
def test_versions_of_ids_do_not_matter(text, paper_id, action_format):
    response = f"<expand> {text} </expand>" if action_format == "tag" else tool_calls(("expand", text))
    assert parse(response, action_format) == Calls((Expand(paper_id),))


@pytest.mark.parametrize("action_format", ACTION_FORMATS)
@pytest.mark.parametrize(
    "response", ["<answer>done</answer>", "<think>so</think> <answer></answer>", "<answer>a\nb</answer>"]
)
def test_an_answer_stops(response, action_format):
    assert parse(response, action_format) == Stop()


@pytest.mark.parametrize(
    ("response", "action_format", "reason"),
    [
        ("I am done.", "tag", "Expected 1 to 5 calls <search>...</search> or <expand>...</expand>, found 0."),
        ("", "tag", "found 0"),
        ("<search>a</search><answer>b</answer>", "tag", "Expected either calls or one <answer>, found 2 tags."),
        ("<answer>a</answer><answer>b</answer>", "tag", "Expected either calls or one <answer>, found 2 tags."),
        (
            "<search>a</search>" * 6,
            "tag",
            "Expected 1 to 5 calls <search>...</search> or <expand>...</expand>, found 6.",
        ),
        ("<search> </search>", "tag", "Expected text to search, found nothing."),
        ("<search>a</search><expand>\x00</expand>", "tag", "Expected text to expand, found nothing."),
        ("<search>a", "tag", "Expected </search> after <search>, found none."),
        ("<search>a<expand>b</expand>", "tag", "Expected </search> after <search>, found none."),
        ("<search>a<search>b</search>", "tag", "found <search> inside <search>."),
        (f"<search>{'a' * (MAX_QUERY_CHARS + 1)}</search>", "tag", "at most 1000 characters to search, found 1001."),
        (f"<expand>{'a' * (MAX_ID_CHARS + 1)}</expand>", "tag", "at most 500 characters to expand, found 501."),
        (tool_calls(("search", "a")), "tag", "found 0"),
        ("I am done.", "tool_call", 'Expected 1 to 5 <tool_call>{"name": .., "arguments": ..}</tool_call>, found 0.'),
        ("<search>a</search>", "tool_call", "found 0"),
        ("<tool_call>", "tool_call", "found 0"),
        (
            tool_calls(("search", "a")) + "<answer>b</answer>",
            "tool_call",
            "Expected either calls or <answer>, found both.",
        ),
        (tool_calls(*[("search", "a")] * 6), "tool_call", "Expected 1 to 5"),
        ("<tool_call>search a</tool_call>", "tool_call", "found text that is not JSON"),
        (format_tool_call("look", {"query": "a"}), "tool_call", 'calls of "search" or "expand", found \'look\'.'),
        (format_tool_call("search", {"paper_id": "a"}), "tool_call", 'the single argument "query" of "search"'),
        (format_tool_call("expand", {"paper_id": 7}), "tool_call", 'the single argument "paper_id" of "expand"'),
        (format_tool_call("expand", {"paper_id": "a", "x": 1}), "tool_call", "found ['paper_id', 'x']"),
        (tool_calls(("search", "a"), ("search", " ")), "tool_call", "Expected text to search, found nothing."),
        ("a" * 200_001, "tag", "Expected a response of at most 200000 characters, found 200001."),
    ],
)
def test_what_is_no_action_gets_a_reason(response, action_format, reason):
    found = parse(response, action_format)
    assert isinstance(found, Invalid)
    assert reason in found.reason
    # A call that was tried is no end, whatever text may be one.
    if "<" in response:
        assert parse(response, action_format, any_text_stops=True) == found


@pytest.mark.parametrize("action_format", ACTION_FORMATS)
@pytest.mark.parametrize(
    ("response", "stops"),
    [
        ("I am done.", True),
        ("", True),
        ("<think><search>a</search></think> These will do, as 1 < 2.", True),
        ("<answer>done</answer>", True),
        ("<search a", False),
        ("</ SEARCH>", False),
        ("<Tool_Call>", False),
    ],
)
def test_any_text_may_stop_unless_a_call_was_tried(response, stops, action_format):
    assert (parse(response, action_format, any_text_stops=True) == Stop()) == stops


def test_fewer_calls_may_be_allowed():
    assert parse("<search>a</search>", max_calls=1) == Calls((Search("a"),))
    assert isinstance(parse("<search>a</search><search>b</search>", max_calls=1), Invalid)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="<>"), min_size=1)
CALLS = st.lists(st.builds(Search, WORDS) | st.builds(Expand, st.from_regex(r"[a-z]{1,9}", fullmatch=True)), min_size=1)


@given(calls=CALLS, action_format=st.sampled_from(ACTION_FORMATS))
def test_what_is_written_is_read_back(calls, action_format):
    action = Calls(tuple(calls))
    assert parse(format_action(action, action_format), action_format, max_calls=len(calls)) == action
    assert parse(format_action(Stop(), action_format), action_format) == Stop()


@given(st.text(), st.sampled_from(ACTION_FORMATS), st.booleans())
def test_any_text_is_read(text, action_format, any_text_stops):
    wrapped = [f"<{name}>{text}</{name}>" for name in ("search", "expand", "answer", "tool_call")]
    for response in (text, *wrapped, wrapped[0] + text + wrapped[1]):
        found = parse(response, action_format, any_text_stops=any_text_stops)
        for call in found.calls if isinstance(found, Calls) else ():
            line = call.query if isinstance(call, Search) else call.paper_id
            assert line
            assert line == one_line(line, 1000)


@pytest.mark.parametrize("tag", ["search", "expand"])
@pytest.mark.parametrize("action_format", ACTION_FORMATS)
def test_adversarial_texts_are_read_quickly(tag, action_format):
    start = time.process_time()
    for _, text in adversarial_texts(tag, tag, {"search": "query", "expand": "paper_id"}[tag]):
        parse(text, action_format)
        parse(text[:200_000], action_format, any_text_stops=True)
    assert time.process_time() - start < 5


def test_tools_name_their_arguments():
    assert [(tool["function"]["name"], tool["function"]["parameters"]["required"]) for tool in tool_schemas()] == [
        ("search", ["query"]),
        ("expand", ["paper_id"]),
    ]
