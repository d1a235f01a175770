"""The conformance vectors: what they are, who passes them, and that each fault is caught where it is named."""

from __future__ import annotations

import collections
import importlib.util
import json
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import generate_vectors
import jsonschema
import pytest
import vector_answers
from plain_rules import Plain
from vector_faults import FAULTS
from vector_references import WHITENED

from steppo_gym.credit import advantages, groups, whitening
from steppo_gym.trainers import newer_rules, rules

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "vectors" / "check.py"


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check = load(SCRIPT, "vectors_check")
VECTORS = list(check.read_vectors())


def failures(answer):
    """The vectors that an answering function gets wrong."""
    return [v["name"] for v in VECTORS if check.wrong_quantities(v, answer(v["rule"], v["settings"], v["episodes"]))]


def naming(fault):
    """The vectors that name a fault."""
    return [v["name"] for v in VECTORS if any(wrong["fault"] == fault for wrong in v["faults"])]


def run_check(*args):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
    done = subprocess.run([sys.executable, str(SCRIPT), *args], env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


class TestWhatTheyAre:
    def test_they_keep_the_schema(self):
        schema = json.loads((ROOT / "vectors" / "schema.json").read_text())
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for path in sorted((ROOT / "vectors" / "credit").glob("*.json")):
            assert [error.message for error in validator.iter_errors(json.loads(path.read_text()))] == []
        broken = [VECTORS[0] | {"rule": "no rule"}]
        assert not validator.is_valid(broken)

    def test_the_recorded_command_writes_the_same_bytes(self, tmp_path):
        generate_vectors.main(tmp_path)
        recorded = ROOT / "vectors" / "credit"
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(p.name for p in recorded.iterdir())
        for path in tmp_path.iterdir():
            assert path.read_bytes() == (recorded / path.name).read_bytes()

    def test_decimals_read_back_exactly(self):
        decimals = []
        for path in (ROOT / "vectors" / "credit").glob("*.json"):
            json.loads(path.read_text(), parse_float=decimals.append)
        assert len(decimals) > 10_000
        assert all(Decimal(repr(float(x))) == Decimal(x) for x in decimals)

    def test_there_is_something_of_everything(self):
        by_rule = collections.Counter(v["rule"] for v in VECTORS)
        assert set(by_rule) == set(generate_vectors.RULES)
        assert min(by_rule.values()) >= 10
        assert sum(len(v["episodes"]) for v in VECTORS) > 500
        assert len({v["name"] for v in VECTORS}) == len(VECTORS)
        episodes = [e for v in VECTORS for e in v["episodes"]]
        assert {e["ended"] for e in episodes} == {"terminated", "truncated", "failed"}
        assert {len(step["log_probs"]) for e in episodes for step in e["steps"]} == {1, 2, 3}

    @pytest.mark.parametrize("rule", generate_vectors.RULES)
    def test_every_loss_clips_some_terms_and_not_others(self, rule):
        gradients = [x for v in VECTORS if v["rule"] == rule for x in scalars(v["expected"]["gradients"])]
        assert 0.1 < sum(x == 0.0 for x in gradients) / len(gradients) < 0.9

    def test_every_fault_is_named_often_enough(self):
        assert min(len(naming(fault)) for fault in FAULTS) >= 5


def scalars(nested):
    return [x for part in nested for x in scalars(part)] if isinstance(nested, list) else [nested]


class TestWhoPasses:
    def test_this_package(self):
        assert failures(vector_answers.answer) == []

    def test_a_plain_implementation_without_this_package(self):
        code = (
            "import sys, runpy; sys.argv = ['check.py', 'plain_rules:answer'];"
            "sys.modules['steppo_gym'] = sys.modules['torch'] = None;"
            f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        )
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests")}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"{len(VECTORS)} passed, 0 failed; rules not answered: none\n"


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_a_mutant_fails_exactly_where_its_fault_is_named(self, fault):
        found = failures(lambda *vector: Plain(*vector, fault).answer())
        assert found == naming(fault)

    @pytest.mark.parametrize("fault", FAULTS)
    def test_the_wrong_values_are_those_of_the_mutant(self, fault):
        for v in VECTORS:
            for wrong in v["faults"]:
                if wrong["fault"] == fault:
                    mutant = Plain(v["rule"], v["settings"], v["episodes"], fault).answer()
                    named = {name: x for name, x in wrong.items() if name != "fault"}
                    assert [name for name, x in named.items() if not check.is_equal(x, mutant[name])] == [], v["name"]
                    assert check.likely_fault(v, mutant) is not None

    def test_faults_in_this_package_are_caught_where_they_are_named(self, monkeypatch):
        def without_bootstrap(rewards, values, final_values, lengths, gamma, lam):
            return ragged_gae(rewards, values, 0 * final_values, lengths, gamma, lam)

        ragged_gae = advantages.ragged_gae
        with monkeypatch.context() as patch:
            patch.setattr(advantages, "ragged_gae", without_bootstrap)
            assert failures(vector_answers.answer) == naming("zero_bootstrap")

        real = whitening.Moments.std.fget
        with monkeypatch.context() as patch:
            population = property(lambda m: real(m) * ((m.count - 1) / m.count) ** 0.5 if m.count else 0.0)
            patch.setattr(whitening.Moments, "std", population)
            whitened = [name for name in naming("wrong_ddof") if name.split("/")[0] in WHITENED]
            assert failures(vector_answers.answer) == whitened

        def one_late(self, name):
            if self.unit == "token":
                return [x for step in self.steps for x in step[name][1:]]
            return [step[name][1] for step in self.steps]

        with monkeypatch.context() as patch:
            patch.setattr(vector_answers.Vector, "of_decisions", one_late)
            assert failures(vector_answers.answer) == naming("value_one_token_late")

        def raw_when_alone(returns, group_ids, *, normalize_std=True, eps=1e-6):
            found = usual(returns, group_ids, normalize_std=normalize_std, eps=eps)
            for i, group in enumerate(group_ids):
                if list(group_ids).count(group) == 1:
                    found[i] = returns[i] / (1 + eps if normalize_std else 1)
            return found

        usual = groups.group_advantages
        with monkeypatch.context() as patch:
            for module in (groups, rules, newer_rules):
                patch.setattr(module, "group_advantages", raw_when_alone)
            compared = ("grpo", "dr_grpo", "gspo", "gigpo", "hgpo", "empg")
            named = [name for name in naming("raw_return_of_lone") if name.split("/")[0] in compared]
            assert [name for name in failures(vector_answers.answer) if name.split("/")[0] in compared] == named


class TestReader:
    def test_it_names_the_fault_and_fails(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from plain_rules import Plain\n"
            "def answer(*vector):\n"
            "    return Plain(*vector, 'zero_bootstrap').answer()\n"
        )
        environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'tests'}:{tmp_path}"}
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "mine:answer", "--rules", "steppo,grpo"],
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "steppo/truncated-0: wrong advantages, loss, gradients, returns" in done.stdout
        assert "these are the values of zero_bootstrap" in done.stdout
        assert "grpo/" not in done.stdout

    def test_what_is_not_answered_is_said_and_nothing_at_all_is_no_pass(self, tmp_path):
        (tmp_path / "none.py").write_text("def answer(*vector):\n    raise NotImplementedError\n")
        done = subprocess.run(
            [sys.executable, str(SCRIPT), "none:answer", "--rules", "bpo,grpo"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout) == (1, "0 passed, 0 failed; rules not answered: bpo, grpo\n")

    def test_a_rule_that_has_no_vectors_is_named(self, monkeypatch, capsys):
        monkeypatch.setattr(sys, "argv", ["check.py", "collections:OrderedDict", "--rules", "grpo,nobody"])
        with pytest.raises(SystemExit) as ended:
            check.main()
        assert ended.value.code == 2 and "--rules: no vectors of nobody; there are bpo, " in capsys.readouterr().err

    @pytest.mark.parametrize("found", [{}, {"advantage": []}])
    def test_an_answer_without_a_known_quantity_is_refused(self, found):
        with pytest.raises(ValueError, match="expected some of advantages, ratios, loss, gradients; got"):
            check.wrong_quantities(next(v for v in VECTORS if v["rule"] == "grpo"), found)

    def test_lengths_and_numbers_are_compared(self):
        assert check.is_equal([[1.0], []], [[1.0 + 1e-9], []])
        assert not check.is_equal([[1.0], []], [[1.0]])
        assert not check.is_equal([1.0], [float("nan")])
        assert not check.is_equal([1.0], [1.0001])
        for wrong in (1.0, None, [[1.0, 2.0]], [[1.0]], ["a"], {"a": 1}):
            assert not check.is_equal([[1.0], []], wrong)
        assert not check.is_equal(1.0, [1.0, 2.0])

    def test_it_is_short_and_needs_numpy_alone(self):
        source = SCRIPT.read_text()
        assert len(source.splitlines()) <= 110
        assert "steppo" not in source.split('"""')[2]


@pytest.mark.parametrize("named", ["no_such_module:answer", "json:answer", "json", ":"])
def test_an_answer_that_is_not_there_is_one_line(named, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["check.py", named])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit, match="2"):
        check.main()
    assert f"expected module:function, such as my_trainer.conformance:answer, got {named}: " in capsys.readouterr().err
