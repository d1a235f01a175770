"""`steppo/HotpotQA-v0`, `steppo/2WikiMultihopQA-v0`, `steppo/MuSiQue-v0`: wires search, texts and scores together.

env = gymnasium.make("steppo/HotpotQA-v0")
observation, info = env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step("<search>Golden Tower</search>")
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from steppo_gym.actions import Invalid, format_thought
from steppo_gym.env import TextEnv
from steppo_gym.envs.multihop_qa import render
from steppo_gym.envs.multihop_qa.actions import Answer, Search, format_action, parse_action, tool_schemas
from steppo_gym.envs.multihop_qa.data import ProceduralQuestions, QuestionFiles, Questions
from steppo_gym.envs.multihop_qa.expert import expert_action, thought, wrong_search
from steppo_gym.envs.multihop_qa.questions import Question
from steppo_gym.envs.multihop_qa.renaming import renamed
from steppo_gym.envs.multihop_qa.reward import PROTOCOLS, REWARDS, RewardName, SearchProtocol, answer_reward, recall
from steppo_gym.envs.multihop_qa.scoring import AnswerScores, Dataset, scores
from steppo_gym.envs.multihop_qa.search_state import SavedSearches, SearchState
from steppo_gym.keywords import CommonArguments, check_choice, check_count, check_place
from steppo_gym.protocol import named_protocol
from steppo_gym.quoting import one_line
from steppo_gym.retrieval import Retriever, open_retriever
from steppo_gym.retrieval.engine import names_engine, read_engine
from steppo_gym.snapshot import canonical_json, restored, state_digest
from steppo_gym.storage.file_stamps import file_stamps, files_in, stamps_text
from steppo_gym.transition import NO_ACTION, Transition

EXPERTS = ("search", "clumsy", "hasty")
_SHOWN_CHARS = 200


class _TaskState(TypedDict):
    search: SavedSearches
    expert_seed: int


class MultihopQAEnv(TextEnv):
    """Answer a question that takes several searches.

    Args:
        split: "train", "validation" or "test".
        data: None for built-in questions, or the official files (see `QuestionFiles`).
        protocol: "steppo" (5 steps, 5 passages a query, the question searched for first) or "search-r1".
        retriever: None for BM25 over the data's own corpus; another engine for it, such as "dense:MODEL" (see
            `steppo_gym.retrieval.engine`); or, with `data` alone, a corpus file, an index folder or the address of a
            search server.
        top_k: passages per query; overrides the protocol's.
        reward: "em" or "f1".
        common: see `TextEnv`. The expert "clumsy" slips now and then, "hasty" errs beside. A response of the tool-call
            format may hold several searches.

    Raises:
        ValueError: an argument outside its range.
        DataError: no questions in `data`, or nothing to search: neither paragraphs with them nor a `retriever`.
    """

    dataset: Dataset
    protocol: SearchProtocol  # type: ignore[assignment] - set once

    def __init__(
        self,
        *,
        split: str = "train",
        data: str | Path | None = None,
        protocol: str = "steppo",
        retriever: str | Path | None = None,
        top_k: int | None = None,
        reward: RewardName = "em",
        **common: Unpack[CommonArguments],
    ) -> None:
        check_choice("reward", reward, REWARDS)
        check_place("data", data)
        check_place("retriever", retriever)
        if top_k is not None:
            check_count("top_k", top_k)
        super().__init__(named_protocol(PROTOCOLS, protocol, top_k=top_k), experts=EXPERTS, **common)
        engine = retriever if isinstance(retriever, str) and names_engine(retriever) else None
        if engine is not None:
            read_engine(engine)
        elif data is None and retriever is not None:
            raise ValueError(
                f"The built-in questions are about the built-in encyclopaedias, got retriever={str(retriever)!r} "
                "without data. Pass the file of questions that belongs to this corpus as data=, or another way to "
                "search: bm25, tantivy, dense:MODEL or hybrid:MODEL."
            )
        self.questions: Questions = (
            ProceduralQuestions(self.dataset, split, engine)
            if data is None
            else QuestionFiles(self.dataset, data, split, engine)
        )
        self.task_ids = self.questions.task_ids
        self.reward: RewardName = reward
        self._given_retriever: Retriever | None = (
            None if retriever is None or engine is not None else open_retriever(retriever)
        )
        if isinstance(self.questions, QuestionFiles):
            if self._given_retriever is None:
                self.questions.require_corpus()
            corpus = files_in(retriever if engine is None else None)
            self.text_version = stamps_text((*self.questions.stamps, *file_stamps(corpus)))
        self._question: Question
        self._search = SearchState(same_texts=self._given_retriever is None)
        self._expert_seed = 0

    @property
    def system_prompt(self) -> str:
        """What the agent is told once, before the first observation."""
        return render.system_prompt(self.action_format, self.protocol.max_searches)

    @property
    def tools(self) -> list[dict[str, Any]]:
        """The JSON schema of `search`, empty in the tag format."""
        return tool_schemas() if self.action_format == "tool_call" else []

    def expert_response(self) -> str:
        """What the expert writes in the current state."""
        self._require_episode("ask the expert about")
        seed = self._expert_seed if self.expert == "hasty" else None
        last_step = self.num_steps >= self.max_steps - 1
        found, is_found = self._search.passages, self._search.has
        action = expert_action(
            self._question, found=found, queries=self._search.queries, last_step=last_step, is_found=is_found, seed=seed
        )
        wrong = None
        if self.expert in ("clumsy", "hasty") and not last_step:
            useless = self._search.others(self._question.supporting)
            wrong = wrong_search(useless, seed=self._expert_seed, step=self.num_steps)
        self.expert_slip = wrong is not None
        # HotpotQA's compare too; its shipped start was made by one that does not think.
        thinks = self.dataset == "2wikimultihopqa" and isinstance(self.questions, ProceduralQuestions) and wrong is None
        said = thought(self._question, is_found) if thinks else ""
        return format_thought(said) + format_action(wrong or action, self.action_format)

    def close(self) -> None:
        """Release the retriever that was given; the data's own is shared."""
        if self._given_retriever is not None:
            self._given_retriever.close()

    def has_task(self, task_id: str) -> bool:
        """Whether there is such a question."""
        return self.questions.has(task_id)

    def task_content(self, task_id: str) -> bytes:
        """The question and the answers that count, as JSON."""
        question = self.questions.load(task_id)
        return canonical_json({"question": question.text, "answers": question.answers})

    def retold(self, texts: Sequence[str], rng: random.Random) -> list[str]:
        """The texts of an episode about another encyclopaedia; see `steppo_gym.envs.multihop_qa.renaming`."""
        return renamed(texts, rng)

    def _start(self, task_id: str) -> str:
        self._question = self.questions.load(task_id)
        self._search = SearchState(same_texts=self._given_retriever is None)
        self._expert_seed = self._draw_seed()
        if self.protocol.searches_first:
            (hits,) = self._retriever.search([self._question.text], self.protocol.top_k)
            self._search.find([hit.passage for hit in hits])
        return render.first_feedback(self._question.text, self._search.passages)

    def _apply(self, response: str) -> Transition:
        rules = self.protocol
        action = parse_action(
            response, self.action_format, max_searches=rules.max_searches, skips_broken=rules.skips_broken
        )
        match action:
            case Invalid(reason):
                self._search.problems.append(reason)
                feedback = render.invalid_feedback(reason, self.action_format, self.protocol.max_searches)
                return Transition(feedback, NO_ACTION, self.protocol.invalid_action_reward, invalid_action=reason)
            case Search(queries):
                before = len(self._search.passages)
                hits = self._retriever.search(queries, self.protocol.top_k)
                new = self._search.add(queries, [[hit.passage for hit in found] for found in hits])
                shown = "; ".join(f"search {one_line(query, _SHOWN_CHARS)}" for query in queries)
                return Transition(render.search_feedback(queries, new, before), shown)
            case Answer(text):
                self._search.answer = text
                reward = answer_reward(self._scores(), self.reward, self.protocol)
                return Transition(render.ANSWERED, f"answer {one_line(text, _SHOWN_CHARS)}", reward, terminated=True)

    def _observation(self, feedback: str) -> str:
        if self.context == "append":
            return feedback
        return render.rebuilt_prompt(
            question=self._question.text,
            queries=self._search.queries,
            passages=self._search.passages,
            problems=self._search.problems,
            steps_left=max(0, self.max_steps - self.num_steps),
            action_format=self.action_format,
            max_searches=self.protocol.max_searches,
        )

    def _state_key(self) -> str:
        """Of the question, the passages found and the answer.

        Rewards and what a search will bring depend on nothing else; wording, order and number of the searches are
        counted in the metrics and change nothing that follows.
        """
        return state_digest(self.task_id, sorted(self._search.identities), self._search.answer)

    def _success(self) -> bool:
        return self._scores().em == 1.0

    def _metrics(self) -> dict[str, float]:
        """`em`, `f1`, `searches`, `repeats` (searches for the same once more), `recall` of the supporting passages."""
        scored, kind = self._scores(), self._question.kind
        return {
            "em": scored.em,
            "f1": scored.f1,
            **({f"em/{kind}": scored.em} if kind else {}),
            **recall([self._search.has(paragraph) for paragraph in self._question.supporting]),
            "searches": float(len(self._search.queries)),
            "repeats": float(self._search.num_repeats),
        }

    def _get_task_state(self) -> _TaskState:
        return {"search": self._search.get_state(), "expert_seed": self._expert_seed}

    def _set_task_state(self, state: object) -> None:
        saved = restored(state, _TaskState)
        self._check_end(saved["search"]["answer"] is not None)
        self._question = self.questions.load(self.task_id)
        self._search = SearchState.from_state(saved["search"], same_texts=self._given_retriever is None)
        self._expert_seed = saved["expert_seed"]

    def _scores(self) -> AnswerScores:
        if self._search.answer is None:
            return AnswerScores(0.0, 0.0)
        return scores(self._search.answer, self._question.answers, self.dataset)

    @property
    def _retriever(self) -> Retriever:
        return self._given_retriever or self.questions.retriever(self.task_id)


class HotpotQAEnv(MultihopQAEnv):
    """HotpotQA (arXiv:1809.09600)."""

    dataset: Dataset = "hotpotqa"


class TwoWikiMultihopQAEnv(MultihopQAEnv):
    """2WikiMultihopQA (arXiv:2011.01060)."""

    dataset: Dataset = "2wikimultihopqa"


class MuSiQueEnv(MultihopQAEnv):
    """MuSiQue (arXiv:2108.00573)."""

    dataset: Dataset = "musique"
