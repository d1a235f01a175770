"""The check of one card, with tiny models and without a card."""

from __future__ import annotations

import json
import time

import pytest
from benchmark_scripts import load_benchmark

check = load_benchmark("gpu_check")


def test_every_section_runs_with_tiny_models(tmp_path, capsys):
    out = tmp_path / "found.json"
    check.main(["--tiny", "--out", str(out), "--only", "float32", "update LoRA"])
    found = json.loads(out.read_text())["sections"]
    assert len(found) == 8
    assert {name: section.get("error") for name, section in found.items()} == dict.fromkeys(found)
    assert found["job float32"]["resume_difference"] == 0
    assert found["sampling float32"]["sampling_gap"] < 1e-5
    full, head = (found[f"update {kind} critic, float32"] for kind in ("full", "head"))
    lora = found["update LoRA, lora critic, float32"]
    assert head["critic_trained_m"] * 1e6 == pytest.approx(check.TINY.model["hidden_size"] + 1)
    assert head["critic_trained_m"] < lora["critic_trained_m"] < full["critic_trained_m"]
    assert lora["policy_trained_m"] < full["policy_trained_m"]
    # A critic that knows nothing is wrong by the same amount whatever it is made of.
    assert full["value_loss"] == pytest.approx(head["value_loss"]) == pytest.approx(lora["value_loss"])
    assert full["value_loss"] > 0 and full["critic_grad_norm"] > 0
    printed = capsys.readouterr().out
    assert all(f"| {name} | ok |" in printed for name in found)


def test_a_section_that_fails_or_takes_too_long_is_reported():
    def fail():
        raise ValueError("no such thing")

    failed, late = check.run_section(fail, 5.0), check.run_section(lambda: time.sleep(100), 0.05)
    assert (failed["status"], failed["error"]) == ("failed", "ValueError: no such thing")
    assert (late["status"], late["error"]) == ("failed", "TimeoutError: more than 0 s")
    assert late["seconds"] < 50


def test_what_does_not_begin_in_time_is_skipped(tmp_path):
    found = check.main(["--tiny", "--out", str(tmp_path / "found.json"), "--seconds", "0"])
    assert {section["status"] for section in found["sections"].values()} == {"skipped"}
