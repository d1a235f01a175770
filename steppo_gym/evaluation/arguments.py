"""Flags of `steppo-gym evaluate` and `steppo-gym panel`."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from steppo_gym.command_line import add_command, run_by_name
from steppo_gym.env_arguments import add_env_arguments


def add_evaluation_commands(commands: Any) -> None:
    """Add both commands to what `ArgumentParser.add_subparsers` returned."""
    said = "play a panel of tasks with a trained policy, a model or a server, and say how many were solved"
    example = "steppo-gym evaluate --model runs/key_door-steppo-seed0 --panel key_door-test"
    _add_evaluate(add_command(commands, "evaluate", said, example=example))
    said = "make, check and list panels: the tasks of evaluations as files"
    panel = add_command(commands, "panel", said, example="steppo-gym panel list")
    _add_panel(panel.add_subparsers(required=True, metavar="what"))


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env", help="for example key_door; default: the panel's, or that of the model's run")
    parser.add_argument(
        "--model", required=True, help="folder of a run or a model, or its name on the hub; with --server, there"
    )
    parser.add_argument("--server", metavar="URL", help="a completions server that takes token ids, such as vLLM")
    parser.add_argument("--chat", action="store_true", help="the server takes messages (/v1/chat/completions)")
    parser.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="of the server's model, without --chat")
    parser.add_argument("--panel", metavar="NAME_OR_FILE", help="what to play; steppo-gym panel list has the names")
    parser.add_argument(
        "--split", help="play a split instead of a panel; default: that of the run's own tests, or test"
    )
    parser.add_argument("--tasks", type=int, metavar="N", help="the first N tasks alone")
    parser.add_argument("--tries", type=int, default=1, metavar="K", help="of each task (default: %(default)s)")
    parser.add_argument(
        "--temperature", type=float, help="default: 0, greedy, for one try, and 1 for several, which must differ"
    )
    parser.add_argument("--max_tokens", type=int, help="longest response; default: the run's, otherwise 512")
    parser.add_argument("--seed", type=int, default=0, help="of the sampling (default: %(default)s)")
    parser.add_argument("--slots", type=int, help="episodes at the same time; default: the run's, otherwise 16")
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of environments; 0 for none (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="of the results; default: evaluations/ with panel and model"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_env(parser)
    parser.set_defaults(run=partial(run_by_name, "steppo_gym.evaluation.commands:evaluate"))


def _add_panel(kinds: Any) -> None:
    make = add_command(
        kinds, "make", "write the panel of a split", example="steppo-gym panel make --env webshop --out shop.json"
    )
    make.add_argument("--env", required=True, help="for example alfworld")
    make.add_argument("--split", help="default: test")
    make.add_argument("--tasks", type=int, metavar="N", help="the first N tasks alone")
    make.add_argument("--name", help="default: that of the file")
    make.add_argument("--out", type=Path, required=True, metavar="FILE", help="the panel, for example mine.json")
    make.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_env(make)
    make.set_defaults(run=partial(run_by_name, "steppo_gym.evaluation.commands:make"))

    said = "compare a panel with data: missing and changed tasks, another order"
    check = add_command(kinds, "check", said, example="steppo-gym panel check key_door-test")
    check.add_argument("panel", help="a name or a file")
    check.add_argument("--env", help="the panel's environment, if it is module:id: a panel alone has nothing imported")
    check.add_argument("--quiet", action="store_true", help="no progress bar")
    _add_env(check)
    check.set_defaults(run=partial(run_by_name, "steppo_gym.evaluation.commands:check"))

    listing = add_command(kinds, "list", "list the panels of this package", example="steppo-gym panel list")
    listing.set_defaults(run=partial(run_by_name, "steppo_gym.evaluation.commands:list_panels"))


def _add_env(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="PATH", help="official files, for panels of them")
    add_env_arguments(parser)
