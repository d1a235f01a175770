"""From the pool of papers to the text of an observation.

Scores are shown, and rank the list, only where they are no answers of the data (`by_score`).

With `context="append"` an observation is the question, and later what each call brought. With `context="rebuilt"` it is
a complete prompt: question, calls so far, the best papers that were expanded and the best that were not. Abstracts are
cut so that all papers together stay within `PROMPT_CHARS`; question, instructions, ids and titles are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from steppo_gym.actions import ActionFormat
from steppo_gym.envs.paper_search.actions import MAX_ID_CHARS, Calls, Expand, Search, Stop, format_action
from steppo_gym.envs.paper_search.pool import Entry, Outcome, PaperPool
from steppo_gym.envs.paper_search.reward import PaperSearchProtocol
from steppo_gym.quoting import one_line, shared_limit

PROMPT_CHARS = 24_000
"""Longest list of papers in an observation."""
_TITLE_CHARS = 300
_QUERY_CHARS = 200
_SHOWN_CALLS = 40
_SHOWN_PROBLEMS = 3

_SYSTEM = """\
You look for scientific papers that answer a research question. A search finds papers by the words of their titles and \
abstracts. Expanding a paper of the list gets the papers that it cites and those that cite it, among which are answers \
that no search finds. Do not search for the same words twice, and do not expand a paper twice. When the papers found \
are enough, finish. First reason between <think> and </think>. {format}"""

_PROMPT = """\
Question: {question}

Calls so far:
{calls}

