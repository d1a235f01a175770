"""Scorers that say how relevant papers are to a question; the scores are rewards and rank the result.

    GoldMembership().scores(query, papers)                      # the answers of the data; needs no model
    LexicalRelevance().scores(query, papers)                    # by words in common
    Selector("http://127.0.0.1:8000").scores(query, papers)     # a classifier behind vLLM's /classify

Gold membership is for rewards and metrics. What the agent sees does not depend on it, unless `show_gold` says so.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from steppo_gym.envs.paper_search.paper_ids import canonical_id
from steppo_gym.envs.paper_search.papers import Paper, Query
from steppo_gym.retrieval.analysis import TITLE_WEIGHT, terms
from steppo_gym.storage.retrying_client import STEP_WAIT_SECONDS, RetryingClient, UnreadableAnswerError, shorten

OTHER_PAPER = 0.01
"""Gold membership of a paper that is no answer: just admitted to the pool, because it may lead to one."""

SELECTOR_PROMPT = """\
Decide whether a paper answers a research question. It must meet every condition of the question.

Question: {query}

Title: {title}
Abstract: {abstract}

Decision (True or False):"""
"""The default; a selector that was trained on other words needs those."""

_FIELD = re.compile(r"\{(query|title|abstract)\}")
_MAX_ABSTRACT_CHARS = 8000
_MAX_TITLE_CHARS = 500
_BATCH = 32
_REMEMBERED = 50_000

_QUESTION_WORDS = frozenset(
    terms(
        "any about address adopt article articles be been can could discuss discussed do does explore field find focus "
        "focused give has have how i idea ideas know list literature me mention method methods name need paper papers "
        "please present propose proposed provide publication publications reference references related relevant "
        "research resource resources show some studied studies study suggest tell through use used using utilize want "
        "were what where which who work works would you your"
    )
)


class Relevance(Protocol):
    """Scores papers for a question."""

    @property
    def name(self) -> str:
        """What the scorer is called in the metrics."""
        ...

    def scores(self, query: Query, papers: Sequence[Paper]) -> list[float]:
        """Relevance of each paper, from 0 to 1, in their order; the same for the same question and paper."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class GoldMembership:
    """1 for the answers of the question, `OTHER_PAPER` for all others."""

    name = "gold"

    def scores(self, query: Query, papers: Sequence[Paper]) -> list[float]:
        """See `Relevance`."""
        answers = {canonical_id(answer) for answer in query.answers}
        return [1.0 if canonical_id(paper.paper_id) in answers else OTHER_PAPER for paper in papers]

    def close(self) -> None:
        """Nothing to release."""


class LexicalRelevance:
    """The chance that a paper is an answer, by the share of the question's words that it has.

    Each distinct term of the question is worth f / (f + k1 * (1 - b + b * length / average)), which is BM25's term
    weight (k1 = 0.9, b = 0.4) without the rarity of the term: no corpus is known here. f counts the title three times.
    The share is the mean over the terms, and the score 1 / (1 + exp(-slope * (share - middle))). Slope and middle are
    those of a logistic regression on the SPAR bench, all pairs of its 50 questions and 524 papers, 2 % of which are
    answers. Words that only ask, such as "papers" or "propose", do not count.
    """

    name = "lexical"

    K1 = 0.9
    B = 0.4
    AVERAGE_TERMS = 140.0
    """Terms of a title, three times, and an abstract."""
    SLOPE = 15.7
    MIDDLE = 0.433

    def scores(self, query: Query, papers: Sequence[Paper]) -> list[float]:
        """See `Relevance`."""
        wanted = list(dict.fromkeys(terms(query.text)))
        wanted = [term for term in wanted if term not in _QUESTION_WORDS] or wanted
        return [1 / (1 + math.exp(-self.SLOPE * (self.share(wanted, paper) - self.MIDDLE))) for paper in papers]

    def share(self, wanted: Sequence[str], paper: Paper) -> float:
        """How many of the terms a paper has, by their weights; from 0 to 1."""
        counts = Counter(TITLE_WEIGHT * terms(paper.title) + terms(paper.abstract))
        if not wanted or not counts:
            return 0.0
        length = self.K1 * (1 - self.B + self.B * counts.total() / self.AVERAGE_TERMS)
        return math.fsum(counts[term] / (counts[term] + length) for term in wanted) / len(wanted)

    def close(self) -> None:
        """Nothing to release."""


