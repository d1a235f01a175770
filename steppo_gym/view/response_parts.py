"""A response as a reader wants it: the thought, and what was done."""

from __future__ import annotations

import re

_THOUGHT = re.compile(r"<think>(.*?)(?:</think>|\Z)", re.DOTALL)
_CLOSING = re.compile(r"</([A-Za-z_][\w-]{0,40})>")


def split_response(response: str) -> tuple[str, str]:
    """Thought and action of a response.

    The thought is what stands in <think> tags, or before a </think> whose beginning the prompt had. The action is what
    stands in the only tag after it; where there is none, or several as with several calls, it is all that is left.
    """
    opened = _THOUGHT.search(response)
    if opened:
        thought, rest = opened.group(1), response[: opened.start()] + response[opened.end() :]
    else:
        before, ended, after = response.partition("</think>")
        thought, rest = (before, after) if ended else ("", response)
    names = _CLOSING.findall(rest)
    if len(names) == 1:
        _, tag, inside = rest.partition(f"</{names[0]}>")[0].partition(f"<{names[0]}>")
        rest = inside if tag else rest
    return thought.strip(), rest.strip()
