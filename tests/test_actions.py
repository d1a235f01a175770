import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steppo_gym import Call, Invalid
from steppo_gym.actions import (
    MAX_RESPONSE_CHARS,
    after_thought,
    format_tag,
    format_thought,
    format_tool_call,
    parse_tag,
    parse_tool_calls,
)
from steppo_gym.testing.adversarial_texts import adversarial_texts

WORDS = st.text(st.characters(exclude_characters="<", exclude_categories=("Cs",)), min_size=1).filter(str.strip)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MARKUP = st.lists(
    st.sampled_from(
        [
            "<action>",
            "</action>",
            "<think>",
            "</think>",
            "<tool_call>",
            "</tool_call>",
            "{",
            "}",
            '"name"',
            ":",
            "[",
            " a ",
        ]
    )
).map("".join)


@given(WORDS)
def test_tag_round_trip(text):
    assert parse_tag(format_tag("action", text), ("action",)) == Call("action", {"text": text.strip()})


@given(st.text(), st.dictionaries(st.text(), JSON, max_size=3))
@example("a</tool_call>", {"</think>": "</tool_call><tool_call>"})
def test_tool_call_round_trip(name, arguments):
    response = "<think>so</think>" + format_tool_call(name, arguments)
    assert parse_tool_calls(response) == (Call(name, arguments),)


@given(st.text() | MARKUP, WORDS)
@example("", "open fridge 1")
@example("</think><action>one</action>", "another")
def test_no_parser_reads_a_thought(said, text):
    action = format_tag("action", text)
    response = format_thought(said) + action
    assert after_thought(response) == action
    assert parse_tag(response, ("action",)) == parse_tag(action, ("action",))
    assert response.startswith("<think>") == bool(said)


@given(st.text() | MARKUP)
def test_parsing_never_raises(text):
    for response in (text, format_tag("action", text), f"<tool_call>{text}</tool_call>"):
        assert isinstance(parse_tag(response, ("action", "answer")), Call | Invalid)
        assert isinstance(parse_tool_calls(response, max_calls=3), tuple | Invalid)


@pytest.mark.parametrize("label", dict(adversarial_texts("action", "act", "command")))
def test_adversarial_texts_are_parsed_in_no_time(label):
    text = dict(adversarial_texts("action", "act", "command"))[label]
    start = time.process_time()
    parse_tag(text, ("action",))
    parse_tool_calls(text)
    parse_tag(text[:MAX_RESPONSE_CHARS], ("action",))
    parse_tool_calls(text[:MAX_RESPONSE_CHARS], max_calls=1_000_000)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("", "Expected exactly one <search>...</search> or <answer>...</answer>, found 0."),
        ("<search>a</search><answer>b</answer>", "found 2."),
        ("<answer>a</answer> or <answer>b</answer>", "found 2."),
        ("<answer>a", "found 0."),
        ("a</answer><answer>", "found 0."),
        ("<Answer>a</Answer>", "found 0."),
        ("<answer> \n</answer>", "Expected text between <answer> and </answer>, found nothing."),
        ("<think><answer>a</answer></think>", "found 0."),
        ("a" * (MAX_RESPONSE_CHARS + 1), "at most 200000 characters, found 200001."),
    ],
)
def test_invalid_tags(response, reason):
    found = parse_tag(response, ("search", "answer"))
    assert isinstance(found, Invalid)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("response", "text"),
    [
        ("<think>not <answer>this</answer></think> <answer> a  b\n</answer> and so on", "a  b"),
        ("<think>1</think><think>2</think><answer>a</answer>", "a"),
        ("<think>never closed <answer>a</answer>", "a"),
        ("<answer><answer>a</answer></answer>", "<answer>a"),
        ("<answer>1 < 2 <b></answer>", "1 < 2 <b>"),
    ],
)
def test_valid_tags(response, text):
    assert parse_tag(response, ("search", "answer")) == Call("answer", {"text": text})


def call(text):
    return f"<tool_call>{text}</tool_call>"


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("no call", "Expected exactly one <tool_call>"),
        (call('{"name": "a"}') * 2, "found 2."),
        (call("name: a"), "text that is not JSON"),
        (call("[" * 100_000), "text that is not JSON"),
        (call("1" * 100_000), "text that is not JSON"),
        (call("[]"), 'Expected an object with "name" (text)'),
        (call('{"name": 3}'), 'Expected an object with "name" (text)'),
        (call('{"arguments": {}}'), 'Expected an object with "name" (text)'),
        (call('{"name": "a", "arguments": [1]}'), 'Expected "arguments" to be an object'),
        ("a" * (MAX_RESPONSE_CHARS + 1), "at most 200000 characters, found 200001."),
    ],
)
def test_invalid_tool_calls(response, reason):
    found = parse_tool_calls(response)
    assert isinstance(found, Invalid)
    assert reason in found.reason


def test_several_tool_calls_up_to_the_limit():
    calls = [Call("search", {"query": str(number)}) for number in range(3)]
    response = "\n".join(format_tool_call(call.name, call.arguments) for call in calls)
    assert parse_tool_calls(response, max_calls=3) == tuple(calls)
    assert parse_tool_calls(response, max_calls=4) == tuple(calls)
    found = parse_tool_calls(response, max_calls=2)
    assert isinstance(found, Invalid)
    assert "Expected 1 to 2 <tool_call>" in found.reason


def test_one_bad_call_makes_the_response_invalid():
    assert isinstance(parse_tool_calls(format_tool_call("a", {}) + call("x"), max_calls=2), Invalid)


def test_arguments_may_be_left_out():
    assert parse_tool_calls(call('{"name": "stop"}')) == (Call("stop", {}),)


def test_a_reason_never_repeats_what_was_written():
    """Else an agent could put any text, and characters that no observation may hold, into the next observation."""
    for _, text in adversarial_texts("action", "act", "command"):
        for found in (parse_tag(text, ("action",)), parse_tool_calls(text)):
            if isinstance(found, Invalid):
                assert len(found.reason) < 200
                assert found.reason.isprintable()
                assert json.loads(json.dumps(found.reason)) == found.reason
