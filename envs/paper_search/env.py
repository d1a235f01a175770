"""`steppo/PaperSearch-v0`: wires queries, papers, scores and texts together.

env = gymnasium.make("steppo/PaperSearch-v0")
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step("<search>graph pruning</search><expand>p17</expand>")
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from steppo_gym.actions import Invalid
from steppo_gym.env import TextEnv
from steppo_gym.envs.paper_search import render
from steppo_gym.envs.paper_search.actions import Calls, Search, Stop, format_action, parse_action, tool_schemas
from steppo_gym.envs.paper_search.data import ProceduralQueries, QueryFile, check_answers, open_source
from steppo_gym.envs.paper_search.expert import expert_action
from steppo_gym.envs.paper_search.expert_view import view_of
from steppo_gym.envs.paper_search.oracle import oracle_action
from steppo_gym.envs.paper_search.papers import Query
from steppo_gym.envs.paper_search.pool import PaperPool, SavedPool, carry_out, same_words
from steppo_gym.envs.paper_search.relevance import GoldMembership, Relevance, open_relevance
from steppo_gym.envs.paper_search.renaming import renamed
from steppo_gym.envs.paper_search.reward import PROTOCOLS, SUCCESS_RECALL, PaperSearchProtocol, cut_metrics, list_scores
from steppo_gym.keywords import CommonArguments, check_count, check_flag, check_place
from steppo_gym.protocol import named_protocol
from steppo_gym.snapshot import canonical_json, restored, state_digest
from steppo_gym.storage.file_stamps import file_stamps, files_in, stamps_text
from steppo_gym.transition import NO_ACTION, Transition

EXPERTS = ("search-expand", "clumsy", "hasty", "oracle")


class _TaskState(TypedDict):
    pool: SavedPool
    problems: list[str]
    stopped: bool
    expert_seed: int


class PaperSearchEnv(TextEnv):
    """Find the papers that a research question asks for, by searching and by following citations.

    Args:
        split: "train", "validation" or "test".
        data: None for built-in queries, or an official file of queries, or the folder that holds them.
        papers: None for the built-in corpus; the file or folder of an embedded corpus; or the address of a server in
            Semantic Scholar's shape. With `data` alone, and then required.
        protocol: "steppo" (5 steps of up to 5 calls, 10 papers a search, 30 citations and 99 references an expansion).
        relevance: who scores papers: "gold" (the data's answers), "lexical", or the address of a classifier (see
            `Selector`). What is admitted and paid goes by it, and but for "gold" what is shown.
        show_gold: whether the scores of "gold" are shown and rank the list. This tells the agent which papers are
            answers, at evaluation too.
        any_text_stops: whether a response without any call ends the episode, as in the StepPO recipe; by default only
            `<answer>..</answer>` does.
        listed_papers: how many of the best expanded papers, and of the others, are shown; overrides the protocol's.
        abstract_words: longest abstract shown, 0 for titles alone; overrides the protocol's.
        common: see `TextEnv`. The expert "clumsy" slips now and then, "hasty" errs beside, "oracle" knows which of the
            papers found are answers.

    Raises:
        ValueError: an argument outside its range.
        DataError: no queries in `data`, a test set asked for as another split, no corpus, or with "gold" none that has
            an answer of any query in time.
    """

    protocol: PaperSearchProtocol  # type: ignore[assignment] - set once

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | Path | None = None,
        papers: str | Path | None = None,
        protocol: str = "steppo",
        relevance: str = "gold",
        show_gold: bool = False,
        any_text_stops: bool = False,
        listed_papers: int | None = None,
        abstract_words: int | None = None,
        **common: Unpack[CommonArguments],
    ) -> None:
        check_place("data", data)
        check_place("papers", papers)
        check_flag("show_gold", show_gold)
        check_flag("any_text_stops", any_text_stops)
        if show_gold and relevance != GoldMembership.name:
            raise ValueError(f"show_gold shows the scores of relevance='gold', got relevance={relevance!r}.")
        if listed_papers is not None:
            check_count("listed_papers", listed_papers)
        if abstract_words is not None:
            check_count("abstract_words", abstract_words, least=0)
        rules = named_protocol(PROTOCOLS, protocol, listed_papers=listed_papers, abstract_words=abstract_words)
        super().__init__(rules, experts=EXPERTS, **common)
        self.queries = ProceduralQueries(split) if data is None else QueryFile(data, split)
        self.task_ids = self.queries.task_ids
        self.relevance: Relevance = open_relevance(relevance)
        self.shows_scores = show_gold or relevance != GoldMembership.name
        self.source = open_source(papers, data)
        if isinstance(self.queries, QueryFile):
            if relevance == GoldMembership.name:
                check_answers(self.queries, self.source)
            self.text_version = stamps_text((*self.queries.stamps, *file_stamps(files_in(papers))))
        self.any_text_stops = any_text_stops
        self._query: Query
        self._pool = PaperPool()
        self._problems: list[str] = []
        self._stopped = False
        self._expert_seed = 0

    @property
    def system_prompt(self) -> str:
        """What the agent is told once, before the first observation."""
        return render.system_prompt(self.action_format, self.protocol.max_calls)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The JSON schemas of `search` and `expand`, empty in the tag format."""
        return tool_schemas() if self.action_format == "tool_call" else []

    def expert_response(self) -> str:
        """What the expert writes in the current state."""
        self._require_episode("ask the expert about")
        if self.expert == "oracle":
            return format_action(oracle_action(self._query, self._pool), self.action_format)
        seed = self._expert_seed if self.expert in ("clumsy", "hasty") else None
        view = view_of(
            self._query.text,
            self._pool,
            context=self.context,
            listed_papers=self.protocol.listed_papers,
            by_score=self.shows_scores,
        )
        action, self.expert_slip = expert_action(view, step=self.num_steps, seed=seed, hasty=self.expert == "hasty")
        return format_action(action, self.action_format)

    def close(self) -> None:
        """Release the source of papers and the scorer."""
        self.source.close()
        self.relevance.close()

    def has_task(self, task_id: str) -> bool:
        """Whether there is such a query."""
        return self.queries.has(task_id)

    def task_content(self, task_id: str) -> bytes:
        """The question, the papers asked for and the last day of publication, as JSON."""
        query = self.queries.load(task_id)
        return canonical_json({"question": query.text, "answers": query.answers, "until": query.until})

    def retold(self, texts: Sequence[str], rng: random.Random) -> list[str]:
        """The texts of an episode in another field; see `steppo_gym.envs.paper_search.renaming`."""
        return renamed(texts, rng)

    def _start(self, task_id: str) -> str:
        self._query = self.queries.load(task_id)
        self._pool = PaperPool()
        self._problems = []
        self._stopped = False
        self._expert_seed = self._draw_seed()
        return render.first_feedback(self._query.text)

    def _apply(self, response: str) -> Transition:
        action = parse_action(
            response, self.action_format, max_calls=self.protocol.max_calls, any_text_stops=self.any_text_stops
        )
        match action:
            case Invalid(reason):
                self._problems.append(reason)
                feedback = render.invalid_feedback(reason, self.action_format, self.protocol.max_calls)
                return Transition(feedback, NO_ACTION, self.protocol.invalid_action_reward, invalid_action=reason)
            case Stop():
                self._stopped = True
                return Transition(render.STOPPED, "stop", terminated=True)
            case Calls(calls):
                # On a copy: a call that fails leaves no half a step.
                pool = self._pool.copy()
                outcomes = [
                    carry_out(
                        call,
                        pool,
                        query=self._query,
                        source=self.source,
                        relevance=self.relevance,
                        protocol=self.protocol,
                    )
                    for call in calls
                ]
                self._pool = pool
                feedback = render.calls_feedback(outcomes, pool, self.protocol, by_score=self.shows_scores)
                reward = sum(outcome.reward for outcome in outcomes)
                return Transition(feedback, "; ".join(map(render.call_line, outcomes)), reward)

    def _observation(self, feedback: str) -> str:
        if self.context == "append":
            return feedback
        return render.rebuilt_prompt(
            question=self._query.text,
            pool=self._pool,
            problems=self._problems,
            steps_left=max(0, self.max_steps - self.num_steps),
            action_format=self.action_format,
            protocol=self.protocol,
            by_score=self.shows_scores,
        )

    def _state_key(self) -> str:
        """Of the query, the papers found and expanded, what was searched for, and the end.

        Rewards and what a call will bring depend on nothing else; order and number of the calls change nothing that
        follows.
        """
        return state_digest(
            self.task_id,
            sorted(self._pool.entries),
            sorted(self._pool.expanded),
            sorted(map(same_words, self._pool.queries)),
            self._stopped,
        )

    def _success(self) -> bool:
        return list_scores(tuple(self._pool.entries), self._query.answers).recall >= SUCCESS_RECALL

    def _metrics(self) -> dict[str, float]:
        """Scores of the pool, see `cut_metrics`; `recall/<kind>`; and what was done.

        `papers` in the pool, `searches`, `expansions`, `useless_calls` of both, and `scored_by_<scorer>`.
        """
        scores = cut_metrics([entry.paper.paper_id for entry in self._pool.ranked()], self._query.answers)
        outcomes, kind = self._pool.outcomes, self._query.kind
        num_searches = sum(isinstance(outcome.call, Search) for outcome in outcomes)
        return {
            **scores,
            **({f"recall/{kind}": scores["recall"]} if kind else {}),
            "papers": float(len(self._pool.entries)),
            "searches": float(num_searches),
            "expansions": float(len(outcomes) - num_searches),
            "useless_calls": float(sum(bool(outcome.problem) for outcome in outcomes)),
            f"scored_by_{self.relevance.name}": 1.0,
        }

    def _get_task_state(self) -> dict[str, Any]:
        return {
            "pool": self._pool.get_state(),
            "problems": self._problems.copy(),
            "stopped": self._stopped,
            "expert_seed": self._expert_seed,
        }

    def _set_task_state(self, state: object) -> None:
        saved = restored(state, _TaskState)
        self._check_end(saved["stopped"])
        self._query = self.queries.load(self.task_id)
        self._pool = PaperPool.from_state(saved["pool"])
        self._problems = saved["problems"]
        self._stopped = saved["stopped"]
        self._expert_seed = saved["expert_seed"]
