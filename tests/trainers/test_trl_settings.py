"""Every setting of GRPOConfig is ours, used, computed from ours, or refused; and what is said to be used is read."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import MISSING

import pytest
import transformers
import trl
from trl.generation import vllm_generation
from trl.trainer import callbacks
from trl.trainer.grpo_config import GRPOConfig

from steppo_gym.trainers import step_trainer, updating_trainer
from steppo_gym.trainers.step_config import StepConfig
from steppo_gym.trainers.trl_settings import COMPUTED, SAMPLING, USED, fields_without_effect

OURS = frozenset(inspect.get_annotations(StepConfig))
LISTED = [name for names in USED.values() for name in names]
REFUSED = fields_without_effect(OURS)
REPLACED = {
    # Of GRPOTrainer and Trainer: overridden, or reached by what is overridden alone.
    "training_step", "evaluate", "evaluation_loop", "prediction_step", "predict", "prediction_loop", "_prepare_inputs",
    "_generate_and_score_completions", "_calculate_rewards", "_compute_loss", "compute_loss", "compute_liger_loss",
    "get_batch_samples", "_get_num_items_in_batch", "get_off_policy_mask", "get_sapo_token_loss",
    "get_vespo_token_loss", "get_gamma_weights", "get_eval_dataloader",
    "get_test_dataloader", "_get_eval_sampler", "_get_top_entropy_mask",
    "_track_num_input_tokens",
}  # fmt: skip


def make_config(**settings):
    return StepConfig(output_dir="unused", use_cpu=True, report_to="none", **settings)


def default_of(name):
    field = GRPOConfig.__dataclass_fields__[name]
    return field.default if field.default_factory is MISSING else field.default_factory()


def other_value(name):
    """A value that is not the default."""
    default = default_of(name)
    if isinstance(default, bool):
        return not default
    return default + 1 if isinstance(default, int | float) else "something else"


def kept_source():
    """What is left of Trainer and GRPOTrainer, and what they call with their settings."""
    modules = (
        transformers.trainer, transformers.trainer_callback, transformers.trainer_utils, transformers.training_args,
        transformers.trainer_optimizer, transformers.integrations.integration_utils, trl.trainer.grpo_trainer,
        callbacks, vllm_generation, step_trainer, updating_trainer,
    )  # fmt: skip
    for module in modules:
        text = inspect.getsource(module)
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (
                # Checks of the settings against each other are no use of them.
                node.name in REPLACED or (node.name == "__post_init__" and module is not transformers.training_args)
            ):
                lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)
        yield "\n".join(lines)


def test_nothing_is_listed_twice_or_not_there():
    every = [*LISTED, *COMPUTED, *SAMPLING]
    assert len(every) == len(set(every))
    assert set(every) <= set(GRPOConfig.__dataclass_fields__)
    assert not set(every) & OURS


@pytest.mark.parametrize("name", [*REFUSED, *COMPUTED, *SAMPLING])
def test_what_has_no_effect_is_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"\b{name}\b"):
        make_config(**{name: other_value(name)})


@pytest.mark.parametrize(
    "name",
    [
        "delta", "sapo_temperature_neg", "vespo_k_pos", "pad_to_multiple_of", "vllm_importance_sampling_correction",
        "vllm_importance_sampling_mode", "cache_implementation", "num_generations_eval", "per_device_eval_batch_size",
        "loss_type", "scale_rewards", "entropy_coef", "data_seed", "label_smoothing_factor", "auto_find_batch_size",
    ],
)  # fmt: skip
def test_what_is_known_to_have_no_effect_is_among_it(name):
    assert name in REFUSED


def test_sampling_cannot_be_changed_by_a_side_door():
    with pytest.raises(ValueError, match="generation_kwargs: rollouts sample from the whole distribution"):
        make_config(generation_kwargs={"top_p": 0.5})


def test_the_defaults_are_no_changes():
    make_config(**{name: default_of(name) for name in REFUSED})


@pytest.mark.parametrize("name", LISTED)
def test_what_is_said_to_be_used_is_read_by_what_is_kept(name, kept):
    assert re.search(rf"\bargs\.{name}\b|\bself\.{name}\b", kept), name


@pytest.fixture(scope="module")
def kept():
    return "\n".join(kept_source())
