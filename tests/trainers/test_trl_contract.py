"""What the trainer relies on in TRL and transformers is there, and is what its docstring lists."""

from __future__ import annotations

import ast
import inspect
import re
from importlib.metadata import version

import pytest
from transformers import Trainer
from trl import GRPOTrainer

from steppo_gym.errors import UnsupportedVersionError
from steppo_gym.trainers import step_trainer
from steppo_gym.trainers.playing_trainer import PlayingTrainer
from steppo_gym.trainers.recorded_trainer import RecordedTrainer
from steppo_gym.trainers.sampling_trainer import SamplingTrainer
from steppo_gym.trainers.step_trainer import StepTrainer
from steppo_gym.trainers.trl_settings import check_trl_version
from steppo_gym.trainers.updating_trainer import UpdatingTrainer

PARTS = (RecordedTrainer, PlayingTrainer, SamplingTrainer, UpdatingTrainer, StepTrainer)
LISTED = set(re.findall(r"`(_\w+|training_step|create_optimizer|evaluate|eos_token_ids)`", step_trainer.__doc__))


def own_methods():
    found = {name: method for part in PARTS for name, method in vars(part).items()}
    return {name: method for name, method in found.items() if inspect.isfunction(method)}


def test_the_installed_version_is_supported():
    check_trl_version(version("trl"))


@pytest.mark.parametrize("other", ["1.15.4", "1.17.0", "2.16.0", "0.9"])
def test_other_versions_are_refused_with_both_named(other):
    with pytest.raises(UnsupportedVersionError, match=rf"TRL 1\.16, found TRL {re.escape(other)}.*'trl>=1\.16,<1\.17'"):
        check_trl_version(other)


def test_overridden_methods_are_listed_and_exist_upstream():
    overridden = {name for name in own_methods() if hasattr(GRPOTrainer, name)} - {"__init__"}
    assert overridden
    assert overridden <= LISTED


@pytest.mark.parametrize("name", sorted(name for name in LISTED if name in own_methods()))
def test_an_override_takes_what_upstream_takes(name):
    upstream, own = inspect.signature(getattr(GRPOTrainer, name)), inspect.signature(getattr(StepTrainer, name))
    assert list(own.parameters) == list(upstream.parameters)
    for parameter, theirs in upstream.parameters.items():
        # An argument that may be left out upstream may be left out here.
        if theirs.default is not inspect.Parameter.empty:
            assert own.parameters[parameter].default is not inspect.Parameter.empty, parameter


def test_everything_listed_exists_upstream(make_trainer):
    upstream = inspect.getsource(GRPOTrainer) + inspect.getsource(Trainer)
    trainer = make_trainer()
    for name in LISTED:
        assert hasattr(GRPOTrainer, name) or (hasattr(trainer, name) and f"self.{name} = " in upstream), name


def test_private_attributes_that_are_used_are_listed():
    tree = ast.parse("".join(map(inspect.getsource, PARTS)))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    assigned = {
        node.attr
        for statement in ast.walk(tree)
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for node in ast.walk(statement)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    upstream = inspect.getsource(GRPOTrainer) + inspect.getsource(Trainer)
    of_upstream = {name for name in used - set(own_methods()) if re.search(rf"self\.{name}\b|def {name}\b", upstream)}
    assert "_metrics" in of_upstream
    assert of_upstream <= LISTED
    # And nothing is used that neither upstream nor this class has.
    assert used - of_upstream - set(own_methods()) <= assigned
