"""The page and some episodes as one file, to be mailed or kept.

Every episode is packed on its own (gzip, base64) and unpacked by the page when it is opened. First go in those whose
tokens were recorded or of which a step was audited, of the newest iteration first, then the others, until the number or
the size that was asked for is reached.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from steppo_gym.view.episode_file import PAGE, EpisodeFile
from steppo_gym.view.filters import Filters
from steppo_gym.view.overview import overview
from steppo_gym.view.page import page_with
from steppo_gym.view.run_folder import Run

MOST_EPISODES = 200
MOST_BYTES = 5_000_000
"""Of the file."""
_ROOM = 300_000
"""Kept for the page itself and for the list of episodes."""
MOST_STEPS = 500
"""Of an episode; the steps after these are left out."""


def export(
    runs: Sequence[Run], *, most_episodes: int = MOST_EPISODES, most_bytes: int = MOST_BYTES
) -> tuple[str, int, int]:
    """One page with episodes of runs in it.

    Args:
        runs: whose curves are shown.
        most_episodes: over all runs; each gets the same share, and what the shorter ones leave.
        most_bytes: of the page; fewer episodes go in rather than more bytes.

    Returns:
        The page, how many episodes are in it, and how many there are.

    Raises:
        ValueError: the curves alone have more bytes.
        DataError: something in a run is damaged.
    """
    seen = overview(runs)
    left = most_bytes - _ROOM - len(json.dumps(seen))
    if left < 0:
        raise ValueError(f"The curves of these runs alone have more than {most_bytes} bytes. Name fewer runs.")
    files: dict[str, dict[str, list[Any]]] = {run.name: {} for run in runs}
    packed: dict[str, dict[str, dict[int, str]]] = {run.name: {} for run in runs}
    included = total = 0
    for position, run in enumerate(sorted(runs, key=_size)):
        number = (most_episodes - included) // (len(runs) - position)
        share = left // (len(runs) - position)
        opened = {name: EpisodeFile(run.episode_file(name), run.tokenizer_file()) for name in _newest_first(run)}
        total += sum(file.listing(Filters(), 0, 1)["all"] for file in opened.values())
        for name, row in _chosen(opened):
            text = _packed(opened[name], row["number"])
            size = len(text) + len(json.dumps(row)) + 20
            if number == 0 or size > share:
                break
            number, share, left = number - 1, share - size, left - size
            files[run.name].setdefault(name, []).append(row)
            packed[run.name].setdefault(name, {})[row["number"]] = text
            included += 1
    for run in seen["runs"]:
        run["files"] = [name for name in run["files"] if name in files[run["name"]]]
    for rows in (rows for of_run in files.values() for rows in of_run.values()):
        rows.sort(key=lambda row: row["number"])
    seen["note"] = f"{included} of {total} episodes are in this page."
    return page_with({"overview": seen, "files": files, "episodes": packed}), included, total


def _size(run: Run) -> int:
    """Bytes of its episodes."""
    return sum(run.episode_file(name).stat().st_size for name in run.episode_files())


def _newest_first(run: Run) -> list[str]:
    """Iterations from the last to the first, then evaluations from the last to the first."""
    names = run.episode_files()
    iterations = [name for name in names if name.startswith("iteration-")]
    return [*reversed(iterations), *reversed([name for name in names if name not in iterations])]


def _chosen(opened: dict[str, EpisodeFile]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Files and episodes in the order they go in."""
    for first in (True, False):
        for name, file in opened.items():
            offset = 0
            while rows := file.listing(Filters(), offset, PAGE)["episodes"]:
                offset += len(rows)
                for row in rows:
                    number = row["number"]
                    if (file.has_tokens(number) or file.is_audited(number)) == first:
                        yield name, row


def _packed(file: EpisodeFile, number: int) -> str:
    episode = file.episode(number)
    steps: list[dict[str, Any]] = []
    while len(steps) < min(episode["steps"], MOST_STEPS):
        steps += file.steps(number, len(steps), PAGE)
    for step in steps:
        # Compared with others, never shown.
        step["state"] = hashlib.sha256(step["state"].encode()).hexdigest()[:12]
    # The time of packing would make the bytes differ from one call to the next.
    data = gzip.compress(json.dumps({"episode": episode, "steps": steps}).encode(), mtime=0)
    return base64.b64encode(data).decode("ascii")
