"""A wrong value on the command line of a script costs one line."""

from __future__ import annotations

import re
from importlib.metadata import version

import pytest

from steppo_gym.trainers.rules import EMPG, GRPO, HGPO, RLOO, GiGPO, StepPO
from steppo_gym.trainers.run.arguments import parse_arguments
from steppo_gym.trainers.run.launch import launch
from steppo_gym.trainers.step_config import StepConfig

SERVED = ["--policy_servers=http://localhost:8000", "--policy_servers_folder=a/b"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--learning_rate", "abc"], "argument --learning_rate: invalid float value: 'abc'. --help says more."),
        (["--seed"], "argument --seed: expected one argument. --help says more."),
        (["--learning-rte=1"], "unknown flag --learning-rte. Did you mean --learning_rate? --help_all"),
        (["--xyzzyx", "1"], "unknown flag --xyzzyx. --help_all lists every flag."),
        (["--report_to", "wandb"], "--report_to wandb needs a package. Run `pip install wandb`."),
        (["--report_to", "paper"], "--report_to must be none or some of "),
        ([*SERVED, "--model_name_or_path=a/b"], "--policy_servers_folder is where new weights go"),
        ([*SERVED, "--start=./a/b/"], "--policy_servers_folder is where new weights go"),
    ],
)  # fmt: skip
def test_a_wrong_flag_is_one_line(flags, said, refused):
    with refused(rf"^(?=.{{,400}}$)steppo\.py: (.*: )?{re.escape(said)}"):
        parse_arguments(StepPO, ["--env=key_door", *flags])


@pytest.mark.parametrize(
    ("flag", "value", "said"),
    [
        *((name, value, "must be at least") for name, value in [
            ("learning_rate", "-1"), ("learning_rate", "nan"), ("beta", "-1"), ("epsilon", "nan"), ("seed", "-1"),
            ("epsilon_high", "-1"), ("max_grad_norm", "-1"), ("num_iterations", "0"), ("max_prompt_tokens", "0"),
            ("gradient_accumulation_steps", "0"), ("max_completion_length", "0"), ("num_env_workers", "-1"),
            ("max_tokens_per_micro_batch", "0"), ("evaluate_every", "-1"), ("save_every", "-1"),
            ("save_total_limit", "-1"), ("test_tasks", "-1"), ("validation_tasks", "-3"), ("demonstrations", "0"),
            ("warm_start_updates", "0"), ("critic_learning_rate", "nan"),
        ]),
        *((name, value, "must be above 0") for name, value in [
            ("temperature", "0"), ("temperature", "nan"), ("env_step_timeout", "0"),
        ]),
        *((name, "inf", "must be finite") for name in ("learning_rate", "critic_learning_rate", "temperature")),
        ("invalid_action_reward", "nan", "must be a number"),
        ("seed", "4294967296", "must be below 2**32"),
        ("output_dir", "", "must not be empty"),
        ("model_name_or_path", "", "must not be empty"),
        ("load_best_model_at_end", "true", "no effect"),
        ("logging_strategy", "epoch", "which follows from it"),
        ("enable_jit_checkpoint", "true", "in the middle of an iteration"),
        ("neftune_noise_alpha", "5", "ratios would not start at 1"),
        ("accelerator_config", '{"gradient_accumulation_kwargs": {"num_steps": 2}}', "--gradient_accumulation_steps"),
        ("lr_scheduler_type", "reduce_lr_on_plateau", "held-out tasks are played here"),
    ],
)  # fmt: skip
def test_a_value_outside_of_its_range_is_refused_before_anything_is_done(flag, value, said, refused):
    with refused(rf"\b{flag}\b.*{re.escape(said)}"):
        parse_arguments(StepPO, ["--env=key_door", f"--{flag}={value}"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--load_in_4bit"], "load_in_4bit: quantized weights are not trained here"),
        (["--lora_r=8"], "lora_r has no effect without --use_peft"),
        (["--model_name_or_path=x", "--use_dora"], "use_dora has no effect without --use_peft"),
        (["--eval_on_start"], "eval_on_start has no effect: the watched tasks are always played before training"),
        (["--evaluate_every=0", "--eval_delay=2"], "eval_delay has no effect without evaluate_every"),
        (["--evaluate_every=0", "--metric_for_best_model=test_success"], "has no effect without evaluate_every"),
        (["--greater_is_better=true"], "greater_is_better has no effect without metric_for_best_model"),
        (["--dtype=bfloat16"], "dtype has no effect without --model_name_or_path"),
        (["--attn_implementation=eager"], "attn_implementation has no effect without --model_name_or_path"),
        (["--model_init_kwargs={\"dtype\": \"auto\"}"], "model_init_kwargs has no effect without --model_name_or_path"),
        (["--model_name_or_path=x", "--demonstrations=5"], "demonstrations has no effect without the default policy"),
        (["--model_name_or_path=x", "--start=warm"], "start has no effect without the default policy"),
        (["--bnb_4bit_quant_type=fp4"], "bnb_4bit_quant_type: quantized weights are not trained here"),
        (["--trust_remote_code"], "trust_remote_code has no effect without --model_name_or_path"),
        (["--warmup_steps=5"], "warmup_steps has no effect on --lr_scheduler_type constant"),
        (["--lr_scheduler_kwargs={\"a\": 1}"], "lr_scheduler_kwargs has no effect on --lr_scheduler_type constant"),
        (["--vllm_gpu_memory_utilization=0.5"], "vllm_gpu_memory_utilization has no effect without use_vllm"),
        (["--ref_model_sync_steps=9"], "ref_model_sync_steps has no effect without sync_ref_model"),
        (["--record_credit=3", "--save_episodes=False"], "record_credit has no effect without save_episodes"),
        (["--kl_in=reward"], "kl_in has no effect without beta"),
    ],
)  # fmt: skip
def test_a_flag_that_would_do_nothing_is_refused(flags, said, refused):
    with refused(re.escape(said)):
        parse_arguments(StepPO, ["--env=key_door", *flags])
    parse_arguments(StepPO, ["--env=key_door", "--use_peft", "--lora_r=8"])


