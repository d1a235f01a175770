"""Which flag was meant."""

from __future__ import annotations

import doctest
import subprocess
import sys

import pytest

from steppo_gym import command_line
from steppo_gym.command_line import CommandParser, add_command, did_you_mean, unknown_arguments

FLAGS = ["--seed", "--temperature", "--env_args", "--gae_lambda", "--group_size"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--temprature", "--temperature"),
        ("--env-args", "--env_args"),
        ("--env-arg", "--env_args"),
        ("--GAE-Lambda", "--gae_lambda"),
        ("--lambda", "--gae_lambda"),
        ("--x", None),
        ("", None),
        ("--" + "e" * 1000, None),
    ],
)
def test_the_nearest_flag_is_named(word, meant):
    assert did_you_mean(word, FLAGS) == (f". Did you mean {meant}?" if meant else "")


def test_values_of_unknown_flags_are_no_flags():
    assert unknown_arguments(["--sed=1"], FLAGS) == "unknown flag --sed. Did you mean --seed?"
    assert unknown_arguments(["7", "--sed", "1"], FLAGS) == "unknown flag --sed. Did you mean --seed?"
    assert len(unknown_arguments(["x" * 1000], FLAGS)) < 120


def test_the_examples_are_true():
    assert doctest.testmod(command_line).failed == 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            ["plya"],
            "command: expected one of play, count, got 'plya'. Did you mean play? gym --help says more.\n",
        ),
        (["zzz"], "argument command: expected one of play, count, got 'zzz'. gym --help says more.\n"),
        (["count", "4"], "argument number: expected one of 1, 2, got 4. gym count --help says more.\n"),
    ],
)
def test_a_choice_that_is_none_is_told_the_nearest(typed, said, capsys):
    parser = CommandParser(prog="gym")
    commands = parser.add_subparsers(required=True, metavar="command")
    add_command(commands, "play", "play a game", example="gym play chess")
    add_command(commands, "count", "count", example="gym count 1").add_argument("number", type=int, choices=(1, 2))
    assert parser.parse_args(["count", "2"]).number == 2
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(typed)
    assert capsys.readouterr().err.endswith(said)


def test_a_command_says_what_it_does_in_its_own_help_too(capsys):
    parser = CommandParser(prog="gym")
    add_command(parser.add_subparsers(), "play", "play a game", example="gym play chess")
    assert "play a game" in parser.format_help()
    with pytest.raises(SystemExit, match="0"):
        parser.parse_args(["play", "--help"])
    shown = capsys.readouterr().out
    assert "\nPlay a game.\n" in shown and shown.endswith("\nExample: gym play chess\n")


@pytest.mark.parametrize(
    "printing",
    ["print('x')", "print('x' * 10**5)", "print('x', flush=True)", "sys.exit('said')", "print('x'); sys.exit(0)"],
)
def test_who_has_read_enough_is_told_nothing(printing):
    imports = "import sys; from steppo_gym.command_line import ending_when_unread"
    program = f"{imports}\nwith ending_when_unread(): {printing}"
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        said = process.stderr.read()
    assert (process.wait(), said) == ((1, b"said\n") if "said" in printing else (141, b""))


def test_the_command_line_ends_quietly_where_nobody_reads():
    command = [sys.executable, "-c", "import sys; from steppo_gym.cli import main; sys.exit(main(['panel', 'list']))"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
