"""Recorded audits and their page: the order of rules in an audit beside the order in which they learned."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess

import numpy as np
import pytest

from steppo_gym.audit.scores import credit_error
from steppo_gym.baselines import audits
from steppo_gym.baselines.audits import Audited, read_audits, recorded, run
from steppo_gym.baselines.protocols import KEY_DOOR
from steppo_gym.baselines.records import RESULTS
from steppo_gym.baselines.tables.audits import agreement, alignment, audits_page, learned_by

RULES = ("a", "b", "c", "d", "e")


def points(noise, number=40, seed=0):
    """Points of an audit in which each rule gives the truth and noise of its own size."""
    rng = np.random.default_rng(seed)
    found = []
    for advantage in rng.normal(size=number):
        credit = {name: [advantage + size * rng.normal(), size] for name, size in noise.items()}
        found.append({"advantage": [advantage, advantage - 1, advantage + 1], "verdict": "open", "credit": credit})
    return found


NOISE = dict(zip(RULES, (0.1, 0.5, 1.0, 2.0, 5.0), strict=True))
LEARNED = {name: [0.9 - 0.1 * i, 0.92 - 0.1 * i] for i, name in enumerate(RULES)}


def test_alignment_is_what_the_total_error_leaves():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6)
    steps = np.repeat(np.arange(6), 50)
    credit = 0.7 * truth[steps] + rng.normal(size=300)
    by = [credit[steps == d] for d in range(6)]
    found = alignment([x.mean() for x in by], [x.std() for x in by], truth)
    assert 1 - found**2 == pytest.approx(credit_error(steps.tolist(), credit, truth).total)
    assert alignment(3 * truth, np.zeros(6), truth) == pytest.approx(1.0)
    assert alignment(-truth, np.zeros(6), truth) == pytest.approx(-1.0)
    assert alignment(np.zeros(6), np.zeros(6), truth) == 0.0


def test_rules_that_learn_as_they_are_aligned_agree():
    found = agreement(points(NOISE), LEARNED)
    assert (found.rules, found.spearman) == (5, pytest.approx(1.0))
    # Of 120 orders two agree as much, this one and its reverse.
    assert found.p_value == pytest.approx(2 / 120, abs=0.012)
    assert 0.6 < found.low <= found.high <= 1.0
    against = agreement(points(NOISE), {name: LEARNED[other] for name, other in zip(RULES, RULES[::-1], strict=True)})
    assert against.spearman == pytest.approx(-1.0) and against.p_value == pytest.approx(2 / 120, abs=0.012)


def test_where_rules_are_alike_nothing_is_certain():
    seeds = np.random.default_rng(1).normal(0.5, 0.05, (len(RULES), 3))
    found = agreement(points(dict.fromkeys(RULES, 1.0)), dict(zip(RULES, seeds.tolist(), strict=True)))
    assert found.high - found.low > 0.8 and found.p_value > 0.05


def test_too_few_rules_are_not_compared():
    with pytest.raises(ValueError, match="3 rules are in both"):
        agreement(points(NOISE), {name: LEARNED[name] for name in RULES[:3]})
    nothing = [{**point, "advantage": None} for point in points(NOISE)]
    with pytest.raises(ValueError, match="0 rules are in both"):
        agreement(nothing, LEARNED)


def test_learning_is_read_from_recorded_runs():
    learned = learned_by(KEY_DOOR, RESULTS)
    assert {"steppo", "ppo", "grpo", "gigpo"} <= set(learned) and "steppo_groups" not in learned
    assert all(len(scores) == 5 and 0 <= min(scores) <= max(scores) <= 1 for scores in learned.values())


def written_audit(folder, noise):
    folder.mkdir(parents=True)
    lines = [
        {"responses": [{"advantage": p["advantage"]}], "verdict": p["verdict"],
         "credit": {name: {"mean": mean, "std": std, "scaled": 0} for name, (mean, std) in p["credit"].items()}}
        for p in points(noise)
    ]  # fmt: skip
    (folder / "truth.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "settings.json").write_text(json.dumps({"source": "/home/somebody/runs/x", "model_hash": "ab"}))
    scores = {"sign": 0.75, "cosine": None}
    report = {"points": 40, "rho": 0.5, "rho_interval": [0.3, 0.7], "verdicts": {"open": 40},
              "along": {"first third": {"value": 0.25}}, "rules": dict.fromkeys(noise, scores)}  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_what_is_recorded_is_not_played_again_and_makes_the_page(tmp_path, monkeypatch):
    noise = dict(zip(("steppo", "grpo", "gigpo", "rloo", "gspo"), NOISE.values(), strict=True))
    played = []

    @dataclasses.dataclass(frozen=True)
    class Instant(Audited):
        """Nothing is trained; an audit is written instead of played."""

        def train(self):
            return dict.fromkeys(audits.WHERE, "somewhere")

        def audit(self, where, source, sizes):
            played.append((where, source, *sizes))
            folder = written_audit(self.runs / where, noise)
            return recorded(folder) | {"task": self.name, "where": where, "seed": self.seed, "commit": "abc"}

    results = tmp_path / "results"
    run(Instant("key_door", 0, tmp_path / "runs"), results, ["--points", "40"])
    assert [one[0] for one in played] == ["start", "middle", "end"] and played[0][1:] == ("somewhere", "--points", "40")
    run(Instant("key_door", 0, tmp_path / "none"), results, [])
    assert len(played) == 3
    found = read_audits(results)
    assert [one["where"] for one in found] == list(audits.WHERE)
    assert found[0]["settings"] == {"source": "", "model_hash": "ab"} and len(found[0]["points"]) == 40
    page = audits_page(found, audits.TASKS, RESULTS)
    assert "## KeyDoor" in page and "| start | 40 | 50 [30, 70] | open 40 | 0.25 | abc |" in page
    assert "| steppo | 0.75 | - | 0.99 |" in page
    assert "| KeyDoor | end | 5 | " in page
    assert audits_page([], audits.TASKS, RESULTS).count("##") == 1


def test_a_run_of_the_default_policy_is_its_protocols(tmp_path):
    arguments = Audited("key_door", 3, tmp_path, ("--iterations", "2")).arguments
    assert arguments[:4] == ["--env", "key_door", "--start", "warm"]
    # The later of two equal flags counts.
    last = {name: value for name, value in itertools.pairwise(arguments) if name.startswith("--")}
    assert (last["--iterations"], last["--test_tasks"], last["--seed"]) == ("2", "0", "3")
    assert last["--learning_rate"] == "0.001" and last["--output_dir"] == str(tmp_path / "key_door-seed3")


def test_the_written_page_is_made_from_the_recorded_audits(capsys):
    audits.main(["report"])
    assert audits.PAGE.read_text(encoding="utf-8") + "\n" == capsys.readouterr().out


def test_a_training_that_was_ended_before_its_first_checkpoint_begins_again(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    audited = Audited("hotpotqa", 0, tmp_path)
    audited.train()
    audited.folder.mkdir()
    (audited.folder / "config.json").write_text("{}")
    audited.train()
    assert [command[-1] for command in commands] == ["10", "--resume"]
