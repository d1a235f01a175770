"""Flags of `steppo-gym audit`."""

from __future__ import annotations

from functools import partial
from typing import Any

from steppo_gym.command_line import add_command, run_by_name
from steppo_gym.env_arguments import add_env_arguments


def add_audit_command(commands: Any) -> None:
    """Add the command to what `ArgumentParser.add_subparsers` returned."""
    said = "measure what steps were worth, and which rules of credit see it"
    audit = add_command(commands, "audit", said, example="steppo-gym audit runs/key_door-steppo-seed0 --iteration 6")
    audit.add_argument(
        "source", help="folder of a run or a model, a name on the hub, or expert:NOISE (a share, 0 to 1)"
    )
    audit.add_argument("--env", help="as in training: key_door, alfworld, ..., or module:id; default: that of the run")
    audit.add_argument("--split", help="default: the training split")
    add_env_arguments(audit)
    audit.add_argument(
        "--rule",
        action="extend",
        nargs="+",
        default=[],
        metavar="MODULE:CLASS",
        help="rules of your own to score beside the others; the run's own with the run's settings",
    )
    audit.add_argument(
        "--out", "--output", metavar="FOLDER", help="an audit in it is gone on with (default: audits/ENV-SOURCE)"
    )
    numbers = {
        "iteration": (None, "audit the recorded episodes of this iteration of a run, by the policy that played them"),
        "tasks": (None, "tasks, each a group (default: 8)"),
        "episodes_per_task": (None, "episodes played of each, from which batches are drawn (default: 16)"),
        "points": (60, "decision points, drawn from all steps"),
        "continuations": (16, "episodes played on from each point with each response"),
        "alternatives": (3, "responses tried beside the one that was taken"),
        "group_size": (None, "episodes of a group in a batch (default: 8, with --iteration the run's)"),
        "groups": (None, "groups of a batch (default: 8, with --iteration the run's)"),
        "batches": (100, "batches that are drawn"),
        "max_response_tokens": (None, "default: that of the run, 512 for a model"),
        "slots": (32, "environments that are played side by side"),
        "workers": (0, "processes of environments; 0 for none, which spares a small policy their start"),
        "seed": (0, "of everything that is drawn"),
    }
    for name, (default, said) in numbers.items():
        shown = "" if default is None else " (default: %(default)s)"
        audit.add_argument(f"--{name}", type=int, default=default, help=said + shown)
    audit.add_argument("--gamma", type=float, default=1.0, help="discount of values (default: %(default)s)")
    audit.add_argument(
        "--temperature", type=float, help="of a model's sampling; default: that of the run, 1 for a model"
    )
    audit.add_argument(
        "--threshold", type=float, default=0.1, help="difference in value that matters (default: %(default)s)"
    )
    audit.add_argument("--quiet", action="store_true", help="no progress bar")
    audit.set_defaults(run=partial(run_by_name, "steppo_gym.trainers.auditing.command:audit"))
