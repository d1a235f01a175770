"""From the state of a search to the text of an observation.

With `context="append"` an observation is the question with the passages of the first search, and later only what is
new. With `context="rebuilt"` it is a complete prompt. Long passages are cut so that all of it stays within
`PROMPT_CHARS`; question, instructions and titles are never cut.
"""

from __future__ import annotations

from collections.abc import Sequence

from steppo_gym.actions import ActionFormat
from steppo_gym.envs.multihop_qa.actions import SEARCH, Answer, Search, format_action
from steppo_gym.quoting import one_line, shared_limit
from steppo_gym.retrieval.retriever import Passage

PASSAGE_CHARS = 1200
"""Longest text of a passage."""
PROMPT_CHARS = 16_000
"""Longest list of passages in a prompt."""
SHORTEST_CHARS = 200
"""What a passage is cut to at most; rather than that, the oldest ones are left out."""
_TITLE_CHARS = 150
_SHOWN_SEARCHES = 20
_SHOWN_PROBLEMS = 3
_QUERY_CHARS = 200

_SYSTEM = """\
You answer questions with the help of a search engine over an encyclopaedia. A question takes several facts, and what \
one passage says tells you what to search for next. The answer is a name, a date, a few words, or yes or no, and ends \
the task. First reason between <think> and </think>. {format}"""

_PROMPT = """\
Question: {question}

Searches so far:
{searches}

Passages found:
{passages}
{problems}
{steps_left} First reason between <think> and </think>: what do the passages say, and what is missing? {format}
The answer is as short as can be: a name, a date, a few words, or yes or no."""

NOTHING_NEW = "Nothing new."
ANSWERED = "The answer is noted."


def system_prompt(action_format: ActionFormat, max_searches: int) -> str:
    """What the agent is told before the first observation."""
    return _SYSTEM.format(format=_how_to(action_format, max_searches))


def first_feedback(question: str, passages: Sequence[Passage]) -> str:
    """The question, with what the first search found if there was one."""
    return "\n".join([f"Question: {question}", *passage_lines(passages)])


def search_feedback(queries: Sequence[str], found: Sequence[Sequence[Passage]], num_before: int) -> str:
    """What searches brought.

    Args:
        queries: at least one.
        found: the new passages of each.
        num_before: passages found before.
    """
    lines = []
    # All together stay within the budget, and are numbered through.
    shown = iter(passage_lines([passage for passages in found for passage in passages], first_number=num_before + 1))
    for query, passages in zip(queries, found, strict=True):
        if len(queries) > 1:
            lines.append(f"{one_line(query, _QUERY_CHARS)}:")
        lines += [next(shown) for _ in passages] or [NOTHING_NEW]
    return "\n".join(lines)


def invalid_feedback(reason: str, action_format: ActionFormat, max_searches: int) -> str:
    """What the agent reads after a response that is neither."""
    return f"Your response was not understood. {reason} {_how_to(action_format, max_searches)}"


def rebuilt_prompt(
    *,
    question: str,
    queries: Sequence[str],
    passages: Sequence[Passage],
    problems: Sequence[str],
    steps_left: int,
    action_format: ActionFormat,
    max_searches: int,
) -> str:
    """A complete prompt for the current state.

    Args:
        question: in full.
        queries: searches so far, oldest first.
        passages: found so far, oldest first.
        problems: why earlier responses were invalid, oldest first.
        steps_left: with the one to come.
        action_format: how to answer.
        max_searches: in one response.
    """
    skipped = max(0, len(passages) - PROMPT_CHARS // (SHORTEST_CHARS + _TITLE_CHARS))
    problem_lines = "".join(f"- {problem}\n" for problem in problems[-_SHOWN_PROBLEMS:])
    return _PROMPT.format(
        question=question,
        searches="\n".join(f"- {one_line(query, _QUERY_CHARS)}" for query in queries[-_SHOWN_SEARCHES:]) or "none",
        passages="\n".join(passage_lines(passages[skipped:], first_number=skipped + 1)) or "none",
        problems=f"\nResponses that were not understood:\n{problem_lines}" if problem_lines else "",
        steps_left=f"Steps left: {steps_left}." if steps_left != 1 else "This is the last step: answer now.",
        format=_how_to(action_format, max_searches),
    )


def passage_lines(passages: Sequence[Passage], *, first_number: int = 1) -> list[str]:
    """One line for each passage, all together within `PROMPT_CHARS` unless there are very many."""
    heads = [f"[{number}] {one_line(p.title, _TITLE_CHARS)}: " for number, p in enumerate(passages, first_number)]
    texts = [" ".join(passage.text.split()) for passage in passages]
    room = max(PROMPT_CHARS - sum(map(len, heads)), SHORTEST_CHARS * len(texts))
    limit = min(PASSAGE_CHARS, shared_limit([len(text) for text in texts], room))
    return [head + one_line(text, limit) for head, text in zip(heads, texts, strict=True)]


def _how_to(action_format: ActionFormat, max_searches: int) -> str:
    search = format_action(Search(("Golden Tower",)), action_format)
    answer = format_action(Answer("Clara Barlow"), action_format)
    if action_format == "tag":
        return f"To search, write {search}. To answer, write {answer}. Write one of the two, once."
    calls = f"up to {max_searches} calls" if max_searches > 1 else "one call"
    return f"To search, call the tool {SEARCH}, for example {search}; {calls} in a response. To answer, write {answer}."