RELEVANCES: dict[str, type[GoldMembership] | type[LexicalRelevance]] = {
    scorer.name: scorer for scorer in (GoldMembership, LexicalRelevance)
}


class Selector:
    """A classifier behind a server with vLLM's `/classify`, whose last class is "no": the score is 1 - p(last class).

    What it has said is remembered, the newest 50,000 answers, so that asking again costs nothing.

    Args:
        base_url: where the server is, with or without the final "/classify".
        model: sent along where a server has several.
        prompt: with the fields {query}, {title} and {abstract}.
        timeout: seconds to wait for one answer.
        max_retries: how often a request is sent again.

    Raises:
        ValueError: an argument outside its range.
    """

    name = "selector"

    def __init__(
        self,
        base_url: str,
        *,
        model: str | None = None,
        prompt: str = SELECTOR_PROMPT,
        timeout: float = 10.0,
        max_retries: int = 3,
    ) -> None:
        missing = [name for name in ("query", "title", "abstract") if f"{{{name}}}" not in prompt]
        if missing:
            raise ValueError(
                f"The prompt must have the fields {{query}}, {{title}} and {{abstract}}, misses {missing}."
            )
        self.url = base_url.rstrip("/").removesuffix("/classify") + "/classify"
        self._model, self._prompt = model, prompt
        self._known: dict[tuple[str, str], float] = {}
        self._client = RetryingClient(
            self.url,
            "search",
            timeout=timeout,
            max_retries=max_retries,
            max_concurrency=16,
            max_wait=STEP_WAIT_SECONDS,
        )

    def scores(self, query: Query, papers: Sequence[Paper]) -> list[float]:
        """See `Relevance`.

        Raises:
            InfrastructureError: the server refused the request, or gave no good answer; boundary "search".
        """
        known = {paper.paper_id: self._known.get((query.text, paper.paper_id)) for paper in papers}
        new = [paper for paper in papers if known[paper.paper_id] is None]
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            body: dict[str, Any] = {"input": [self.prompt(query, paper) for paper in batch]}
            if self._model is not None:
                body["model"] = self._model
            scores = self._client.post(body, partial(read_classes, num_inputs=len(batch)))
            for paper, score in zip(batch, scores, strict=True):
                known[paper.paper_id] = self._known[query.text, paper.paper_id] = score
        while len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]
        return [known[paper.paper_id] or 0.0 for paper in papers]

    def prompt(self, query: Query, paper: Paper) -> str:
        """What the classifier reads about a paper."""
        fields = {
            "query": query.text,
            "title": paper.title[:_MAX_TITLE_CHARS],
            "abstract": paper.abstract[:_MAX_ABSTRACT_CHARS],
        }
        # Not str.format: a prompt may hold other braces.
        return _FIELD.sub(lambda found: fields[found[1]], self._prompt)

    def close(self) -> None:
        """Close the connections; a second call changes nothing."""
        self._client.close()


def read_classes(text: str, *, num_inputs: int) -> list[float]:
    """The scores in an answer of `/classify`, in the order of the inputs.

    Raises:
        UnreadableAnswerError: it is none, or the probabilities are no probabilities.
    """
    try:
        entries = json.loads(text)["data"]
        ordered = sorted(entries, key=lambda entry: entry.get("index", 0)) if len(entries) > 1 else entries
        scores = [1.0 - float(entry["probs"][-1]) for entry in ordered]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise UnreadableAnswerError(
            f"expected {{'data': [{{'probs': [..]}}]}}, found {shorten(text)} ({type(error).__name__})"
        ) from error
    if len(scores) != num_inputs:
        raise UnreadableAnswerError(f"expected {num_inputs} classifications, found {len(scores)}")
    wrong = [score for score in scores if not 0.0 <= score <= 1.0]
    if wrong:
        raise UnreadableAnswerError(f"expected probabilities from 0 to 1, found 1 - p = {wrong[0]}")
    return scores


def open_relevance(relevance: str) -> Relevance:
    """The scorer of this name, or a `Selector` at this address.

    Raises:
        ValueError: neither.
    """
    if str(relevance).startswith(("http://", "https://")):
        return Selector(relevance)
    if relevance not in tuple(RELEVANCES):
        names = ", ".join(map(repr, RELEVANCES))
        raise ValueError(f"relevance must be one of {names} or the http address of a classifier, got {relevance!r}.")
    return RELEVANCES[relevance]()
