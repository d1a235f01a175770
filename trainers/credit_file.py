"""What the updates of an iteration made of its episodes, as one small file beside them.

`episodes/iteration-0003.credit.npz` belongs to `episodes/iteration-0003.jsonl`. It holds plain arrays and is read with
`numpy.load(path, allow_pickle=False)`:

| array | shape | what |
|---|---|---|
| `lines` | (E,) int64 | line of each trained episode in the episodes' file, from 0; failed episodes are left out |
| `steps` | (E,) int64 | its number of steps |
| `advantage` | (N,) float32 | of each step as it entered the loss; if tokens have their own, their mean |
| `value` | (N,) float32 | the critic's value before the step, NaN without a critic |
| `ratio` | (N,) float32 | geometric mean of the step's importance ratios, when it was last trained on |
| `ratio_min`, `ratio_max` | (N,) float32 | smallest and largest ratio of its tokens, likewise |
| `sampled` | (S,) int64 | lines of the episodes whose tokens follow |
| `tokens` | (S,) int64 | their numbers of response tokens |
| `token_advantage` | (T,) float32 | of each response token of these |
| `token_ratio` | (T,) float32 | its importance ratio when it was last trained on |
| `token_entropy` | (T,) float32 | of the next token, in nats, at the same time |
| `token_log_prob_change` | (T,) float32 | log-probability after the iteration's last update minus that before them |
| `actions` | (B,) uint8 | UTF-8 of a JSON list of all actions that were admissible in a step of these episodes |
| `admissible` | (K,) int32 | places in that list: the admissible actions of each of their steps |
| `admissible_counts` | (U,) int32 | how many each of their steps has, 0 where they cannot be listed |

The first episodes of the iteration are sampled: their tasks were drawn at random, and groups stay whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steppo_gym.credit.records import Credit
from steppo_gym.credit.rows import ABSENT, Row
from steppo_gym.rollouts.episode import Episode

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class TokenTrace:
    """Log-probability and entropy of each of M response tokens in the last loss that it was part of; NaN before."""

    def __init__(self, num_tokens: int) -> None:
        self.log_probs, self.entropy = np.full(num_tokens, np.nan), np.full(num_tokens, np.nan)

    def note(self, numbers: Tensor, log_probs: Tensor, entropy: Tensor) -> None:
        """Take over a micro-batch.

        Args:
            numbers: (B, T) of the tokens, -1 where there is none.
            log_probs: (B, T).
            entropy: (B, T).
        """
        where = numbers != ABSENT
        index = numbers[where].cpu().numpy()
        self.log_probs[index] = log_probs[where].detach().float().cpu().numpy()
        self.entropy[index] = entropy[where].detach().float().cpu().numpy()


class CreditRecorder(TrainerCallback):
    """Writes an iteration's file when its last update is done.

    Args:
        log_probs: from rows and their number of tokens (M,) to log-probabilities under the policy as it is now.
        updates_in_iteration: optimizer steps of one iteration.
        sample: episodes whose tokens are recorded.
    """

    def __init__(
        self, log_probs: Callable[[Sequence[Row], int], Array], updates_in_iteration: int, sample: int
    ) -> None:
        self._log_probs, self._updates, self._sample = log_probs, updates_in_iteration, sample
        self._open: _Open | None = None

    def begin(
        self,
        path: Path,
        episodes: Sequence[Episode],
        trained: Sequence[Episode],
        rows: Sequence[Row],
        credit: Credit,
        old_log_probs: Array,
    ) -> TokenTrace:
        """Note what an iteration starts with.

        Args:
            path: of the file.
            episodes: those in the file beside it, failed ones as well.
            trained: those of them that did not fail, and after them any others that are trained.
            rows: of the trained ones.
            credit: of their steps or tokens.
            old_log_probs: (M,) that the ratios start from.

        Returns:
            Where the losses of the iteration leave what they find.
        """
        lines = [line for line, episode in enumerate(episodes) if episode.ended != "failed"]
        tokens = [[len(step.response_ids) for step in episode.steps] for episode in trained]
        trace, sample = TokenTrace(len(old_log_probs)), min(self._sample, len(lines))
        admissible = [step.admissible_actions or () for episode in trained[:sample] for step in episode.steps]
        self._open = _Open(path, lines, tokens, sample, rows, credit, old_log_probs, trace, admissible)
        return trace

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the file after the last update; every process has its own."""
        if self._open is None or state.global_step % self._updates:
            return
        done, self._open = self._open, None
        after = done.old_log_probs
        if self._sample:
            # Also without tokens: processes that share a sharded model pass through it together.
            number = sum(map(sum, done.tokens[: done.sample]))
            after = self._log_probs(_rows_of_first_tokens(done.rows, number), len(after))
        save_arrays(done.path, _arrays(done, after))


