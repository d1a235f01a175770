"""The card of a trained policy: `README.md` in `final/`, with the front matter that the Hub reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from steppo_gym.storage.json_lines import write_whole
from steppo_gym.trainers.results.adapters import has_adapters

PACKAGES = ("steppo-gym", "torch", "transformers", "trl", "peft")


def write_card(folder: Path, summary: Mapping[str, Any], *, base: str | None) -> None:
    """Write the card of a run's result.

    Args:
        folder: of the result.
        summary: what `launch` returns.
        base: name or folder of the model the run began with, None for the small default policy.
    """
    adapters = has_adapters(folder)
    write_whole(folder / "README.md", f"---\n{_front_matter(summary, base, adapters)}\n---\n\n{_text(summary, base)}")


def _front_matter(summary: Mapping[str, Any], base: str | None, adapters: bool) -> str:
    data = ModelCardData(
        # The Hub knows names, not folders.
        base_model=base if base is not None and not Path(base).exists() else None,
        library_name="peft" if adapters else "transformers",
        pipeline_tag="text-generation",
        tags=["reinforcement-learning", "steppo-gym", summary["algorithm"].lower(), *(["lora"] if adapters else [])],
        model_name=_name(summary),
        eval_results=_results(summary) or None,
        ignore_metadata_errors=False,
    )
    return data.to_yaml()


def _results(summary: Mapping[str, Any]) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=summary["environment"],
            dataset_name=summary["environment"],
            dataset_split=split,
            metric_type="success_rate",
            metric_name=f"success, {mode}",
            metric_value=scores["success"],
        )
        for mode, splits in summary["after"].items()
        for split, scores in splits.items()
    ]


def _text(summary: Mapping[str, Any], base: str | None) -> str:
    lines = [
        f"# {_name(summary)}",
        "",
        f"{base or 'The small default policy of steppo-gym'}, trained with {summary['algorithm']} on "
        f"{summary['environment']} {summary['task']}: {summary['iterations']} iterations, {summary['episodes']} "
        f"episodes, {summary['updates']} updates, seed {summary['seed']}.",
        "",
        "| split | sampling | success before | success after |",
        "|---|---|---|---|",
    ]
    for mode, splits in summary["after"].items():
        for split, scores in splits.items():
            before = summary["before"][mode][split]["success"]
            lines.append(f"| {split} | {mode} | {100 * before:.1f} % | {100 * scores['success']:.1f} % |")
    if not summary["evaluation_tasks"]:
        lines += ["", "No held-out tasks were played (`--test_tasks 0`)."]
    lines += [
        "",
        "```",
        summary["command"],
        "```",
        "",
        f"Play it: `steppo-gym evaluate --model FOLDER --env {shlex.quote(summary['env'])}`. "
        f"Made with {', '.join(_versions())}.",
        "",
    ]
    return "\n".join(lines)


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except ModuleNotFoundError:
            continue
    return found


def _name(summary: Mapping[str, Any]) -> str:
    return f"{summary['environment'].rpartition('/')[2]} {summary['algorithm']} seed {summary['seed']}"