Papers found:
{papers}
{problems}
{steps_left} First reason between <think> and </think>: which papers answer the question, and where may others be? \
{format}"""

_SCORED = "The best of {count} by [id] (relevance); [EXP] was expanded, [NEW] was not."
_UNSCORED = "The newest of {count} by [id]; [EXP] was expanded, [NEW] was not."
STOPPED = "The papers found are noted."


def system_prompt(action_format: ActionFormat, max_calls: int) -> str:
    """What the agent is told before the first observation."""
    return _SYSTEM.format(format=_how_to(action_format, max_calls))


def first_feedback(question: str) -> str:
    """The question."""
    return f"Question: {question}"


def calls_feedback(
    outcomes: Sequence[Outcome], pool: PaperPool, protocol: PaperSearchProtocol, *, by_score: bool
) -> str:
    """What the calls of one step brought.

    Args:
        outcomes: of the calls, which are the pool's last.
        pool: after the calls.
        protocol: how many papers of each call are shown.
        by_score: whether their scores are shown and rank them.
    """
    first = len(pool.outcomes) - len(outcomes)
    brought = _brought(pool, by_score=by_score)[first:]
    shown = [entries[: protocol.listed_papers] for entries in brought]
    # All together stay within the budget.
    entries_shown = [entry for entries in shown for entry in entries]
    texts = iter(paper_lines(entries_shown, protocol.abstract_words, by_score=by_score))
    lines = []
    for outcome, entries, best in zip(outcomes, brought, shown, strict=True):
        lines.append(call_line(outcome))
        lines += [next(texts) for _ in best]
        if len(entries) > len(best):
            lines.append(f"and {len(entries) - len(best)} more")
    return "\n".join(lines)


def invalid_feedback(reason: str, action_format: ActionFormat, max_calls: int) -> str:
    """What the agent reads after a response that was not understood."""
    return f"Your response was not understood. {reason} {_how_to(action_format, max_calls)}"


def rebuilt_prompt(
    *,
    question: str,
    pool: PaperPool,
    problems: Sequence[str],
    steps_left: int,
    action_format: ActionFormat,
    protocol: PaperSearchProtocol,
    by_score: bool,
) -> str:
    """A complete prompt for the current state.

    Args:
        question: in full.
        pool: papers and calls so far.
        problems: why earlier responses were invalid, oldest first.
        steps_left: with the one to come.
        action_format: how to call.
        protocol: how many papers are shown.
        by_score: whether their scores are shown and rank them.
    """
    listed = shown_papers(pool, protocol.listed_papers, by_score=by_score)
    legend = (_SCORED if by_score else _UNSCORED).format(count=len(pool.entries))
    papers = [legend, *paper_lines(listed, protocol.abstract_words, by_score=by_score)]
    problem_lines = "".join(f"- {problem}\n" for problem in problems[-_SHOWN_PROBLEMS:])
    return _PROMPT.format(
        question=question,
        calls="\n".join(call_line(outcome) for outcome in pool.outcomes[-_SHOWN_CALLS:]) or "none",
        papers="\n".join(papers) if listed else "none",
        problems=f"\nResponses that were not understood:\n{problem_lines}" if problem_lines else "",
        steps_left=f"Steps left: {steps_left}." if steps_left != 1 else "This is the last step.",
        format=_how_to(action_format, protocol.max_calls),
    )


def shown_papers(pool: PaperPool, listed: int, *, by_score: bool) -> list[Entry]:
    """The first expanded papers and the first others, up to `listed` of each, in one order."""
    ranked = pool.listed(by_score=by_score)
    expanded = [entry for entry in ranked if entry.expanded][:listed]
    others = [entry for entry in ranked if not entry.expanded][:listed]
    chosen = {entry.paper.paper_id for entry in (*expanded, *others)}
    return [entry for entry in ranked if entry.paper.paper_id in chosen]


def reported_papers(pool: PaperPool, listed: int, *, by_score: bool) -> list[Entry]:
    """All papers that `calls_feedback` has shown so far, those of the newest call first."""
    return [entry for entries in reversed(_brought(pool, by_score=by_score)) for entry in entries[:listed]]


def call_line(outcome: Outcome) -> str:
    """A call and what came of it."""
    match outcome.call:
        case Search(query):
            call = f"[Search] {one_line(query, _QUERY_CHARS)}"
        case Expand(paper_id):
            call = f"[Expand] {one_line(paper_id, _QUERY_CHARS)}"
    if outcome.problem:
        return f"{call}: {outcome.problem}"
    return f"{call}: {outcome.num_new or 'no'} new paper{'' if outcome.num_new == 1 else 's'}"


def paper_lines(entries: Sequence[Entry], abstract_words: int, *, by_score: bool) -> list[str]:
    """A text for each paper: id, relevance, whether it was expanded, title, and its abstract on the next line.

    Args:
        entries: papers to show.
        abstract_words: longest abstract; 0 leaves abstracts out.
        by_score: whether the relevance is shown.
    """
    heads = [_head(entry, by_score=by_score) for entry in entries]
    abstracts = [_first_words(entry.paper.abstract, abstract_words) for entry in entries]
    limit = shared_limit([len(abstract) for abstract in abstracts], PROMPT_CHARS - sum(map(len, heads)))
    bodies = [one_line(abstract, limit) if limit > len("...") else "" for abstract in abstracts]
    return [f"{head}\n{body}" if body else head for head, body in zip(heads, bodies, strict=True)]


def _brought(pool: PaperPool, *, by_score: bool) -> list[list[Entry]]:
    """The papers that each call brought, in the order in which they are shown."""
    brought: list[list[Entry]] = [[] for _ in pool.outcomes]
    for entry in pool.listed(by_score=by_score):
        brought[entry.call].append(entry)
    return brought


def _head(entry: Entry, *, by_score: bool) -> str:
    paper_id, title = one_line(entry.paper.paper_id, MAX_ID_CHARS), one_line(entry.paper.title, _TITLE_CHARS)
    score = f"({entry.score:.2f}) " if by_score else ""
    return f"[{paper_id}] {score}[{'EXP' if entry.expanded else 'NEW'}] {title}"


def _first_words(text: str, count: int) -> str:
    words = text.split(maxsplit=min(count, len(text)))
    return " ".join(words) if len(words) <= count else " ".join([*words[:count], "..."]) if count else ""


def _how_to(action_format: ActionFormat, max_calls: int) -> str:
    search, expand = (format_action(Calls((call,)), action_format) for call in (Search("graph pruning"), Expand("ID")))
    calls = f"up to {max_calls} calls in a response" if max_calls > 1 else "one call in a response"
    return (
        f"To search, write {search}. To expand a paper of the list, write {expand} with its id; {calls}. "
        f"To finish, write {format_action(Stop(), action_format)} alone."
    )
