"""Adapters whose frameworks only know growing conversations say so instead of changing what they were given."""

from __future__ import annotations

import pytest

from steppo_gym.adapters.conversation import conversation_arguments


def test_the_context_is_set_where_nothing_is_said_of_it():
    assert conversation_arguments({"split": "test"}) == {"split": "test", "context": "append"}
    given = {"context": "append", "action_format": "tool_call"}
    assert conversation_arguments(given, action_format="tool_call") == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"context": "rebuilt"}, "context is always 'append', got 'rebuilt'"),
        ({"action_format": "tag"}, "action_format is always 'tool_call', got 'tag'"),
    ],
)
def test_what_a_framework_cannot_serve_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        conversation_arguments(given, action_format="tool_call")
