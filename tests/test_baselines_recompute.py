"""Another reader's numbers, from `recompute.py` and `recompute_rest.py`, against the tables of all recorded runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pytest
from baseline_lines import cells

from steppo_gym.baselines.protocols import PROTOCOLS
from steppo_gym.baselines.recompute import recompute
from steppo_gym.baselines.recompute_rest import recompute_rest
from steppo_gym.baselines.records import RESULTS, read_results
from steppo_gym.baselines.tables.by_start import start_table
from steppo_gym.baselines.tables.comparison import by_algorithm, compare
from steppo_gym.baselines.tables.effort import effort_table
from steppo_gym.baselines.tables.estimates import Estimate
from steppo_gym.baselines.tables.summary import table

RECORDED = [path.stem for path in sorted(RESULTS.glob("*.jsonl")) if path.stem in PROTOCOLS]


def rows_of(text: str) -> dict[str, list[str]]:
    """By the first cell of each row of a table, the others."""
    return {row[0]: row[1:] for row in cells(text)}


def shows(cell: str, numbers: Iterable[float], scale: float = 1) -> bool:
    """Whether a cell has these numbers, rounded as it rounds."""
    found = re.findall(r"[-+]?\d[\d,]*(?:\.\d+)?", cell)
    units = [10.0 ** -len(shown.partition(".")[2]) for shown in found]
    values = [float(shown.replace(",", "")) for shown in found]
    pairs = zip(values, numbers, units, strict=False)
    return bool(found) and all(abs(value - scale * number) <= 0.5001 * unit for value, number, unit in pairs)


def test_a_cell_shows_what_it_rounds():
    assert shows("67.0 [57.3, 76.6]", [0.6695, 0.57263, 0.76637], 100)
    assert shows("1,234", [1233.6])
    assert not shows("67.0 [57.3, 76.6]", [0.6695, 0.57263, 0.7677], 100)
    assert not shows("-", [0.5])


@pytest.mark.parametrize("name", RECORDED)
def test_another_recomputation_comes_to_the_same_numbers(name):
    lines = read_results(RESULTS, PROTOCOLS[name], "matrix")
    other = recompute(lines)
    found = compare(PROTOCOLS[name], lines)
    assert {row.title for row in found} == set(other) and found
    for row in found:
        theirs = other[row.title]

        def bounds_of(estimate: Estimate) -> tuple[float, ...]:
            return estimate.mean, estimate.low, estimate.high

        assert bounds_of(row.greedy) == pytest.approx(theirs["greedy"], abs=1e-9)
        assert row.greedy_iqm == pytest.approx(theirs["iqm"], abs=1e-12)
        assert (row.area is None) == ("area" not in theirs)
        if row.area is not None:
            assert bounds_of(row.area) == pytest.approx(theirs["area"], abs=1e-9)
        assert (row.difference is None) == ("difference" not in theirs)
        if row.difference is not None:
            assert bounds_of(row.difference) == pytest.approx(theirs["difference"], abs=1e-9)
            assert row.p_value == pytest.approx(theirs["p_holm"], abs=1e-9)


@pytest.mark.parametrize("name", RECORDED)
def test_the_other_cells_are_recomputed_as_well(name):
    protocol = PROTOCOLS[name]
    lines = read_results(RESULTS, protocol, "matrix")
    other = recompute_rest(lines, protocol.score)
    start = other.pop("start")
    shown = rows_of(table(protocol, lines, []).split("\n\n")[1])["start"]
    assert shows(shown[2], start["greedy"], 100) and shows(shown[4], start["sampled"], 100)
    found = dict(zip(by_algorithm(protocol, lines), compare(protocol, lines), strict=True))
    assert set(found) == set(other)
    for key, row in found.items():
        theirs = other[key]
        assert (row.sampled.mean, row.sampled.low, row.sampled.high) == pytest.approx(theirs["sampled"], abs=1e-9)
        assert (row.behind or 0) == theirs["below"]
        assert (row.seconds_per_update or 0) == pytest.approx(theirs["seconds_per_update"])


@pytest.mark.parametrize("name", [name for name in RECORDED if PROTOCOLS[name].metrics])
def test_the_scores_of_the_environment_are_recomputed_as_well(name):
    protocol = PROTOCOLS[name]
    lines = read_results(RESULTS, protocol, "matrix")
    other = recompute_rest(lines)
    shown = rows_of(table(protocol, lines, []).partition("Other scores, greedy:\n\n")[2].partition("\n\n")[0])
    titles = {"start": "start"} | {key: group[0]["title"] for key, group in by_algorithm(protocol, lines).items()}
    for key, title in titles.items():
        for cell, metric in zip(shown[title], protocol.metrics, strict=False):
            assert shows(cell, other[key]["scores"][metric]), (title, metric)


@pytest.mark.parametrize("name", [name for name in RECORDED if PROTOCOLS[name].score is not None])
def test_what_it_took_is_recomputed_as_well(name):
    protocol = PROTOCOLS[name]
    lines = read_results(RESULTS, protocol, "matrix")
    other = recompute_rest(lines, protocol.score)
    shown = rows_of(effort_table(protocol, lines))
    for key, group in by_algorithm(protocol, lines).items():
        _, steps, credit, reached, episodes, played, seconds, in_all = shown[group[0]["title"]]
        theirs = other[key]["effort"]
        assert shows(steps, [theirs["steps"]]) and shows(credit, [theirs["with_credit"]], 100)
        assert reached == f"{theirs['reached']} of {len(group)}"
        assert shows(in_all, [theirs["seconds"]])
        took = (episodes, played, seconds)
        if theirs["after"] is None:
            assert took == ("-", "-", "-")
        else:
            assert all(shows(cell, [number]) for cell, number in zip(took, theirs["after"], strict=True))


@pytest.mark.parametrize("name", [name for name in RECORDED if PROTOCOLS[name].starts])
def test_differences_by_start_are_recomputed_as_well(name):
    protocol = PROTOCOLS[name]
    lines = read_results(RESULTS, protocol, "matrix")
    other = recompute_rest(lines)
    shown = rows_of(start_table(protocol, lines))
    for key, group in by_algorithm(protocol, lines).items():
        if key != "steppo" and "steppo" in other:
            *means, p = shown[group[0]["title"]]
            theirs = dict(other[key]["by_start"])
            expected = theirs.pop("p", None)
            assert all(shows(cell, [mean], 100) for cell, mean in zip(means, theirs.values(), strict=True))
            assert p == "-" if expected is None else shows(p, [expected])
