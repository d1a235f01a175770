"""Recorded lines: one JSON object per run, appended when the run has ended and never changed.

README.md in this folder explains every field.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from steppo_gym.baselines.compared.protocol import Protocol
from steppo_gym.baselines.jobs import REPOSITORY, Job
from steppo_gym.evaluation.scores import evaluated_splits
from steppo_gym.storage.json_lines import append_text, read_lines
from steppo_gym.trainers.phases import PHASES

RESULTS = Path(__file__).parent / "results"

RUN_CODE = ("steppo_gym", "envs", "trainers")
"""Folders of the repository that a run's results depend on."""

SETTINGS = (
    "iterations", "episodes_per_iteration", "updates_per_iteration", "num_iterations", "num_generations",
    "learning_rate", "lr_scheduler_type", "max_grad_norm", "weight_decay", "ratio", "loss_average", "epsilon",
    "epsilon_high", "beta", "kl_in", "temperature", "max_completion_length", "max_prompt_tokens", "num_slots",
    "evaluate_every", "seed",
)  # fmt: skip
"""Of what all algorithms have in the trainer's `config.json`, what a line repeats; it repeats all of the rule's and the
critic's.
"""

SUMMARISED = (
    "success_before", "success_after", "sampled_success_before", "sampled_success_after", "evaluation_tasks", "before",
    "after", "iterations", "episodes", "updates", "tokens", "wall_seconds", "resumed", "versions", "hardware",
)  # fmt: skip
"""Of the trainer's `summary.json`, what a line repeats."""


NOT_TRAINING = ("evaluation", "saving")


class MixedProtocolsError(Exception):
    """A file of results holds lines of another protocol."""


def results_file(folder: Path, protocol: Protocol, stage: str) -> Path:
    """Where the lines of a stage are: `<protocol>.jsonl` for the matrix, `<protocol>-<stage>.jsonl` for the others."""
    return folder / (f"{protocol.name}.jsonl" if stage == "matrix" else f"{protocol.name}-{stage}.jsonl")


def read_results(folder: Path, protocol: Protocol, stage: str) -> list[dict[str, Any]]:
    """The lines of one stage of a protocol.

    Raises:
        MixedProtocolsError: some were recorded under another protocol or in another stage.
    """
    path = results_file(folder, protocol, stage)
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        found, wanted = (line["protocol_hash"], line["stage"]), (protocol.hash, stage)
        if found != wanted:
            raise MixedProtocolsError(
                f"{path}, line {number}: recorded under protocol {found[0]} in stage {found[1]}, but {protocol.name} "
                f"is now {wanted[0]} and this file is for stage {wanted[1]}. Results of different protocols are not "
                "mixed: move the old lines to another folder."
            )
    return lines


def append_line(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line, after what is whole of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    append_text(path, json.dumps(line, allow_nan=False) + "\n")


def record(job: Job, folder: Path, commit: str) -> dict[str, Any]:
    """The line of a run that has ended, from what it left in its folder."""
    # Python writes NaN, which is no JSON, for a mean over nothing.
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=lambda _: None)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    entries = read_lines(folder / "metrics.jsonl")
    training = [entry for entry in entries if "update_seconds" in entry]
    splits, by_iteration = _splits(entries), spent(training, summary["episodes"] / len(training))
    return {
        **job.identity,
        "title": job.algorithm.title,
        "commit": commit,
        "code": code_of(commit),
        **{name: summary[name] for name in SUMMARISED},
        "seconds_per_update": statistics.fmean(entry["update_seconds"] for entry in training),
        "rollout_seconds": sum(entry["rollout_seconds"] for entry in training),
        "failed_rate": statistics.fmean(entry["failed_rate"] for entry in training),
        "curve": _pooled_curve(splits),
        "curve_by_split": splits,
        "training_curve": [[entry["iteration"], entry.get("success")] for entry in training],
        "environment_steps": round(sum(by_iteration["environment_steps"])),
        "by_iteration": by_iteration,
        "explained_variance": [entry.get("explained_variance") for entry in training],
        "start": config.get("start"),
        # Not where the repository lay.
        "config": config["run"]
        | {"start": job.protocol.start_of(job.seed)}
        | {name: config["config"][name] for name in SETTINGS}
        | config["rule"]
        | (config["critic"] or {}),
    }


