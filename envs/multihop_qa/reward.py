"""Rules of the protocols, and what an answer is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from steppo_gym.envs.multihop_qa.scoring import AnswerScores
from steppo_gym.protocol import EnvProtocol

RewardName = Literal["em", "f1"]
REWARDS: tuple[RewardName, ...] = get_args(RewardName)


@dataclass(frozen=True)
class SearchProtocol(EnvProtocol):
    """The rules of one published way to search for answers."""

    top_k: int
    """Passages per query."""
    max_searches: int
    """Most searches in one response of the tool-call format."""
    searches_first: bool
    """Whether the question itself is searched for before the first step, which costs no step."""
    skips_broken: bool
    """Whether in the tool-call format broken calls and those beyond `max_searches` are passed over."""


PROTOCOLS = {
    # The official StepPO recipe for HotpotQA.
    "steppo": SearchProtocol(
        max_steps=5,
        success_reward=1.0,
        invalid_action_reward=0.0,
        history_length=None,
        top_k=5,
        max_searches=4,
        searches_first=True,
        skips_broken=True,
    ),
    # Search-R1 (arXiv:2503.09516): four searches and then the answer.
    "search-r1": SearchProtocol(
        max_steps=5,
        success_reward=1.0,
        invalid_action_reward=0.0,
        history_length=None,
        top_k=3,
        max_searches=1,
        searches_first=False,
        skips_broken=False,
    ),
}


def answer_reward(scores: AnswerScores, reward: RewardName, protocol: EnvProtocol) -> float:
    """The reward of the step that answers: "em" pays for an exact match, "f1" in proportion to F1."""
    return protocol.success_reward * (scores.em if reward == "em" else scores.f1)


def recall(found: Sequence[bool]) -> dict[str, float]:
    """Share of the supporting passages that were found; nothing where the data does not name them."""
    return {"recall": sum(found) / len(found)} if found else {}
