"""Write the results table of the README from the recorded lines alone.

python baselines/table.py
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from steppo_gym.baselines.run import REPOSITORY, RESULTS, read_results

BEGIN, END = "<!-- results: written by baselines/table.py -->", "<!-- end of results -->"
COLUMNS = (
    ("greedy before", "success_before"),
    ("greedy after", "success_after"),
    ("sampled before", "sampled_success_before"),
    ("sampled after", "sampled_success_after"),
)


def main() -> None:
    """Write the tables of this repository."""
    write_tables(REPOSITORY / "README.md", RESULTS)


def write_tables(readme: Path, results: Path) -> None:
    """Replace what stands between the markers in `readme` by a table for each file in `results`.

    Raises:
        SystemExit: the markers are missing.
    """
    text = readme.read_text(encoding="utf-8")
    head, _, rest = text.partition(BEGIN)
    _, found, tail = rest.partition(END)
    if not found:
        raise SystemExit(f"{readme} must contain the lines {BEGIN!r} and {END!r}.")
    tables = [table(read_results(path)) for path in sorted(results.glob("*.jsonl"))]
    readme.write_text(f"{head}{BEGIN}\n" + "\n".join(tables) + f"{END}{tail}", encoding="utf-8")


def table(lines: Sequence[dict[str, Any]]) -> str:
    """One table: a row per seed, then mean and standard deviation.

    Raises:
        ValueError: the lines are of different tasks, evaluation sets or budgets.
    """
    same = ("algorithm", "environment", "task", "evaluation_tasks", "iterations", "episodes", "updates", "arguments")
    for name in same:
        if len({str(line[name]) for line in lines}) > 1:
            raise ValueError(
                f"The recorded runs differ in {name!r}; results of different protocols do not go into one table."
            )
    first = lines[0]
    title = (
        f"{first['algorithm']} on {first['environment']} {first['task']}: success in percent on "
        f"{first['evaluation_tasks']} held-out tasks, {first['episodes']} episodes and {first['updates']} updates."
    )
    rows = [
        [
            str(line["seed"]),
            *(percent([line[key]]) for _, key in COLUMNS),
            f"{line['wall_seconds']:.0f}",
            line["commit"],
        ]
        for line in sorted(lines, key=lambda line: line["seed"])
    ]
    means = [f"**{percent([line[key] for line in lines])}**" for _, key in COLUMNS]
    rows.append(["mean ± std", *means, f"{statistics.mean(line['wall_seconds'] for line in lines):.0f}", ""])
    header = ["seed", *(name for name, _ in COLUMNS), "seconds", "commit"]
    versions = ", ".join(f"{name} {number}" for name, number in first["versions"].items())
    hardware = first["hardware"]
    machine = (
        f"{hardware['cpu_count']} x {hardware['machine']} CPU cores"
        if not hardware["accelerator"]
        else hardware["accelerator"]
    )
    seeds = " ".join(str(line["seed"]) for line in sorted(lines, key=lambda line: line["seed"]))
    script = f"{first['algorithm'].lower()}"
    command = " ".join(
        ["python baselines/run.py --env", first["env"], f"--algorithm {script} --seeds {seeds}", *first["arguments"]]
    )
    parts = [title, "", markdown(header, rows), "", f"`{command}` on {machine}; {versions}.", ""]
    return "\n".join(parts)


def percent(values: Sequence[float]) -> str:
    """Mean in percent, with the standard deviation over several values."""
    mean = f"{100 * statistics.mean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    main()
