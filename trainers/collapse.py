"""Whether a run is about to learn nothing any more: what is measured for that, and when it is said.

Training can go on for days after it has collapsed: returns within a task no longer differ, the policy no longer
explores, it answers every prompt with the same template, or it earns nothing for actions that are ever more often
invalid. None of these is an error, so each is a warning, said once when it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from steppo_gym.rollouts.episode import Episode

SHUFFLES = 4
LEAST_TASKS = 8
"""With fewer in an iteration, what a token says of its task is mostly chance."""
WINDOW = 3
"""Iterations that rates are averaged over before they are compared."""

Entry = Mapping[str, Any]
"""What was logged of an iteration, by metric."""
Integers = npt.NDArray[np.int64]


def collapse_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Spread of returns in an iteration and dependence of responses on prompts; failed episodes are left out."""
    played = [episode for episode in episodes if episode.ended != "failed"]
    if not played:
        return {}
    logged = {"return_std": float(np.std([episode.total_reward for episode in played]))}
    if len({episode.task_id for episode in played}) >= LEAST_TASKS:
        logged["prompt_information"] = prompt_information(played)
    return logged


def prompt_information(episodes: Sequence[Episode]) -> float:
    """How much a response token says of the task it was written for, of at least two, in nats; about 0 if nothing.

    The mutual information of task and token, I = sum p(x, y) log p(x, y) / (p(x) p(y)) over the counts of the
    iteration, minus what it is when the responses are dealt to the tasks at random: counts of few tokens look
    informative by chance alone, and that much. It stands for the mutual information of prompts and whole responses,
    whose loss is called template collapse in arXiv:2604.06268, and needs no further pass of the model.
    """
    numbers = {task: number for number, task in enumerate(sorted({episode.task_id for episode in episodes}))}
    tasks = np.array([numbers[episode.task_id] for episode in episodes for _ in episode.steps], np.int64)
    lengths = np.array([len(step.response_ids) for episode in episodes for step in episode.steps], np.int64)
    tokens = np.array(
        [token for episode in episodes for step in episode.steps for token in step.response_ids], np.int64
    )
    # A generator of its own: the metric changes nothing that a run draws.
    rng = np.random.default_rng(0)
    by_chance = fmean(mutual_information(np.repeat(rng.permutation(tasks), lengths), tokens) for _ in range(SHUFFLES))
    return mutual_information(np.repeat(tasks, lengths), tokens) - by_chance


def mutual_information(first: Integers, second: Integers) -> float:
    """Of two variables from N pairs, in nats, with relative frequencies for probabilities; 0 without pairs.

    Args:
        first: (N,) int, from 0 on.
        second: (N,) int, from 0 on.
    """
    if not len(first):
        return 0.0
    pairs, counts = np.unique(first * (int(second.max()) + 1) + second, return_counts=True)
    own, other = np.divmod(pairs, int(second.max()) + 1)
    first_counts, second_counts = np.bincount(first), np.bincount(second)
    expected = first_counts[own] * second_counts[other] / len(first)
    return float(np.sum(counts * np.log(counts / expected)) / len(first))


def collapse_warnings(history: Sequence[Entry]) -> dict[str, str]:
    """What is wrong after the last of all iterations so far, by kind, in a line each."""
    found = {
        "returns": _equal_returns(history),
        "entropy": _no_entropy(history),
        "template": _template(history),
        "invalid": _more_invalid(history),
    }
    return {kind: line for kind, line in found.items() if line is not None}


class CollapseWatch(TrainerCallback):
    """Says each warning when it begins.

    Args:
        say: prints a line.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the run so far, which the state knows also after a resumption."""
        history = [entry for entry in state.log_history if "policy_loss" in entry]
        # The entry of an evaluation follows that of its iteration, about which all has been said.
        if not history or state.log_history[-1] is not history[-1]:
            return
        before = collapse_warnings(history[:-1])
        for kind, line in collapse_warnings(history).items():
            if kind not in before:
                self._say(f"      warning: {line}")


def _equal_returns(history: Sequence[Entry]) -> str | None:
    recent = history[-2:]
    if len(recent) == 2 and all(entry.get("uninformative_groups", 0.0) >= 0.95 for entry in recent):
        return "in nearly all groups every episode has the same return; what compares them learns nothing"
    if len(recent) == 2 and all(entry.get("return_std", 1.0) < 1e-9 for entry in recent):
        return "all episodes have the same return; there is nothing to tell good from bad"
    return None


def _no_entropy(history: Sequence[Entry]) -> str | None:
    if not history:
        return None
    first, now = (entry.get("entropy", float("nan")) for entry in (history[0], history[-1]))
    if now < 0.1 and now < 0.1 * first:
        return f"entropy fell from {first:.3f} to {now:.3f} nats a token; the policy hardly explores any more"
    return None


def _template(history: Sequence[Entry]) -> str | None:
    means = _over_windows(history, "prompt_information", "success")
    if not means:
        return None
    (now, success), most = means[-1], max(information for information, _ in means)
    if most > 0.05 and now < 0.2 * most and success < 0.95:
        return (
            f"responses say {now:.3f} nats a token of their task, {most:.3f} before; "
            "the policy answers different prompts alike"
        )
    return None


def _more_invalid(history: Sequence[Entry]) -> str | None:
    means = _over_windows(history, "invalid_rate", "success")
    if not means:
        return None
    (now, success), (least, success_then) = means[-1], min(means)
    if now >= least + 0.1 and success <= success_then + 0.02:
        return (
            f"invalid actions rose from {100 * least:.0f} % to {100 * now:.0f} %, success did not "
            f"({100 * success_then:.0f} % to {100 * success:.0f} %); see --invalid_action_reward"
        )
    return None


def _over_windows(history: Sequence[Entry], first: str, second: str) -> list[tuple[float, float]]:
    """Means of two metrics over every window of iterations that have both."""
    entries = [entry for entry in history if first in entry and second in entry]
    windows = [entries[end - WINDOW : end] for end in range(WINDOW, len(entries) + 1)]
    return [(fmean(entry[first] for entry in part), fmean(entry[second] for entry in part)) for part in windows]
