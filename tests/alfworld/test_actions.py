"""From a response to a command."""

from __future__ import annotations

import json

import pytest

from steppo_gym.actions import Invalid
from steppo_gym.envs.alfworld.actions import Command, Inadmissible, format_action, parse_action

ADMISSIBLE = ("go to fridge 1", "look")


@pytest.mark.parametrize("action_format", ["tag", "tool_call"])
def test_what_is_formatted_is_read_back(action_format):
    response = format_action("go to fridge 1", action_format)
    assert parse_action(response, action_format, ADMISSIBLE) == Command("go to fridge 1")


@pytest.mark.parametrize(
    "response",
    [
        "<action> look\n</action>",
        "<think>or <action>go to fridge 1</action>?</think><action>look</action>",
        "so <action>look</action> it is",
    ],
)
def test_outer_blanks_thoughts_and_talk_do_not_matter(response):
    assert parse_action(response, "tag", ADMISSIBLE) == Command("look")


@pytest.mark.parametrize("command", ["Look", "look  around", "help", "go to  fridge 1", "go to fridge 2"])
def test_any_other_wording_is_inadmissible(command):
    parsed = parse_action(f"<action>{command}</action>", "tag", ADMISSIBLE)
    assert isinstance(parsed, Inadmissible)
    assert parsed.text == command
    assert parsed.reason.startswith("Expected one of the 2 admissible commands, found ")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("look", "Expected exactly one <action>...</action>, found 0."),
        ("<action>look</action><action>look</action>", "Expected exactly one <action>...</action>, found 2."),
        ("<action></action>", "found nothing"),
        ('<tool_call>{"name": "env_step", "arguments": {"command": "look"}}</tool_call>', "found 0"),
    ],
)
def test_no_single_tag_is_invalid(response, reason):
    parsed = parse_action(response, "tag", ADMISSIBLE)
    assert isinstance(parsed, Invalid)
    assert reason in parsed.reason


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ({"name": "act", "arguments": {"command": "look"}}, "Expected a call of env_step, found 'act'."),
        ({"name": "env_step", "arguments": {"action": "look"}}, 'Expected the single argument "command"'),
        ({"name": "env_step", "arguments": {"command": "look", "x": 1}}, 'Expected the single argument "command"'),
        ({"name": "env_step", "arguments": {"command": ["look"]}}, 'Expected the single argument "command"'),
        ({"name": "env_step", "arguments": {"command": " "}}, "found nothing"),
        ({"name": "env_step", "arguments": "look"}, '"arguments" to be an object'),
        ({"arguments": {}}, '"name"'),
    ],
)
def test_another_call_is_invalid(call, reason):
    parsed = parse_action(f"<tool_call>{json.dumps(call)}</tool_call>", "tool_call", ADMISSIBLE)
    assert isinstance(parsed, Invalid)
    assert reason in parsed.reason
