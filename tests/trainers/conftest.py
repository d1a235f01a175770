"""A tiny policy that has seen a little of KeyDoor, and trainers on it. Fast enough to train in every test."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from pathlib import Path

# Read when huggingface_hub and torch are imported, which is before any fixture runs.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from distributed_updates import update
from trainer_runs import settings_of
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

from steppo_gym.rollouts.demonstrations import MessageCodec, demonstrate
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.storage.cache import make_once
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.small_policy import STOP, SmallPolicyConfig, build_model, train_tokenizer
from steppo_gym.trainers.step_trainer import StepTrainer
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, demonstration_rows, imitate

torch.set_num_threads(1)

SETTINGS = {
    "iterations": 1,
    "episodes_per_iteration": 8,
    "updates_per_iteration": 1,
    "max_completion_length": 10,
    "learning_rate": 1e-3,
    "critic_learning_rate": 1e-3,
    "num_slots": 8,
    "num_env_workers": 0,
    "evaluate_every": 0,
    "save_every": 0,
    "report_to": "none",
    "disable_tqdm": True,
    "use_cpu": True,
}

# Of transformers, about a property that peft still reads.
LIBRARY_WARNINGS = ("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",)


def pytest_collection_modifyitems(items):
    here = [item for item in items if Path(__file__).parent in item.path.parents]
    for item, warning in itertools.product(here, LIBRARY_WARNINGS):
        item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture
def refused(capsys):
    """A context in which a command line is refused: status 2 after one line in which a pattern is found."""

    @contextlib.contextmanager
    def expected(pattern):
        with pytest.raises(SystemExit) as ended:
            yield
        said = capsys.readouterr().err
        assert ended.value.code == 2 and said.count("\n") == 1 and re.search(pattern, said), said

    return expected


@pytest.fixture(scope="session")
def spec() -> EnvFactory:
    return EnvFactory("steppo/KeyDoor-v0", {"context": "append"})


@pytest.fixture(scope="session")
def task_ids():
    return tuple(f"train-{number}" for number in range(200))


@pytest.fixture(scope="session")
def messages():
    """The codec the demonstrations are played with."""
    return MessageCodec()


@pytest.fixture(scope="session")
def demonstrations(spec, task_ids, messages):
    return tuple(demonstrate(spec, task_ids, messages, seed=0))


@pytest.fixture(scope="session")
def tokenizer(demonstrations, messages) -> PreTrainedTokenizerFast:
    steps = [step for d in demonstrations for step in d.steps]
    texts = [text for step in steps for text in (messages.text(step.prompt_ids[-1]), step.response)]
    return train_tokenizer(texts, vocab_size=340)


@pytest.fixture(scope="session")
def codec(tokenizer):
    return ChatCodec(tokenizer, stop_token_ids=[tokenizer.convert_tokens_to_ids(STOP)])


@pytest.fixture(scope="session")
def policy_folder(request, shared_folder):
    """A policy that opens the door in about a third of its sampled episodes and runs into the step limit in the
    others. Made once, whichever process of a run of the tests needs it first.
    """

    def make(folder):
        demonstrations, messages, tokenizer, codec = map(
            request.getfixturevalue, ("demonstrations", "messages", "tokenizer", "codec")
        )
        model = build_model(tokenizer, SmallPolicyConfig(hidden_size=32, num_layers=2, num_heads=2), seed=0)
        rows = [row for d in demonstrations for row in demonstration_rows(d, messages, codec, observation_weight=0.3)]
        config = WarmStartConfig(num_updates=160)
        imitate(model, rows, config, pad_token_id=tokenizer.pad_token_id, seed=0, progress=False)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

    make_once(shared_folder / "policy", make)
    return shared_folder / "policy"


@pytest.fixture(scope="session")
def random_folder(tokenizer, tmp_path_factory):
    """A random policy, at once ready: it gives every token a probability of its own."""
    config = SmallPolicyConfig(hidden_size=16, num_layers=2, num_heads=2, initializer_range=0.3)
    folder = tmp_path_factory.mktemp("random")
    build_model(tokenizer, config, seed=1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def alone(random_folder, tmp_path_factory):
    """From the name of a set-up of `distributed_updates` to the file of what one process changes; made once."""
    folder = tmp_path_factory.mktemp("alone")

    def made(name):
        file = folder / f"{name}.safetensors"
        if not file.exists():
            update(name, random_folder, folder)
        return file

    return made


@pytest.fixture
def model(policy_folder):
    """The tiny policy, loaded anew for each test."""
    return Qwen3ForCausalLM.from_pretrained(policy_folder)


@pytest.fixture
def make_trainer(request, tokenizer, spec, task_ids, tmp_path):
    """From settings that differ from `SETTINGS` to a StepTrainer of the tiny policy with its own folder; of StepPO, or
    of the algorithm of another script.
    """
    made = []

    def make(
        *,
        script="steppo",
        model=None,
        spec=spec,
        task_ids=task_ids,
        processing_class=tokenizer,
        kwargs=None,
        **settings,
    ):
        model = Qwen3ForCausalLM.from_pretrained(request.getfixturevalue("policy_folder")) if model is None else model
        folder = str(tmp_path / f"run-{len(made)}")
        config, rule, critic_config = settings_of(script, **{"output_dir": folder, **SETTINGS, **settings})
        trainer = StepTrainer(
            model,
            config,
            spec=spec,
            task_ids=task_ids,
            rule=rule,
            critic_config=critic_config,
            processing_class=processing_class,
            **(kwargs or {}),
        )
        made.append(trainer)
        return trainer

    yield make
    for trainer in made:
        trainer.close()
