"""One live line for many runs: how many are done, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from tqdm import tqdm


class Progress:
    """A bar on a terminal, and a line for every run that ends."""

    def __init__(self, total: int, num_processes: int, durations: Sequence[float] = ()) -> None:
        self.total, self.num_processes = total, num_processes
        self._ended, self._left = 0, "?"
        self._durations = list(durations)
        # Without a terminal there is no bar, only the lines.
        self._bar = tqdm(total=total, disable=None, dynamic_ncols=True, bar_format="{desc} |{bar}| {elapsed}")

    def show(self, running: Sequence[tuple[float, float]], waiting: int) -> None:
        """Draw the bar."""
        left = seconds_left(self._durations, running, waiting, self.num_processes)
        self._left = "?" if left is None else tqdm.format_interval(left)
        self._bar.set_description_str(f"{self._ended}/{self.total} runs, {len(running)} under way, {self._left} left")

    def end(self, text: str, seconds: float | None = None) -> None:
        """Say that a run has ended; the `seconds` of one that ended well go into the estimate."""
        if seconds is not None:
            self._durations.append(seconds)
        self._ended += 1
        self._bar.update()
        tqdm.write(f"{self._ended}/{self.total}, {self._left} left: {text}")

    def close(self) -> None:
        """Remove the bar."""
        self._bar.close()


def seconds_left(
    durations: Sequence[float], running: Sequence[tuple[float, float]], waiting: int, num_processes: int
) -> float | None:
    """Time until all runs have ended, None as long as nothing is known.

    A run is taken to last as long as the mean of those that have ended; before one has, as long as those under way
    would at their pace.

    Args:
        durations: seconds of runs that have ended.
        running: for each run under way, the seconds since it began and the share of it that is done.
        waiting: runs that have not begun.
        num_processes: runs at a time.
    """
    paces = list(durations) or [elapsed / share for elapsed, share in running if share > 0]
    if not paces:
        return None
    shares = waiting + sum(1 - share for _, share in running)
    return fmean(paces) * shares / max(1, min(num_processes, waiting + len(running)))
