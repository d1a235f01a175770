"""What an evaluation leaves behind: its settings, its summary, and the lines in the terminal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from steppo_gym.errors import DataError
from steppo_gym.evaluation.scores import SuccessInterval, evaluation_metrics, success_interval
from steppo_gym.quoting import one_line, terminal_text
from steppo_gym.rollouts.episode import Episode
from steppo_gym.storage.json_lines import write_whole

CONFIG_FILE, SUMMARY_FILE = "config.json", "summary.json"


def settle_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings down, or find the same ones there.

    Raises:
        DataError: the folder holds something else.
    """
    path = folder / CONFIG_FILE
    wanted = json.loads(json.dumps(settings))
    if path.exists():
        found = read_settings(folder)
        if found is None:
            raise DataError(f"{folder} holds something else than an evaluation. Name another --out.")
        for name, value in wanted.items():
            if found.get(name) != value:
                raise DataError(
                    f"{folder} holds another evaluation: {name} is {found.get(name)!r} there, {value!r} was asked for. "
                    "Name another --out."
                )
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps({"evaluation": wanted}, indent=2) + "\n")


def read_settings(folder: Path) -> dict[str, Any] | None:
    """The settings of the evaluation in a folder, None if there is none."""
    try:
        found = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("evaluation")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, dict) else None


def results(settings: Mapping[str, Any], episodes: Sequence[Episode], *, tries: int) -> dict[str, Any]:
    """The summary of an evaluation.

    Args:
        settings: what was played, and by whom.
        episodes: by task and then by try.
        tries: of each task.
    """
    outcomes = [[one.success for one in episodes[i : i + tries]] for i in range(0, len(episodes), tries)]
    failures = [episode.failure for episode in episodes if episode.failure is not None]
    return {
        **settings,
        "tasks": len(outcomes),
        "tries": tries,
        "failed_episodes": len(failures),
        "first_failure": f"{failures[0].boundary}: {failures[0].message}" if failures else None,
        "success": asdict(success_interval(outcomes)),
        "solved_in_any_try": sum(map(any, outcomes)) / len(outcomes),
        "scores": evaluation_metrics(episodes),
        "steppo_gym": version("steppo-gym"),
    }


def print_results(summary: Mapping[str, Any]) -> None:
    """Say how it went."""
    success, scores = summary["success"], summary["scores"]
    tries = f", {summary['tries']} tries each" if summary["tries"] > 1 else ""
    mode = "greedy" if summary["temperature"] == 0 else f"temperature {summary['temperature']:g}"
    panel = terminal_text(summary["panel"])
    print(f"{panel} ({summary['tasks']} tasks{tries}, {mode}), panel hash {summary['panel_hash'][:12]}")
    print(f"  success       {percent(SuccessInterval(**success))}  {success['method']}")
    if summary["tries"] > 1:
        print(f"  in any try    {100 * summary['solved_in_any_try']:.1f} %")
    print(f"  return        {scores['return']:.3f}")
    print(f"  steps         {scores['episode_steps']:.1f}")
    print(f"  invalid       {100 * scores['invalid_rate']:.1f} % of all steps")
    if summary["failed_episodes"]:
        print(
            f"  failed        {summary['failed_episodes']} episodes, counted as not solved and left out of the other "
            f"lines; first: {one_line(summary['first_failure'], 300).rstrip('.')}. The same command plays them again."
        )


def percent(success: SuccessInterval) -> str:
    """A success rate with its interval."""
    return f"{100 * success.mean:.1f} %  [{100 * success.low:.1f}, {100 * success.high:.1f}]"
