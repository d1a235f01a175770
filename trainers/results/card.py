"""The card of a trained policy: `README.md` in `final/`, with the front matter that the Hub reads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from steppo_gym.env_arguments import env_argument_text
from steppo_gym.keywords import PLACES
from steppo_gym.storage.json_lines import write_whole
from steppo_gym.trainers.results.adapters import has_adapters

PACKAGES = ("steppo-gym", "torch", "transformers", "trl", "peft")


def write_card(folder: Path, summary: Mapping[str, Any], *, base: str | None, env_kwargs: Mapping[str, Any]) -> None:
    """Write the card of a run's result.

    Args:
        folder: of the result.
        summary: what `launch` returns.
        base: name or folder of the model the run began with, None for the small default policy.
        env_kwargs: keywords of the run's environments.
    """
    adapters = has_adapters(folder)
    text = _text(summary, base, _evaluation(summary, env_kwargs))
    write_whole(folder / "README.md", f"---\n{_front_matter(summary, base, adapters)}\n---\n\n{text}")


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


def _evaluation(summary: Mapping[str, Any], env_kwargs: Mapping[str, Any]) -> str:
    """The command that plays the first of the run's tests, also where no run lies beside the model."""
    words = ["steppo-gym", "evaluate", "--model", "FOLDER", "--env", summary["env"]]
    words += [word for split in [*summary["after"]["greedy"]][:1] for word in ("--split", split)]
    # Paths of this machine are nobody else's.
    given = {name: "PATH" if name in PLACES and str(value)[:1] == "/" else value for name, value in env_kwargs.items()}
    if (data := given.pop("data", None)) is not None:
        words += ["--data", str(data)]
    keywords = [env_argument_text(name, value) for name, value in given.items()]
    return shlex.join([*words, *(["--env_args", *keywords] if keywords else [])])


def _text(summary: Mapping[str, Any], base: str | None, evaluation: str) -> str:
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
        f"Play it: `{evaluation}`. Made with {', '.join(_versions())}.",
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
