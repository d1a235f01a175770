"""What the first page shows: runs side by side, and in which settings they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from steppo_gym.view.audit_truth import read_truth
from steppo_gym.view.run_folder import AUDIT_EPISODES, Run, differing

MOST_POINTS = 2_000
"""Of a curve; of a longer one every n-th point is left."""


def overview(runs: Sequence[Run]) -> dict[str, Any]:
    """Settings, curves and files of runs, as plain JSON."""
    settings = [run.settings() for run in runs]
    return {
        "runs": [
            {
                "name": run.name,
                "settings": own,
                "curves": {name: _thinned(points) for name, points in run.curves().items()},
                "files": run.episode_files(),
                "evaluations": run.evaluations(),
                "evaluation": run.evaluation_summary() if _is_evaluation(own) else None,
                "audit": _audit(run),
            }
            for run, own in zip(runs, settings, strict=True)
        ],
        "differing": _differing(runs, settings),
        "note": "",
    }


def _differing(runs: Sequence[Run], settings: Sequence[dict[str, str]]) -> dict[str, list[str | None]]:
    """Settings that differ among runs, among evaluations and among audits, which have few in common with each other."""
    found: dict[str, list[str | None]] = {}
    kinds = [(run.is_audit, _is_evaluation(own)) for run, own in zip(runs, settings, strict=True)]
    for kind in dict.fromkeys(kinds):
        places = [place for place, other in enumerate(kinds) if other == kind]
        for name, values in differing([settings[place] for place in places]).items():
            column = found.setdefault(name, [None] * len(runs))
            for place, value in zip(places, values, strict=True):
                column[place] = value
    return found


def _is_evaluation(settings: Mapping[str, str]) -> bool:
    """Whether these are of `steppo-gym evaluate`."""
    return any(name.startswith("evaluation.") for name in settings)


def _audit(run: Run) -> dict[str, Any] | None:
    """What an audit found, and its audited steps; None for a run."""
    if not run.is_audit:
        return None
    truth = read_truth(run.episode_file(AUDIT_EPISODES))
    return {"report": run.audit_report(), "points": [] if truth is None else truth.points()}


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    width = -(-len(points) // MOST_POINTS) or 1
    # The last point always stays: it is what a run came to.
    return [*points[: len(points) - 1 : width], *points[-1:]]
