"""Times of the calls of an environment, and measurements in a process of their own."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class StepTimes:
    """Seconds of calls, by what was called, and of the processor in all steps together."""

    def __init__(self, *kinds: str) -> None:
        self.seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
        self.processor = 0.0

    def call(self, kind: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function and note how long it takes."""
        started, processor = time.perf_counter(), time.process_time()
        result = function(*args, **kwargs)
        self.seconds[kind].append(time.perf_counter() - started)
        self.processor += time.process_time() - processor if kind != "reset" else 0.0
        return result

    def report(self) -> None:
        """Print rates and quantiles, of all steps and of each kind."""
        steps = [seconds for kind, times in self.seconds.items() if kind != "reset" for seconds in times]
        per_processor_second, per_second = len(steps) / self.processor, len(steps) / sum(steps)
        print(f"    {per_processor_second:.0f} steps per processor second, {per_second:.0f} per second")
        for kind, seconds in {"step": steps, **self.seconds}.items():
            if ordered := sorted(seconds):
                late = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
                p50 = 1000 * statistics.median(ordered)
                print(f"    {kind:7} p50 {p50:.3f} ms, p99 {1000 * late:.3f} ms, {len(ordered)} calls", flush=True)


def in_new_process(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call a function in a fresh process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(call, *args, **kwargs).result()
