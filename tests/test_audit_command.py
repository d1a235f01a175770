"""`steppo-gym audit`: a whole audit in a folder, stopped and gone on with."""

from __future__ import annotations

import argparse
import json
import math
import re
import struct
import textwrap

import pytest

from steppo_gym.audit.arguments import add_audit_command
from steppo_gym.audit.points import Arm, AuditedPoint
from steppo_gym.audit.report import THIRDS, draw_figure, text_report, third
from steppo_gym.audit.scores import Error, Scores
from steppo_gym.audit.truth import truth_records
from steppo_gym.cli import main
from steppo_gym.trainers.auditing.command import _default_folder, _fill
from steppo_gym.view.episode_file import EpisodeFile
from steppo_gym.view.export import export
from steppo_gym.view.run_folder import open_runs

SIZES = "--tasks 3 --episodes_per_task 4 --points 6 --continuations 4 --alternatives 1 --group_size 2 --groups 3"


def audit(folder, *more, source="expert:0.5"):
    flags = f"{SIZES} --batches 10 --quiet".split()
    return main(["audit", source, "--env", "key_door", "--out", str(folder), *flags, *more])


def test_an_audit_that_was_stopped_goes_on_and_says_the_same(tmp_path, capsys):
    assert audit(tmp_path / "whole") == 0
    printed = capsys.readouterr().out
    whole = (tmp_path / "whole" / "points.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    assert len(lines) == 6
    assert "decision points; the choice matters by more than 0.1" in printed and "| grpo |" in printed
    assert "Left out because it reads a critic of steps, and none was kept with the policy: steppo, capo.\n" in printed
    assert "Left out because it plays branches of its own: vineppo, bpo.\n" in printed
    report = json.loads((tmp_path / "whole" / "report.json").read_text())
    assert report["points"] == 6 == sum(report["verdicts"].values())
    assert set(report["rules"]) >= {"grpo", "gigpo", "reinforce_pp", "empg"}
    assert (tmp_path / "whole" / "report.png").read_bytes().startswith(b"\x89PNG")
    shown = (tmp_path / "whole" / "truth.jsonl").read_bytes()
    assert f"steppo-gym view {tmp_path / 'whole'}" in printed
    # Stopped in the middle of its fourth line.
    (tmp_path / "whole" / "points.jsonl").write_text("".join(lines[:3]) + lines[3][:100])
    episodes = (tmp_path / "whole" / "episodes.jsonl").read_bytes()
    assert audit(tmp_path / "whole") == 0
    assert capsys.readouterr().out == printed
    again = (tmp_path / "whole" / "points.jsonl").read_text().splitlines()
    assert [json.loads(line)["point"] for line in again] == [json.loads(line)["point"] for line in lines]
    assert (tmp_path / "whole" / "episodes.jsonl").read_bytes() == episodes
    assert (tmp_path / "whole" / "truth.jsonl").read_bytes() == shown
    # The viewer shows what the report is made of.
    (run,) = open_runs([tmp_path / "whole"])
    file = EpisodeFile(run.episode_file("episodes.jsonl"), run.tokenizer_file())
    for point in (AuditedPoint.from_json(json.dumps(json.loads(line)["point"])) for line in lines):
        (step,) = file.steps(point.episode, point.place, 1)
        truth = step["truth"]
        assert truth["value"] == point.value() and truth["continuations"] == 4
        assert [one["response"] for one in truth["responses"]] == [arm.response for arm in point.arms]
        assert truth["responses"][0]["response"] == step["response"]
        interval = point.advantage(reach=1.0)
        assert truth["advantage"] == [interval.estimate, interval.low, interval.high]
        # An expert's ids are bytes; the last is the end of its message.
        assert "".join(step["pieces"]) == step["response"] + "<end>"
    page, included, _ = export([run])
    assert included == 12 and "Audited steps" in page


def test_a_rule_of_ones_own_with_credit_of_the_wrong_shape_is_left_out(tmp_path, monkeypatch, capsys):
    text = """
    from steppo_gym.credit import Credit, CreditRule

    class Short(CreditRule):
        def __call__(self, records):
            return Credit("step", records.rewards[:-1])
    """
    (tmp_path / "short_rule.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    assert audit(tmp_path / "a", "--rule", "short_rule:Short") == 0
    printed = capsys.readouterr().out
    assert "| grpo |" in printed and "| short |" not in printed
    assert re.search(r"its advantages must have shape \(\d+,\), got \(\d+,\): short\.", printed)


def test_what_cannot_be_audited_is_one_line(tmp_path, capsys):
    assert audit(tmp_path / "a", "--env_args", "routine_steps=1", "thought_words=2") == 0
    capsys.readouterr()
    for more, source, message in (
        ((), "expert:0.4", "holds an audit with another source"),
        (("--env_args", "routine_steps=2"), "expert:0.5", "holds an audit with another env_kwargs"),
        ((), "expert:x", "Expected expert:NOISE"),
        ((), "expert:2", "noise must be between 0 and 1"),
        (("--continuations", "1"), "expert:0.5", "continuations must be at least 2"),
        (("--batches", "0"), "expert:0.5", "batches must be at least 1, got 0"),
        (("--group_size", "0"), "expert:0.5", "group_size must be at least 1, got 0"),
        (("--threshold", "nan"), "expert:0.5", "threshold must be at least 0, got nan"),
        (("--temperature", "nan"), "expert:0.5", "temperature must be at least 0, got nan"),
        (("--seed", "-1"), "expert:0.5", "seed must be at least 0, got -1"),
        (("--group_size", "5", "--out", str(tmp_path / "b")), "expert:0.5", "group_size is at most 4, the episodes"),
    ):
        assert audit(tmp_path / "a", *more, source=source) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert not (tmp_path / "b").exists()
    (tmp_path / "a" / "points.jsonl").write_text('{"point": 1}\n')
    same = ("--env_args", "routine_steps=1", "thought_words=2", "--output", str(tmp_path / "a"))
    assert audit(tmp_path / "b", *same) == 1
    assert "holds a line that is no audited point" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "number", "part"), [(0, 1, 0), (0, 3, 0), (1, 3, 1), (2, 3, 2), (9, 10, 2), (4, 10, 1)]
)
def test_parts_of_an_episode(place, number, part):
    assert third(AuditedPoint(0, 0, place, number, 0, (), ())) == THIRDS[part]


