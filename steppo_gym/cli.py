"""The `steppo-gym` command: fetch official data, list the environments, play or check one, index a corpus and serve it.

Examples:
    steppo-gym envs
    steppo-gym play steppo/KeyDoor-v0 --expert
    steppo-gym check my_module:my/Env-v0
    steppo-gym download alfworld
    steppo-gym index wiki.jsonl.gz
    steppo-gym serve-search wiki.jsonl.gz --port 8000
    steppo-gym index-papers papers.jsonl
    steppo-gym serve-papers papers.jsonl --port 4000
    steppo-gym view runs/key_door-steppo-seed0
    steppo-gym compare runs/key_door-*
    steppo-gym plot runs/key_door-* --out curves.svg
    steppo-gym merge runs/key_door-steppo-seed0
    steppo-gym evaluate --model runs/key_door-steppo-seed0 --panel key_door-test
    steppo-gym compare evaluations/one evaluations/other
    steppo-gym panel check key_door-test
    steppo-gym audit runs/key_door-steppo-seed0 --env key_door
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import gymnasium

from steppo_gym.audit.arguments import add_audit_command
from steppo_gym.command_line import CommandParser, add_command, ending_when_unread, run_by_name
from steppo_gym.env import TextEnv
from steppo_gym.env_arguments import add_env_arguments, env_argument
from steppo_gym.errors import SteppoGymError
from steppo_gym.evaluation.arguments import add_evaluation_commands
from steppo_gym.keywords import path_of
from steppo_gym.play import play
from steppo_gym.quoting import terminal_text
from steppo_gym.registration import env_id_of, find_modules_here, register_envs, registered_ids
from steppo_gym.rollouts.env_host import EnvFactory, describe_error
from steppo_gym.storage.archives import DATA_SETS, Archive

EXPLAINED = (
    *(SteppoGymError, gymnasium.error.Error, ImportError, ValueError, TypeError, OSError),
    # Of an environment that has no expert, and says so.
    NotImplementedError,
)
"""Errors whose text is enough."""
Env = TypeVar("Env")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns:
        Exit status: 0, 1 after an error that was explained, 130 after an interruption.

    Raises:
        SystemExit: after `--help` and `--version` with 0, after arguments that are none with 2, with 141 where nobody
            reads what is printed.
    """
    register_envs()
    with ending_when_unread():
        return _run(_parser().parse_args(arguments))


def _run(options: argparse.Namespace) -> int:
    try:
        return options.run(options)
    except BrokenPipeError:
        raise
    except EXPLAINED as error:
        _warn(" ".join(str(error).split()) or type(error).__name__)
        return 1
    except KeyboardInterrupt:
        print("\nsteppo-gym: interrupted.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="steppo-gym",
        description="Text environments whose action is one full response: play, evaluate, look, compare, audit.",
        epilog="Training: python -m steppo_gym.trainers.steppo --help, and likewise ppo, grpo, gigpo, ...",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('steppo-gym')}")
    commands = parser.add_subparsers(required=True, metavar="command")

    # In the order of first use, which is that of --help.
    _add_environments(commands)
    add_evaluation_commands(commands)
    _add_runs(commands)
    add_audit_command(commands)
    _add_models(commands)
    _add_data(commands)
    return parser


def _add_environments(commands: Any) -> None:
    listing = add_command(commands, "envs", "list the environments", example="steppo-gym envs")
    listing.set_defaults(run=_list_envs)

    game = add_command(
        commands,
        "play",
        "play an environment in the terminal, or watch its expert",
        example="steppo-gym play key_door --expert --seed 0",
    )
    game.add_argument("env_id", metavar="env", help="for example key_door; module:id for an environment of yours")
    game.add_argument("--task_id", help="default: a random task")
    game.add_argument("--seed", type=int, help="of the task that is drawn; default: another one each time")
    game.add_argument("--expert", action="store_true", help="watch the expert")
    add_env_arguments(game)
    game.set_defaults(run=_play)

    check = add_command(
        commands,
        "check",
        "check that an environment keeps the contract",
        example="steppo-gym check my_module:my/Env-v0",
    )
    check.add_argument("env_id", metavar="env", help="for example key_door; module:id for an environment of yours")
    check.add_argument("--tag", default="action", help="the tag that holds an action (default: %(default)s)")
    check.add_argument("--episodes", type=int, default=3, help="tasks each rule is checked on (default: %(default)s)")
    add_env_arguments(check)
    check.set_defaults(run=_check)


