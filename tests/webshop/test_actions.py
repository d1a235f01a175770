"""Responses to searches and clicks: the official grammar, against the official expression."""

from __future__ import annotations

import random
import re
import time

import pytest

from steppo_gym.actions import Invalid, format_tag, format_tool_call
from steppo_gym.envs.webshop.actions import (
    MAX_COMMAND_CHARS,
    Click,
    Ignored,
    Search,
    command_text,
    format_command,
    parse_action,
    parse_command,
    tool_schemas,
)


def official(text):
    """What the official code does with a command."""
    match = re.match(r"(.+)\[(.+)\]", text)
    if match is None or match[1] not in ("search", "click"):
        return None
    return (Search if match[1] == "search" else Click)(match[2].lower())


def test_the_grammar_is_the_official_one():
    rng = random.Random(0)
    pieces = ("search", "click", "Search", "[", "]", "[", "]", "a", " ", "\n", "\r", "\x85", "É", "B01", "< prev")
    actions = 0
    for _ in range(20_000):
        text = rng.choice(("", "search", "click", "search[")) + "".join(rng.choices(pieces, k=rng.randrange(8)))
        found, expected = parse_command(text), official(text)
        assert found == expected if expected else isinstance(found, Ignored), text
        actions += expected is not None
    assert actions > 1000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("search[a] extra]", Search("a] extra")),
        ("click[Buy Now]", Click("buy now")),
        ("click[B01HQTWL6S] and more", Click("b01hqtwl6s")),
        ("search[ red  lamp ]", Search(" red  lamp ")),
        ("search[a]\nclick[b]", Search("a")),
    ],
)
def test_commands(text, expected):
    assert parse_command(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "search", "search[]", "SEARCH[a]", "search [a]", "I search[a]", "search[a[b]", "[a]", "search[a\n]", "]["],
)
def test_what_is_no_command_says_so(text):
    assert "Expected search[words] or click[label]" in parse_command(text).reason


def test_long_commands_are_refused_and_brackets_take_no_time():
    started = time.process_time()
    assert "at most 2000" in parse_command("search[" + "a" * MAX_COMMAND_CHARS + "]").reason
    assert isinstance(parse_action(format_tag("action", "[" * 190_000), "tag"), Ignored)
    assert isinstance(parse_action(format_tag("action", "[" * 190_000), "tag", first_tag=True), Ignored)
    assert isinstance(parse_action(format_tag("action", "[" * 210_000), "tag", first_tag=True), Invalid)
    assert isinstance(parse_command("[" * MAX_COMMAND_CHARS), Ignored)
    assert time.process_time() - started < 1


@pytest.mark.parametrize("action_format", ["tag", "tool_call"])
@pytest.mark.parametrize("action", [Search("red lamp"), Click("< prev"), Click("a | b"), Search('a "b"')])
def test_formats_are_read_back(action, action_format):
    response = "<think>search[x]</think>" + format_command(command_text(action), action_format)
    assert parse_action(response, action_format) == action


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("search[a]", "Expected exactly one <tool_call>"),
        (format_tool_call("search", {"command": "a"}), "Expected a call of env_step, found 'search'"),
        (format_tool_call("env_step", {"words": "a"}), 'Expected the single argument "command"'),
        (format_tool_call("env_step", {"command": ["search[a]"]}), 'Expected the single argument "command"'),
        (format_tool_call("env_step", {"command": "  "}), 'Expected text as the argument "command"'),
        (2 * format_tool_call("env_step", {"command": "search[a]"}), "Expected exactly one <tool_call>"),
        ("<tool_call>{env_step}</tool_call>", "Expected JSON"),
    ],
)
def test_bad_tool_calls(response, reason):
    found = parse_action(response, "tool_call")
    assert isinstance(found, Invalid) and reason in found.reason


def verl_agent(response):
    """What verl-agent's projection and the official grammar make of a response; None where there are no tags."""
    lowered = response.lower()
    start, end = lowered.find("<action>"), lowered.find("</action>")
    if start == -1 or end == -1:
        return None
    return official(lowered[start + 8 : end].strip()) or Ignored


def test_the_first_tag_is_read_as_by_verl_agent():
    rng = random.Random(0)
    pieces = (
        "<action>",
        "</action>",
        "<ACTION>",
        "</Action>",
        "search[a]",
        "Click[B]",
        "<think>",
        "</think>",
        "x",
        "]",
    )
    kinds = set()
    for _ in range(20_000):
        response = "".join(rng.choices(pieces, k=rng.randrange(10)))
        found = parse_action(response, "tag", folds_case=True, first_tag=True)
        expected = verl_agent(response)
        if expected is None:
            assert isinstance(found, Invalid), response
        elif expected is Ignored:
            assert isinstance(found, Ignored), response
        else:
            assert found == expected, response
        kinds.add(type(found))
    assert kinds == {Invalid, Ignored, Search, Click}


def test_case_is_folded_where_the_recipe_folds_it():
    for response in (
        format_tag("action", "Search[Shoe]"),
        "<think>CLICK[a]</think>" + format_tag("action", "SEARCH[shoe]"),
    ):
        assert isinstance(parse_action(response, "tag"), Ignored)
        assert parse_action(response, "tag", folds_case=True) == Search("shoe")


def test_the_tool_takes_the_command():
    (tool,) = tool_schemas()
    assert tool["function"]["parameters"]["required"] == ["command"]
    assert parse_action(format_tool_call("env_step", {"command": " click[a] "}), "tool_call") == Click("a")