def test_a_report_says_what_scores_are_of_and_where_there_are_none():
    found = {"points": 2, "threshold": 0.1, "rho": 0.5, "rho_interval": [0.1, 0.9], "verdicts": {}, "along": {}}
    known = Scores(8, 0.75, 0.5, 0.25, 1.0, Error(0.4, 0.1, 2.0))
    none = Scores(8, math.nan, math.nan, math.nan, 0.0, Error(math.nan, math.nan, math.nan))
    text = text_report(found, {"grpo": known}, {})
    assert "| grpo | 0.75 | 0.50 | 0.25 | 0.40 | 0.10 | 1.00 |" in text and "credit that knows nothing has 0.5" in text
    assert "nothing to score by" not in text
    text = text_report(found, {"grpo": known, "rloo": none}, {})
    assert "| rloo | - | - | - | - | - | 0.00 |" in text and "-: nothing to score by." in text and "nan" not in text


@pytest.mark.parametrize("rules", [1, 14])
def test_a_figure_of_many_rules_fits_a_page(rules, tmp_path):
    point = AuditedPoint(0, 0, 0, 1, 0, (0.0, 1.0), (Arm((1,), "a", 2, (1.0, 1.0)),))
    draw_figure([point], {f"rule{i}": ([0], [1.0]) for i in range(rules)}, tmp_path / "figure.png", 1.0)
    # The size stands in the first bytes of the file.
    width, height = struct.unpack(">II", (tmp_path / "figure.png").read_bytes()[16:24])
    assert width < 1600 and height < 1600


def test_the_truth_of_a_point_by_hand():
    arms = (Arm((1,), "a", 2, (1.0, None, 1.0)), Arm((2,), "b", 1, (None, None, None)))
    point = AuditedPoint(7, 1, 2, 3, 0, (0.0, 1.0, None), arms)
    samples = {"grpo": ([0, 0, 1], [1.0, 3.0, 9.0]), "rloo": ([1], [2.0])}
    record, _ = truth_records([point, point], samples, {"grpo": 0.5, "rloo": float("nan")}, 0.1, reach=1.0)
    assert (record["episode"], record["place"], record["value"], record["continuations"]) == (1, 2, 0.5, 3)
    # Nothing is known of the other response, so nothing of the choice.
    assert record["verdict"] == "open"
    taken, other = record["responses"]
    # Only the first continuations of both sides were played.
    assert taken["advantage"][0] == 1.0 and taken["value"] == 1.0 and taken["draws"] == 2
    assert other == {"response": "b", "draws": 1, "value": None, "advantage": None}
    # Of the rule whose batches had the other point alone nothing is known here.
    assert record["credit"] == {"grpo": {"mean": 2.0, "std": 1.0, "batches": 2, "scaled": 1.0}}


@pytest.mark.parametrize(
    ("source", "iteration", "folder"),
    [
        ("runs/key_door-steppo-seed0", None, "audits/key_door-steppo-seed0"),
        ("runs/key_door-steppo-seed0/", 5, "audits/key_door-steppo-seed0-iteration-5"),
        ("runs/mine/checkpoint-8", None, "audits/key_door-mine-checkpoint-8"),
        ("expert:0.5", None, "audits/key_door-expert-0.5"),
    ],
)
def test_folders_have_names_of_their_own(source, iteration, folder):
    assert _default_folder("key_door", argparse.Namespace(source=source, iteration=iteration)) == folder


def test_a_run_is_audited_at_the_temperature_it_was_trained_at():
    trained = {"config": {"temperature": 0.7, "num_generations": 2, "episodes_per_iteration": 8}}
    for given, run, wanted in (([], trained, 0.7), ([], {}, 1.0), (["--temperature", "0.3"], trained, 0.3)):
        parser = argparse.ArgumentParser()
        add_audit_command(parser.add_subparsers())
        options = parser.parse_args(["audit", "runs/a", *given])
        _fill(options, run, recorded=bool(run))
        assert options.temperature == wanted