def _add_runs(commands: Any) -> None:
    looking = add_command(
        commands,
        "view",
        "look at runs in a browser: curves, episodes, the credit of tokens",
        example="steppo-gym view runs/key_door-steppo-seed0",
    )
    looking.add_argument(
        "runs", nargs="+", type=Path, metavar="run", help="the folder of a run, an evaluation or an audit"
    )
    looking.add_argument("--port", type=int, help="of the server (default: a free one)")
    looking.add_argument("--html", type=Path, metavar="FILE", help="write one page instead that needs no server")
    looking.add_argument("--episodes", type=int, help="at most so many in the page of --html (default: 200)")
    looking.set_defaults(run=partial(run_by_name, "steppo_gym.view.commands:view"))

    comparison = add_command(
        commands,
        "compare",
        "a table of runs: intervals over seeds, differences, time to a score; or two evaluations",
        example="steppo-gym compare runs/key_door-*",
    )
    comparison.add_argument(
        "runs", nargs="+", type=Path, metavar="run", help="the folder of a run, or of an evaluation"
    )
    comparison.add_argument("--score", type=float, help="greedy success from 0 to 1 (default: 0.5)")
    comparison.add_argument("--reference", metavar="ROW", help="what the others are compared with; default: the first")
    comparison.set_defaults(run=partial(run_by_name, "steppo_gym.baselines.own_runs:compare"))

    drawing = add_command(
        commands,
        "plot",
        "draw a curve of runs, with intervals over seeds",
        example="steppo-gym plot runs/key_door-* --out curves.svg",
    )
    drawing.add_argument("runs", nargs="+", type=Path, metavar="run", help="the folder of a run")
    drawing.add_argument(
        "--out", "--output", type=Path, required=True, metavar="FILE", help="for example curves.svg or .png"
    )
    drawing.add_argument("--metric", default="greedy", help="one of metrics.jsonl (default: success of evaluations)")
    drawing.set_defaults(run=partial(run_by_name, "steppo_gym.baselines.own_runs:plot"))


def _add_models(commands: Any) -> None:
    memory = add_command(
        commands,
        "memory",
        "what a training run would need of each card, before it is started",
        example="steppo-gym memory --model Qwen/Qwen3-1.7B --card 24 -- --use_peft --dtype bfloat16",
    )
    memory.add_argument("--model", metavar="NAME_OR_FOLDER", help="of the policy")
    memory.add_argument("--env", help="as of the training scripts (default: alfworld)")
    memory.add_argument("--algorithm", default="steppo", help="name of the training script (default: %(default)s)")
    memory.add_argument("--gpus", type=int, default=1, help="cards, one process each (default: %(default)s)")
    memory.add_argument("--nodes", type=int, default=1, help="machines they are in (default: %(default)s)")
    memory.add_argument("--card", type=float, default=80.0, help="GB of one card (default: %(default)g)")
    memory.add_argument("flags", nargs="*", metavar="-- flag", help="of the training script, after --")
    memory.set_defaults(run=partial(run_by_name, "steppo_gym.trainers.memory.command:run"))

    merging = add_command(
        commands,
        "merge",
        "make one model of trained adapters and the model they belong to",
        example="steppo-gym merge runs/key_door-steppo-seed0",
    )
    merging.add_argument("folder", type=Path, help="of a run with --use_peft, or of adapters")
    merging.add_argument("--out", type=Path, metavar="FOLDER", help="default: merged/ in the run's folder")
    merging.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="of the weights; default: the base model's"
    )
    merging.set_defaults(run=partial(run_by_name, "steppo_gym.trainers.results.merging:run"))


def _add_data(commands: Any) -> None:
    fetch = add_command(commands, "download", "fetch and unpack official data", example="steppo-gym download alfworld")
    fetch.add_argument("data_set", choices=sorted(DATA_SETS))
    fetch.add_argument(
        "--data", type=Path, metavar="FOLDER", help="where to; default: the data set's own variable, or its cache"
    )
    fetch.add_argument("--url", action="append", help="fetch this file instead of the official ones; may be repeated")
    fetch.add_argument("--quiet", action="store_true", help="no progress bar")
    fetch.set_defaults(run=_download)

    index = add_command(
        commands,
        "index",
        "build the search index of a corpus, if it is not there",
        example="steppo-gym index wiki.jsonl.gz",
    )
    index.add_argument("corpus", type=Path, help="lines or a list of {title, text} or {id, contents}, also as .gz")
    _add_index_options(index)
    index.set_defaults(run=_index)

    server = add_command(
        commands,
        "serve-search",
        "answer searches over HTTP, as Search-R1's /retrieve",
        example="steppo-gym serve-search wiki.jsonl.gz --port 8000",
    )
    server.add_argument("source", help="a corpus, or the folder that `steppo-gym index` printed")
    server.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    server.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    server.add_argument("--topk", type=int, default=3, help="hits where a request asks for none (default: %(default)s)")
    _add_index_options(server)
    server.set_defaults(run=_serve_search)

    papers = add_command(
        commands,
        "index-papers",
        "build the corpus of some papers, if it is not there",
        example="steppo-gym index-papers papers.jsonl",
    )
    papers.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="file",
        help="JSON lines with paper_id and title, and where known abstract, date, authors, references (paper_ids) and "
        "num_citations; or answers of Semantic Scholar",
    )
    papers.add_argument("--generated", action="store_true", help="the references in our own format were made up")
    papers.add_argument("--rebuild", action="store_true", help="build it again")
    papers.add_argument("--quiet", action="store_true", help="no progress bar")
    papers.set_defaults(run=partial(run_by_name, "steppo_gym.envs.paper_search.serving.commands:index"))

    paper_server = add_command(
        commands,
        "serve-papers",
        "serve papers over HTTP, as the Semantic Scholar API",
        example="steppo-gym serve-papers papers.jsonl --port 4000",
    )
    paper_server.add_argument("corpus", help="the folder that `steppo-gym index-papers` printed, or a file of papers")
    paper_server.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    paper_server.add_argument("--port", type=int, default=4000, help="0 takes a free one (default: %(default)s)")
    paper_server.set_defaults(run=partial(run_by_name, "steppo_gym.envs.paper_search.serving.commands:serve"))


