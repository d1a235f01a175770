"""Numbers and tables as markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from steppo_gym.baselines.tables.estimates import Estimate

MISSING = "-"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write_between(page: Path, markers: tuple[str, str], block: str) -> None:
    """Replace what stands between two markers of a page.

    Raises:
        SystemExit: a marker is missing.
    """
    begin, end = markers
    head, began, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, tail = rest.partition(end)
    if not (began and ended):
        raise SystemExit(f"{page} must contain the lines {begin!r} and {end!r}.")
    page.write_text(f"{head}{begin}\n{block}{end}{tail}", encoding="utf-8")


def percent(share: float | None, *, signed: bool = False) -> str:
    """A share in percent with one decimal."""
    if share is None:
        return MISSING
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(100 * share, 1) + 0.0:{'+' if signed else ''}.1f}"


def p_value(p: float | None) -> str:
    """A probability with three decimals; it is never 0."""
    if p is None:
        return MISSING
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def decimal(number: float) -> str:
    """A score with three decimals."""
    return f"{number:.3f}"


def decimal_interval(estimate: Estimate) -> str:
    """A mean score with its interval or range."""
    return _with_bounds(estimate, *(decimal(value) for value in (estimate.mean, estimate.low, estimate.high)))


def percent_interval(estimate: Estimate | None, *, signed: bool = False) -> str:
    """A mean in percent with its interval or range."""
    if estimate is None:
        return MISSING
    shares = (estimate.mean, estimate.low, estimate.high)
    return _with_bounds(estimate, *(percent(share, signed=signed) for share in shares))


def _with_bounds(estimate: Estimate, mean: str, low: str, high: str) -> str:
    """[low, high] for an interval, (low to high) for a range, nothing for a single run."""
    if estimate.runs == 1:
        return mean
    return f"{mean} ({low} to {high})" if estimate.is_range else f"{mean} [{low}, {high}]"