@pytest.mark.parametrize(("rule", "flag"), [(GiGPO, "omega"), (HGPO, "alpha"), (EMPG, "k")])
def test_no_formula_is_given_a_number_that_it_can_only_make_nan_of(rule, flag, refused):
    with refused(f"{flag} must be finite, got inf"):
        parse_arguments(rule, ["--env=key_door", f"--{flag}=inf"])
    assert parse_arguments(StepPO, ["--env=key_door", "--epsilon=inf"]).config.epsilon == float("inf")


def test_a_flag_that_does_something_is_taken():
    flags = ["--warmup_steps=5", "--lr_scheduler_type=constant_with_warmup", "--kl_in=reward", "--beta=0.1"]
    settings = parse_arguments(StepPO, ["--env=key_door", *flags, "--record_credit=0", "--save_episodes=False"])
    assert (settings.config.warmup_steps, settings.config.kl_in) == (5, "reward")
    assert parse_arguments(RLOO, ["--env=key_door"]).config.kl_in == "reward", "RLOO's own default"


def test_a_difficulty_has_settings_of_its_own_that_a_flag_still_beats():
    def rate(*flags):
        return parse_arguments(StepPO, ["--env=alfworld", *flags]).config.learning_rate

    assert rate() == rate("--difficulty", "easy") < rate("--difficulty=medium") == rate("--data", "x")
    assert rate("--learning_rate=0.5") == 0.5
    assert rate("--model_name_or_path", "x") == StepConfig.learning_rate