def _add_index_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--engine", help="bm25, tantivy, dense:MODEL or hybrid:MODEL; default: bm25 up to a million passages"
    )
    parser.add_argument("--rebuild", action="store_true", help="build the index again")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def _list_envs(options: argparse.Namespace) -> int:
    del options
    for env_id in registered_ids():
        try:
            env = gymnasium.make(env_id)
        except (SteppoGymError, ImportError) as error:
            print(f"{env_id:26} not available: {error}")
            continue
        print(f"{env_id:26} {len(cast(TextEnv, env.unwrapped).task_ids):6} tasks to train on")
        env.close()
    return 0


def _play(options: argparse.Namespace) -> int:
    env_id = env_id_of(options.env_id)
    find_modules_here(env_id)
    env = _made(EnvFactory(env_id, {"context": "append", **dict(map(env_argument, options.env_args))}).make)
    try:
        play(env, task_id=options.task_id, seed=options.seed, expert=options.expert)
    finally:
        env.close()
    return 0


def _check(options: argparse.Namespace) -> int:
    # Only this command needs Gymnasium's checker.
    from steppo_gym.testing import check_text_env

    env_id = env_id_of(options.env_id)
    find_modules_here(env_id)
    make_env = partial(gymnasium.make, env_id, **dict(map(env_argument, options.env_args)))
    _made(make_env).close()  # an environment that cannot be made breaks no rule
    check_text_env(make_env, episodes=options.episodes, tag=options.tag)
    print(f"{env_id} keeps the contract.")
    return 0


def _made(make_env: Callable[[], Env]) -> Env:
    """A new environment; what its own code raises becomes one line."""
    try:
        return make_env()
    except EXPLAINED:
        raise
    except Exception as error:
        raise SteppoGymError(describe_error(error)) from error


def _download(options: argparse.Namespace) -> int:
    # Only this command needs the HTTP client.
    from steppo_gym.storage.data_set import data_folder, fetch_data_set

    data_set = DATA_SETS[options.data_set]
    folder = path_of(options.data) if options.data else data_folder(data_set)
    archives = tuple(map(Archive, options.url)) if options.url else data_set.archives
    fetch_data_set(
        archives, folder, origin=data_set.origin, progress=not options.quiet, say=partial(print, flush=True), warn=_warn
    )
    print(f"Done. Use it with data={str(folder)!r}.")
    return 0


def _index(options: argparse.Namespace) -> int:
    # The engines are loaded by the commands that need them.
    from steppo_gym.retrieval.opening import index_corpus

    print(index_corpus(options.corpus, engine=options.engine, rebuild=options.rebuild, progress=not options.quiet))
    return 0


def _serve_search(options: argparse.Namespace) -> int:
    from steppo_gym.retrieval.opening import open_retriever
    from steppo_gym.retrieval.remote.server import PATH, SearchServer
    from steppo_gym.storage.http_server import serve_until_signal

    retriever = open_retriever(
        options.source, engine=options.engine, rebuild=options.rebuild, progress=not options.quiet
    )
    with SearchServer(retriever, host=options.host, port=options.port, default_topk=options.topk) as server:
        print(f"Serving {options.source} on {server.url}{PATH}; Ctrl-C ends it.", flush=True)
        serve_until_signal(server)
    print("Stopped.")
    return 0


def _warn(message: str) -> None:
    # Messages quote files and servers.
    print(f"steppo-gym: {terminal_text(message)}", file=sys.stderr)
