"""What an audit found out about each step, one line of JSON a step: for readers that play nothing on themselves.

`truth.jsonl` is written when an audit is done, `steppo-gym view` shows it beside the episodes; docs/audit.md lists the
fields.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from steppo_gym.audit.points import AuditedPoint
from steppo_gym.storage.json_lines import write_whole

TRUTH_FILE = "truth.jsonl"


def truth_records(
    points: Sequence[AuditedPoint],
    samples: Mapping[str, tuple[Sequence[int], npt.ArrayLike]],
    scales: Mapping[str, float],
    threshold: float,
    *,
    reach: float,
) -> list[dict[str, Any]]:
    """A record of each point: value, advantage, verdict, the responses that were tried, and what rules gave.

    Args:
        points: audited.
        samples: by rule, as `sampled_credit` returns them.
        scales: by rule, the factor that brings its credit to the scale of returns (`Error.scale`).
        threshold: by how much two responses must differ in value for the choice to matter.
        reach: largest difference of two returns.

    Returns:
        JSON-serializable, without NaN: what could not be played is null.
    """
    credit = {name: _by_point(steps, given, len(points)) for name, (steps, given) in samples.items()}
    return [
        {
            "episode": point.episode,
            "place": point.place,
            "value": _number(point.value()),
            "continuations": len(point.free),
            "verdict": point.verdict(threshold, reach=reach),
            "responses": [_response(point, arm, reach) for arm in range(len(point.arms))],
            "credit": {
                name: {
                    "mean": float(found[number].mean()),
                    "std": float(found[number].std()),
                    "batches": len(found[number]),
                    "scaled": _number(scales[name] * float(found[number].mean())),
                }
                for name, found in credit.items()
                if len(found[number])
            },
        }
        for number, point in enumerate(points)
    ]


def write_truth(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write `truth.jsonl`, which appears whole or not at all."""
    write_whole(folder / TRUTH_FILE, "".join(json.dumps(r, allow_nan=False) + "\n" for r in records))


def _response(point: AuditedPoint, number: int, reach: float) -> dict[str, Any]:
    arm = point.arms[number]
    returns = [x for x in arm.returns if x is not None]
    compared = any(a is not None and b is not None for a, b in zip(arm.returns, point.free, strict=True))
    advantage = point.advantage(number, reach=reach) if compared else None
    return {
        "response": arm.response,
        "draws": arm.draws,
        "value": float(np.mean(returns)) if returns else None,
        "advantage": None if advantage is None else [advantage.estimate, advantage.low, advantage.high],
    }


def _by_point(steps: Sequence[int], given: npt.ArrayLike, number: int) -> list[npt.NDArray[np.float64]]:
    numbers, values = np.asarray(steps, np.int64), np.asarray(given, np.float64)
    return [values[numbers == point] for point in range(number)]


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
