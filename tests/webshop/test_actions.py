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
        assert found == expected if expected else isinstance(found, Invalid), text
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
    started = time.perf_counter()
    assert "at most 2000" in parse_command("search[" + "a" * MAX_COMMAND_CHARS + "]").reason
    assert isinstance(parse_action(format_tag("action", "[" * 190_000), "tag"), Invalid)
    assert isinstance(parse_command("[" * MAX_COMMAND_CHARS), Invalid)
    assert time.perf_counter() - started < 1


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
        (format_tool_call("env_step", {"command": "  "}), "Expected search"),
    ],
)
def test_bad_tool_calls(response, reason):
    assert reason in parse_action(response, "tool_call").reason


def test_the_tool_takes_the_command():
    (tool,) = tool_schemas()
    assert tool["function"]["parameters"]["required"] == ["command"]
    assert parse_action(format_tool_call("env_step", {"command": " click[a] "}), "tool_call") == Click("a")
