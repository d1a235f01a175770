"""Learning to write what was demonstrated: conversations as weighted rows of tokens, and updates on them.

Responses are learned with weight 1, the environment's own text with a smaller weight (predicting it teaches a small
model to read it), deliberate slips not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import Qwen3ForCausalLM

from steppo_gym.rollouts.demonstrations import MessageCodec
from steppo_gym.rollouts.episode import Episode
from steppo_gym.trainers.policy.chat import ChatCodec

POOL = 16
"""Batches that are drawn together, so that rows of like length can meet and little is padded."""


@dataclass(frozen=True)
class Exchange:
    """One step of a demonstration, as text."""

    observation: str
    response: str
    slip: bool = False
    """Whether the response is a deliberate mistake."""


@dataclass(frozen=True)
class TrainingRow:
    """Token ids and the loss weight of each."""

    token_ids: tuple[int, ...]
    weights: tuple[float, ...]


def conversations(episode: Episode, messages: MessageCodec) -> Iterator[tuple[str, tuple[Exchange, ...]]]:
    """System prompt and exchanges: one conversation in the append context, one per step in the rebuilt context.

    Args:
        episode: a demonstration.
        messages: the codec it was played with, which has its texts.
    """
    system_prompt, exchanges, so_far = "", [], ()
    for step in episode.steps:
        if exchanges and step.prompt_ids[: len(so_far)] != so_far:
            yield system_prompt, tuple(exchanges)
            exchanges = []
        if not exchanges:
            system_prompt = messages.text(step.prompt_ids[0])
        exchanges.append(Exchange(messages.text(step.prompt_ids[-1]), step.response, step.slip))
        so_far = step.prompt_ids + step.response_ids
    if exchanges:
        yield system_prompt, tuple(exchanges)


def conversation_row(
    system_prompt: str, exchanges: Sequence[Exchange], codec: ChatCodec, observation_weight: float
) -> TrainingRow:
    """One conversation as the tokens a rollout of it would have.

    Args:
        system_prompt: of the environment.
        exchanges: at least one.
        codec: makes the tokens.
        observation_weight: loss weight of the environment's text.
    """
    ids: tuple[int, ...] = ()
    weights: list[float] = []
    for exchange in exchanges:
        observation = exchange.observation
        ids = codec.next_prompt(ids, observation) if ids else codec.first_prompt(system_prompt, (), observation)
        weights += [observation_weight] * (len(ids) - len(weights))
        response = codec.encode_response(exchange.response)
        ids += response
        weights += [0.0 if exchange.slip else 1.0] * len(response)
    return TrainingRow(ids, tuple(weights))


class Imitation:
    """Supervised updates of a model: Muon for the matrices inside its layers, AdamW for embeddings and norms.

    Args:
        model: trained in place.
        num_updates: of the whole schedule: the rates rise over 5 % of it and fall to zero over the last 40 %.
        muon_learning_rate: highest rate of the matrices.
        adamw_learning_rate: highest rate of all else.
        pad_token_id: fills up rows; its value changes nothing.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        *,
        num_updates: int,
        muon_learning_rate: float,
        adamw_learning_rate: float,
        pad_token_id: int,
    ) -> None:
        self.model, self.pad_token_id = model, pad_token_id
        matrices, others = _split_parameters(model)
        self._optimizers = [
            torch.optim.Muon(matrices, lr=muon_learning_rate, weight_decay=0.0),
            torch.optim.AdamW(others, lr=adamw_learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self._schedulers = [
            torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, num_updates))
            for optimizer in self._optimizers
        ]

    def update(self, rows: Sequence[TrainingRow], portions: int = 1) -> float:
        """One update on a batch; returns its loss before the update, the mean over tokens by their weights.

        Args:
            rows: the batch.
            portions: into which it is parted by length, so that little is padded; their gradients add up.
        """
        self.model.train()
        # The order decides how sums are rounded, so a batch that stays whole keeps its own.
        ordered = sorted(rows, key=lambda row: len(row.token_ids)) if portions > 1 else list(rows)
        size = -(-len(ordered) // portions)
        parts = [_padded(ordered[start : start + size], self.pad_token_id) for start in range(0, len(ordered), size)]
        total = sum(weights.sum() for _, weights in parts)
        loss = 0.0
        for ids, weights in parts:
            part = _weighted_loss(self.model, ids, weights) / total
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer, scheduler in zip(self._optimizers, self._schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """All that another `Imitation` of the same arguments needs to go on from here."""
        return {
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self._schedulers],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from where `state_dict` was called."""
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        for scheduler, saved in zip(self._schedulers, state["schedulers"], strict=True):
            scheduler.load_state_dict(saved)


def _split_parameters(model: Qwen3ForCausalLM) -> tuple[list[torch.nn.Parameter], list[torch.nn.Parameter]]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    inside = {id(p) for p in matrices}
    return matrices, [p for p in model.parameters() if id(p) not in inside]


def _schedule(step: int, total: int) -> float:
    """Rise over 5 % of the updates, fall to zero over the last 40 %."""
    return min(1.0, (step + 1) / (0.05 * total), (total - step) / (0.4 * total))


def _padded(rows: Sequence[TrainingRow], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, int64, [rows, longest], and the loss weights of all tokens but the first of each row, float32, flat."""
    width = max(len(row.token_ids) for row in rows)
    ids = torch.tensor([[*row.token_ids, *[pad_token_id] * (width - len(row.token_ids))] for row in rows])
    weights = torch.tensor([[*row.weights, *[0.0] * (width - len(row.weights))] for row in rows])
    return ids, weights[:, 1:].flatten()


def _weighted_loss(model: Qwen3ForCausalLM, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Sum over tokens."""
    # Rows are padded on the right and attention is causal, so padding needs no mask.
    # The shift is taken from the hidden states: a copy of them costs little, one of the logits does not.
    hidden = model.model(input_ids=ids).last_hidden_state[:, :-1].flatten(0, 1)
    losses = cross_entropy(model.lm_head(hidden), ids[:, 1:].flatten(), reduction="none")
    return (losses * weights).sum()