def spent(training: Sequence[Mapping[str, Any]], episodes: float) -> dict[str, list[float]]:
    """What each iteration took.

    Returns:
        `environment_steps`, those of branches and of the ways to them included; `credited_steps`, of the episodes
        themselves, whose advantage in the loss was not 0; `seconds` of wall time, without evaluation and saving.
    """
    steps = [episodes * (entry.get("episode_steps") or 0.0) for entry in training]
    return {
        "environment_steps": [
            own + entry.get("branch_steps", 0.0) + entry.get("replayed_steps", 0.0)
            for own, entry in zip(steps, training, strict=True)
        ],
        "credited_steps": [own * entry.get("credited_share", 0.0) for own, entry in zip(steps, training, strict=True)],
        "seconds": [
            sum(entry.get(f"phase_{name}_seconds", 0.0) for name in PHASES if name not in NOT_TRAINING)
            for entry in training
        ],
    }


def _splits(entries: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """By split: iteration, success and mean return of every evaluation."""
    found: dict[str, list[list[float]]] = {}
    for entry in entries:
        for split in evaluated_splits(entry):
            point = [entry["iteration"], entry[f"eval_{split}_success"], entry[f"eval_{split}_return"]]
            found.setdefault(split, []).append(point)
    return found


def _pooled_curve(splits: Mapping[str, Sequence[Sequence[float]]]) -> list[list[float]]:
    """Mean over the splits, which have equally many tasks: a protocol asks for no more than the smallest has."""
    return [
        [points[0][0], statistics.fmean(point[1] for point in points), statistics.fmean(point[2] for point in points)]
        for points in zip(*splits.values(), strict=True)
    ]


def checked_out_commit(repository: Path = REPOSITORY) -> str:
    """The commit that is checked out, with "+" if code that results depend on differs from it."""
    changed = git(repository, "status", "--porcelain", "--", *RUN_CODE)
    return (git(repository, "rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def code_of(commit: str, repository: Path = REPOSITORY) -> str:
    """12 hexadecimal digits that change with the code that a commit's results depend on, and with nothing else.

    What is not committed has no such digits but its own name.
    """
    trees = [git(repository, "rev-parse", f"{commit}:{folder}") for folder in RUN_CODE]
    if commit.endswith("+") or not all(trees):
        return commit
    return hashlib.sha256("".join(trees).encode()).hexdigest()[:12]


def require_one_code(protocol: Protocol, results: Path, commit: str) -> None:
    """See that a run would come from the same code as all lines of its protocol, as `Protocol.one_code` asks.

    Raises:
        MixedProtocolsError: it would not.
    """
    code = code_of(commit)
    if commit.endswith("+"):
        raise MixedProtocolsError(
            f"All runs of {protocol.name} come from one commit, but {', '.join(RUN_CODE)} differ from {commit[:-1]}. "
            "Commit what was changed, or check out the commit of the recorded lines."
        )
    for stage in ("grid", "matrix"):
        for line in read_results(results, protocol, stage):
            if line["code"] != code:
                raise MixedProtocolsError(
                    f"{results_file(results, protocol, stage)} was recorded with the code of commit {line['commit']}, "
                    f"and {', '.join(RUN_CODE)} have changed since. All runs of {protocol.name} come from one commit: "
                    f"check out {line['commit']}, or move the old lines to another folder and repeat all of them."
                )


def git(repository: Path, *arguments: str) -> str:
    """What git answers, or nothing."""
    done = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