@dataclass(frozen=True)
class _Open:
    """An iteration whose updates are under way."""

    path: Path
    lines: Sequence[int]
    """(E,) of the episodes that the file is about."""
    tokens: Sequence[Sequence[int]]
    """Of every trained episode, of which they are the first E, the response tokens of each step."""
    sample: int
    """Of the first of them the tokens are recorded."""
    rows: Sequence[Row]
    credit: Credit
    old_log_probs: Array
    trace: TokenTrace
    admissible: Sequence[Sequence[str]]
    """Of each step of the sampled episodes."""


def _arrays(done: _Open, after: Array) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a file.

    Args:
        done: the iteration.
        after: (M,) log-probabilities after the updates; only those of sampled episodes are read.
    """
    own, sampled = done.tokens[: len(done.lines)], done.tokens[: done.sample]
    per_step = np.array([number for episode in done.tokens for number in episode], np.int64)
    starts = np.concatenate([[0], np.cumsum(per_step)])[:-1].astype(np.int64)
    log_ratios = done.trace.log_probs - done.old_log_probs
    of_tokens = done.credit.of_tokens(per_step.tolist())
    values = np.full(len(per_step), np.nan)
    if done.credit.values is not None:
        values = done.credit.values[starts] if done.credit.unit == "token" else done.credit.values[: len(per_step)]
    steps = {
        "advantage": _reduce(np.add, of_tokens, starts) / np.maximum(per_step, 1),
        "value": values,
        "ratio": np.exp(_reduce(np.add, log_ratios, starts) / np.maximum(per_step, 1)),
        "ratio_min": np.exp(_reduce(np.minimum, log_ratios, starts)),
        "ratio_max": np.exp(_reduce(np.maximum, log_ratios, starts)),
    }
    tokens = {
        "token_advantage": of_tokens,
        "token_ratio": np.exp(log_ratios),
        "token_entropy": done.trace.entropy,
        "token_log_prob_change": after - done.old_log_probs,
    }
    counts = [sum(episode) for episode in sampled]
    return {
        "lines": np.array(done.lines, np.int64),
        "steps": np.array([len(episode) for episode in own], np.int64),
        "sampled": np.array(done.lines[: done.sample], np.int64),
        "tokens": np.array(counts, np.int64),
        **{name: column[: sum(map(len, own))].astype(np.float32) for name, column in steps.items()},
        **{name: column[: sum(counts)].astype(np.float32) for name, column in tokens.items()},
        **_actions(done.admissible),
    }


def _actions(admissible: Sequence[Sequence[str]]) -> dict[str, npt.NDArray[Any]]:
    """Lists of actions, most of which come again and again, as numbers in a list of the different ones."""
    places = {action: place for place, action in enumerate(dict.fromkeys(a for listed in admissible for a in listed))}
    # ASCII, so that halves of surrogate pairs, which JSON can hold and UTF-8 cannot, do not end a run.
    text = json.dumps(list(places)).encode("ascii")
    return {
        "actions": np.frombuffer(text, np.uint8),
        "admissible": np.array([places[action] for listed in admissible for action in listed], np.int32),
        "admissible_counts": np.array([len(listed) for listed in admissible], np.int32),
    }


def save_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays as an uncompressed `.npz`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    with unfinished.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    os.replace(unfinished, path)


def _reduce(operation: np.ufunc, values: Array, starts: Integers) -> Array:
    """One number for each run of values; every run has at least one."""
    return operation.reduceat(values, starts) if len(starts) else np.zeros(0)


def _rows_of_first_tokens(rows: Sequence[Row], number: int) -> list[Row]:
    """The rows that hold one of the first `number` response tokens."""
    return [row for row in rows if ((row.token_index != ABSENT) & (row.token_index < number)).any()]