def test_a_difficulty_has_keywords_of_its_own_that_a_flag_still_beats():
    def limit(*flags):
        return parse_arguments(StepPO, ["--env=alfworld", *flags]).env_kwargs.get("max_steps")

    assert (limit(), limit("--difficulty=medium"), limit("--data", "x")) == (None, None, None)
    assert limit("--difficulty=full") == 30
    assert limit("--difficulty=full", "--env_args", "max_steps=20") == 20
    assert limit("--difficulty=full", "--model_name_or_path", "x") is None
    assert limit("--difficulty=full", "--protocol=verl-agent") is None, "a protocol has a limit of its own"


def test_what_may_be_none_can_be_given_as_none(refused):
    settings = parse_arguments(StepPO, ["--env=key_door", "--value_clip_range", "None", "--max_prompt_tokens=None"])
    assert settings.critic.value_clip_range is None and settings.config.max_prompt_tokens is None
    with refused("argument --gamma: invalid float value: 'None'"):
        parse_arguments(StepPO, ["--env=key_door", "--gamma", "None"])


def test_flags_are_spelt_with_dashes_as_well():
    settings = parse_arguments(StepPO, ["--env=key_door", "--model-name-or-path=some/model"])
    assert (settings.model.model_name_or_path, settings.run.context) == ("some/model", "rebuilt")


def test_data_are_written_down_as_they_are_found_from_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    settings = parse_arguments(StepPO, ["--env=paper_search", "--data=here", "--env_args", "papers=./here"])
    assert settings.run.data == settings.env_kwargs["data"] == settings.env_kwargs["papers"] == str(tmp_path / "here")
    assert parse_arguments(StepPO, ["--env=paper_search", "--data=there"]).env_kwargs["data"] == "there"


def test_all_help_is_spelt_with_dashes_as_well(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(StepPO, ["--env=key_door", "--help-all"])
    assert ended.value.code == 0 and "--adam_beta1" in capsys.readouterr().out


def test_the_reward_of_invalid_actions_is_no_keyword_that_training_would_pass_over(refused):
    with refused("--env_args: invalid_action_reward has a flag of its own. Give it as --invalid_action_reward"):
        parse_arguments(StepPO, ["--env=alfworld", "--env_args", "invalid_action_reward=-0.5"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--env=webshop", "--data=/no/such/folder"], "/no/such/folder"),
        (["--env=key_door", "--env_args", "colour=red"], "colour"),
        (["--env=key_door", "--context=both"], "'both'"),
        (["--env=key_door", "--action_format=xml"], "'xml'"),
        (["--env=key_door", "--protocol=mine"], "mine"),
        (["--env=hotpotqa", "--data=/no/such", "--env_args", "retriever=http://127.0.0.1:9"], "/no/such"),
        (["--env=plain_env:plain/Env-v0", "--protocol=steppo"], "protocol"),
        (["--env=plain_env:plain/Env-v0", "--invalid_action_reward=-1"], "invalid_action_reward"),
        (["--env=no_such_module:a/B-v0"], "no_such_module"),
    ],
)
def test_what_the_environment_does_not_take_is_one_line(flags, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain_env.py").write_text(PLAIN)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as ended:
        launch(GRPO, [*flags, "--num_generations=2"])
    text = capsys.readouterr().err.rstrip("\n")
    assert ended.value.code == 2
    assert text.startswith("grpo.py: ") and said in text and "\n" not in text
    assert not (tmp_path / "runs").exists()


PLAIN = """
import gymnasium
from steppo_gym.envs.key_door.env import KeyDoorEnv

class Plain(KeyDoorEnv):
    def __init__(self, split="train", context="append", action_format="tag"):
        super().__init__(split=split, context=context, action_format=action_format)

gymnasium.register("plain/Env-v0", entry_point=Plain)
"""


def test_scripts_say_their_version(capsys):
    with pytest.raises(SystemExit) as ended:
        parse_arguments(GRPO, ["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"grpo.py {version('steppo-gym')}\n"
