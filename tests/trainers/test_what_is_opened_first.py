"""What is wrong with a model's folder or an environment is found, and named in one line, before anything is played."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Model,
)

from steppo_gym.errors import DataError, NonFiniteError, SteppoGymError
from steppo_gym.rollouts.policies import Request
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig
from steppo_gym.trainers.reading import MOST_SAID, in_one_line, reading
from steppo_gym.trainers.results.saved_policy import SavedPolicy, load_codec
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.console import quiet_libraries
from steppo_gym.trainers.run.environments import open_environments
from steppo_gym.trainers.run.launch import launch
from steppo_gym.trainers.run.starts import check_model, starting_policy
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig


@pytest.fixture
def folder(random_folder, tmp_path):
    """A copy of a tiny policy, to be harmed."""
    return shutil.copytree(random_folder, tmp_path / "model")


def checked(name):
    check_model(str(name), "main", trust_remote_code=False)


def settings(*flags):
    return parse_arguments(StepPO, ["--env=key_door", "--report_to=none", *map(str, flags)])


def test_a_folder_that_is_no_model_is_named(folder, tmp_path):
    checked(folder)
    for name in (tmp_path / "none", "./none", "a/b/c"):
        with pytest.raises(DataError, match=f"there is no folder {name}"):
            checked(name)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="there is no folder"):
        checked(tmp_path / "file")
    with pytest.raises(DataError, match="expected the folder of a model, with"):
        checked(tmp_path)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(DataError, match="expected the folder of a model"):
        checked(folder)


@pytest.mark.parametrize("kind", [BertForMaskedLM, Qwen3Model])
def test_a_model_that_writes_no_text_is_refused(folder, kind):
    if kind is Qwen3Model:
        Qwen3Model.from_pretrained(folder).save_pretrained(folder)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
        kind(BertConfig(vocab_size=40, **sizes)).save_pretrained(folder)
    with pytest.raises(DataError, match=f"is a {kind.__name__}, expected a causal language model"):
        checked(folder)


def test_a_damaged_tokenizer_is_named(folder):
    (folder / "tokenizer.json").write_text('{"a":')
    with pytest.raises(DataError, match=f"The tokenizer of {folder} cannot be read: "):
        starting_policy(settings(f"--model_name_or_path={folder}"))
    with pytest.raises(DataError, match=f"The tokenizer in {folder} cannot be read: "):
        load_codec(folder)


def test_settings_of_the_model_are_handed_on(folder):
    given = settings(f"--model_name_or_path={folder}", '--model_init_kwargs={"dtype": "bfloat16"}')
    starting_policy(given)
    assert given.config.model_init_kwargs == {"revision": "main", "dtype": "bfloat16"}


def test_more_demonstrations_than_tasks_are_not_cut_in_silence(refused):
    with refused("--demonstrations must be at most 1000, the tasks to demonstrate, got 1001"):
        starting_policy(settings("--demonstrations=1001"))


def test_a_task_with_fewer_tasks_than_its_preset_demonstrates_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STEPPO_GYM_CACHE", str(tmp_path))
    tiny = SmallPolicyConfig(hidden_size=16, num_layers=1, num_heads=2)
    given = settings("--start=warm", "--env_args", "odd=few", "--num_env_workers=0")
    warm_start = WarmStartConfig(num_demonstrations=5, num_updates=1, policy=tiny)
    preset = replace(given.preset, env_id="trainer_envs:steppo-test/Odd-v0", warm_start=warm_start)
    run = replace(given.run, demonstrations=5, warm_start_updates=1)
    starting_policy(replace(given, preset=preset, run=run))
    said = "The default policy gets 3 demonstrations, one of each task that there is, instead of 5."
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "given", "wanted"),
    [({"dtype": None}, None, "float32"), ({"dtype": "bfloat16"}, None, "bfloat16"),
     ({"dtype": None}, {"dtype": "bfloat16"}, "bfloat16")],
)  # fmt: skip
def test_a_trained_policy_is_played_in_the_type_that_it_was_trained_in(folder, tmp_path, model, given, wanted):
    run = tmp_path / "run"
    shutil.copytree(folder, run / "final")
    record = {"preset": {}, "config": {"model_init_kwargs": given, "max_completion_length": 4}, "model": model}
    (run / "config.json").write_text(json.dumps(record))
    policy, _, _ = SavedPolicy.open(run).load(num_slots=3, temperature=0.0, seed=0)
    assert policy.model.dtype == getattr(torch, wanted)


def test_sets_that_are_a_part_of_their_split_are_named(tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.json").write_text(json.dumps(hotpot_rows(name)))

    def remarks(*flags):
        return open_environments(settings("--env=hotpotqa", f"--data={tmp_path}", *flags)).remarks

    said = "test is the first 2 of 3 tasks, and files may be sorted by kind of task: --test_tasks 3 plays all."
    assert remarks("--test_tasks=2", "--validation_tasks=200") == [said]
    assert remarks("--test_tasks=2", "--watch=test") == [said]
    assert remarks("--test_tasks=0", "--validation_tasks=0") == []
    # The built-in data has no order.
    assert open_environments(settings("--test_tasks=7", "--validation_tasks=2")).remarks == []


def test_an_environment_without_splits_of_its_own_is_named():
    def remarks(odd):
        flags = ("--env=trainer_envs:steppo-test/Odd-v0", "--env_args", f"odd={odd}", "--validation_tasks=2")
        return open_environments(settings(*flags, "--test_tasks=3")).remarks

    said = "tasks have the ids of tasks that are trained on, and begin like these. Scores on them are of no new tasks."
    assert remarks("one split") == [f"test: 3 of its 3 {said}", f"validation: 2 of its 2 {said}"]
    # Each split may count its own tasks.
    assert remarks("none") == remarks("numbered") == []


def play_with(folder):
    SavedPolicy.open(folder).load(num_slots=1, temperature=0.0, seed=0)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_model_that_also_sees_is_played_as_it_was_trained(folder, tmp_path, adapted):
    read = AutoTokenizer.from_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    ids = {"vocab_size": len(read), "eos_token_id": read.eos_token_id}
    text = {**sizes, **ids, "num_key_value_heads": 2, "rope_parameters": rope}
    eyes = {"depth": 1, "hidden_size": 16, "out_hidden_size": 16, "num_heads": 2, "intermediate_size": 16}
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes))
    place = tmp_path / "seeing"
    for part in (model, read):
        part.save_pretrained(place)
    if adapted:
        loaded, place = Qwen2_5_VLForConditionalGeneration.from_pretrained(place), tmp_path / "adapters"
        config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
        for part in (get_peft_model(loaded, config), read):
            part.save_pretrained(place)
    policy, codec, _ = SavedPolicy.open(place).load(num_slots=1, temperature=0.0, seed=0, max_response_tokens=2)
    assert type(policy.model) is Qwen2_5_VLForConditionalGeneration
    assert policy.respond([Request(0, codec.first_prompt("", (), "Go."))])[0].token_ids


def test_a_damaged_model_does_not_play(folder):
    play_with(folder)
    model = Qwen3Model.from_pretrained(folder)
    model.embed_tokens.weight.data[0, 0] = torch.inf
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["Qwen3ForCausalLM"]}))
    with pytest.raises(NonFiniteError, match=r"weight .*embed_tokens\.weight is not finite"):
        play_with(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(DataError, match=f"The model in {folder} cannot be read: SafetensorError"):
        play_with(folder)


def test_weights_that_are_missing_are_reported(folder):
    quiet_libraries()
    said, handler = [], logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    # Transformers keeps its messages from the handlers of others.
    logging.getLogger("transformers.modeling_utils").addHandler(handler)
    play_with(folder)
    assert not said
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    (folder / "config.json").write_text(json.dumps(config))
    play_with(folder)
    logging.getLogger("transformers.modeling_utils").removeHandler(handler)
    assert "MISSING" in said[0]


def test_a_config_json_of_something_else_is_not_that_of_a_run(folder):
    (folder.parent / "config.json").write_text('{"preset": null, "config": 1, "model": []}')
    assert SavedPolicy.open(folder).run is None


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("no test", r"KeyError: 'test' \(in __init__, .*, line \d+\)"),
        ("empty", "There is no task in the split 'validation'"),
        ("no prompt", "The system prompt must be a string, found NoneType None"),
    ],
)
def test_an_environment_is_opened_for_every_split_before_anything_is_made(odd, said, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with refused(f"^steppo.py: trainer_envs:steppo-test/Odd-v0: {said}"):
        launch(StepPO, ["--env=trainer_envs:steppo-test/Odd-v0", "--env_args", f"odd={odd}"])
    assert not (tmp_path / "runs").exists()


def test_what_is_opened_is_what_is_played():
    found = open_environments(settings("--test_tasks=3", "--validation_tasks=2", "--env_args", "max_steps=4"))
    assert [len(part.task_ids) for part in (*found.tests, *found.watched)] == [3, 2]
    assert found.description.max_steps == 4
    assert open_environments(settings("--test_tasks=3", "--watch=test")).watched[0].name == "test"


def hotpot_rows(prefix="q"):
    context = [["A title", ["I did."]]]
    return [{"_id": f"{prefix}{n}", "question": "Who?", "answer": "I", "context": context} for n in range(3)]


def test_where_nothing_is_held_out_the_data_need_no_other_split(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(hotpot_rows()))
    flags = ["--env=hotpotqa", f"--data={tmp_path}", "--test_tasks=0", "--validation_tasks=0"]
    opened = open_environments(settings(*flags))
    assert opened.tests == opened.watched == []


def test_what_is_trained_on_is_not_held_out(refused, tmp_path):
    """A single file is what it is, whatever split is asked for."""
    (tmp_path / "dev.json").write_text(json.dumps(hotpot_rows()))
    flags = ["--env=hotpotqa", f"--data={tmp_path / 'dev.json'}"]
    with refused("HotpotQA-v0: 3 of the 3 tasks held out as 'test' are trained on as well. Let --data name a folder"):
        open_environments(settings(*flags))
    with refused("3 of the 3 tasks held out as 'validation' are trained on as well"):
        open_environments(settings(*flags, "--test_tasks=0"))
    assert open_environments(settings(*flags, "--test_tasks=0", "--validation_tasks=0")).tests == []
    (tmp_path / "train.json").write_text(json.dumps(hotpot_rows("t")))
    assert len(open_environments(settings("--env=hotpotqa", f"--data={tmp_path}")).tests[0].task_ids) == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--adam_beta1=2"], "Invalid beta parameter"),
        (["--lr_scheduler_type=cosine_with_min_lr"], "lr_scheduler_kwargs"),
        (["--action_format=tool_call", "--env=key_door"], "leaves tools out"),
    ],
)
def test_optimizer_schedule_and_prompt_are_made_before_anything_is_played(flags, said, folder, tmp_path):
    template = {"chat_template": "{% for m in messages %}{{ m.content }}</s>{% endfor %}"}
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chat_template.jinja").write_text(template["chat_template"].replace("</s>", config["eos_token"]))
    small = ["--episodes_per_iteration=2", "--updates_per_iteration=1", "--num_slots=2", "--num_env_workers=0"]
    run = [f"--model_name_or_path={folder}", f"--output_dir={tmp_path / 'run'}", "--report_to=none", *small, *flags]
    with pytest.raises(SystemExit, match=said):
        launch(StepPO, ["--env=key_door", *run])
    assert not (tmp_path / "run" / "episodes").exists()


def test_long_errors_are_cut():
    assert in_one_line(ValueError("a\n b")) == "a b"
    assert in_one_line(SteppoGymError()) == "SteppoGymError"
    assert len(in_one_line(RuntimeError("x" * 9999))) == MOST_SAID + 4
    with pytest.raises(DataError) as caught, reading("The file"):
        raise KeyError("x" * 9999)
    assert str(caught.value).startswith("The file cannot be read: KeyError: 'xxx") and len(str(caught.value)) < 600
