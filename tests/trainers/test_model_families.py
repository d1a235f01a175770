"""Models of ten families are trained on what they are sampled from, with their own chat templates."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from chat_families import FAMILIES, SIZES, family_model, family_tokenizer
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from trainer_runs import played
from transformers import (
    FalconConfig,
    FalconForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3ForCausalLM,
)

from steppo_gym.cli import main
from steppo_gym.credit.rows import ABSENT
from steppo_gym.errors import NonFiniteError, SamplingGapError
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.policy.model_limits import check_adapters, check_model, context_limits
from steppo_gym.trainers.policy.sampling_check import BOUND, LOW_PRECISION_BOUND, check_gap

SPECS = {
    # Every invalid response costs something, so that there is something to learn.
    context: EnvFactory("steppo/KeyDoor-v0", {"context": context, "max_steps": 2, "protocol": "verl-agent"})
    for context in ("append", "rebuilt")
}
SHORT = {"episodes_per_iteration": 4, "max_completion_length": 6, "save_episodes": True}


@pytest.mark.parametrize("context", SPECS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_trains_on_what_it_samples(make_trainer, name, context):
    tokenizer = family_tokenizer(name)
    # Each family is run with both implementations of attention, one in each context.
    attention = ("sdpa", "eager")[(list(FAMILIES).index(name) + list(SPECS).index(context)) % 2]
    model = family_model(name, tokenizer, attention=attention)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = make_trainer(model=model, processing_class=tokenizer, spec=SPECS[context], **SHORT)
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["sampling_gap"] < 1e-5 < BOUND
    assert log["ratio_mean"] == pytest.approx(1, abs=1e-4) and log["ratio_max"] == pytest.approx(1, abs=1e-4)
    assert log["failed_rate"] == 0 and log["critic_grad_norm"] > 0 and np.isfinite(log["loss"])
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    # Responses end at the end of a message, and their text shows no token that ends or begins one.
    assert tokenizer.decode(trainer.codec.stop_token_ids[:1]) == FAMILIES[name].end
    for episode in played(trainer, 1):
        for step in episode.steps:
            assert len(step.response_ids) <= 6
            assert not any(token and token in step.response for token in (FAMILIES[name].end, tokenizer.bos_token))


class Halving(Qwen3ForCausalLM):
    """Halves its logits in its own forward, which no training head knows of."""

    @functools.wraps(Qwen3ForCausalLM.forward)
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = out.logits / 2
        return out


def test_a_family_whose_logits_the_training_head_does_not_know_is_stopped(make_trainer):
    tokenizer = family_tokenizer("qwen3")
    model = family_model("qwen3", tokenizer)
    model.__class__ = Halving
    with pytest.raises(
        SamplingGapError, match=r"another distribution than it is trained on.*--attn_implementation eager"
    ):
        make_trainer(model=model, processing_class=tokenizer, **SHORT)


def test_a_family_that_reads_its_mask_another_way_is_stopped(make_trainer, monkeypatch):
    tokenizer = family_tokenizer("qwen3")
    model = family_model("qwen3", tokenizer)
    inner = type(model.model).forward

    def forward(self, *args, attention_mask=None, **kwargs):
        # As an implementation that knows masks of padding alone would.
        mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        return inner(self, *args, attention_mask=mask, **kwargs)

    monkeypatch.setattr(type(model.model), "forward", forward)
    with pytest.raises(SamplingGapError, match=r"nats on average, the bound is 0\.0001"):
        make_trainer(model=model, processing_class=tokenizer, **SHORT)


def test_the_bound_is_that_of_the_precision():
    between = (BOUND + LOW_PRECISION_BOUND) / 2
    check_gap(between, low_precision=True)
    check_gap(BOUND / 2, low_precision=False)
    for gap, low in ((between, False), (2 * LOW_PRECISION_BOUND, True), (float("nan"), True)):
        with pytest.raises(SamplingGapError):
            check_gap(gap, low_precision=low)


def test_a_model_in_bfloat16_is_trained_on_what_it_samples(make_trainer):
    tokenizer = family_tokenizer("llama")
    model = family_model("llama", tokenizer, initializer_range=0.05).to(torch.bfloat16)
    trainer = make_trainer(model=model, processing_class=tokenizer, spec=SPECS["append"], **SHORT)
    trainer.train()
    log = trainer.state.log_history[0]
    assert trainer.low_precision
    assert 0 < log["sampling_gap"] < LOW_PRECISION_BOUND
    assert log["ratio_mean"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("adapters", [False, True], ids=["gpt2's own", "of adapters"])
def test_dropout_is_off_in_updates_unless_asked_for(make_trainer, adapters):
    name = "qwen2" if adapters else "gpt2"
    tokenizer = family_tokenizer(name)
    kwargs = {"peft_config": LoraConfig(r=4, lora_dropout=0.5, init_lora_weights=False, target_modules=["q_proj"])}
    for disable in (True, False):
        model = family_model(name, tokenizer)
        assert adapters or model.config.resid_pdrop == 0.1
        trainer = make_trainer(
            spec=SPECS["append"],
            model=model,
            processing_class=tokenizer,
            disable_dropout=disable,
            kwargs=kwargs if adapters else None,
            **SHORT,
        )
        trainer.train()
        log = trainer.state.log_history[0]
        assert (abs(log["ratio_max"] - 1) < 1e-4) == disable
        assert log["sampling_gap"] < 1e-5


def test_contexts_end_where_a_table_of_positions_does(make_trainer):
    tokenizer = family_tokenizer("gpt2")
    # The first prompt of KeyDoor has about 300 bytes with its system prompt; answers make later ones too long.
    model = family_model("gpt2", tokenizer, n_positions=1060)
    trainer = make_trainer(
        model=model, processing_class=tokenizer, spec=EnvFactory("steppo/KeyDoor-v0", {"context": "append"}), **SHORT
    )
    assert (trainer.max_prompt_tokens, trainer.max_row_tokens) == (1054, 1060)
    trainer.train()
    episodes = played(trainer, 1)
    assert any(len(episode.final_prompt_ids or ()) > 1060 for episode in episodes)
    assert all(len(step.prompt_ids) <= 1054 for episode in episodes for step in episode.steps)
    assert {episode.ended for episode in episodes} == {"truncated"}


def test_limits_come_from_the_model_unless_given():
    model = family_model("llama", family_tokenizer("llama"), max_position_embeddings=100)
    assert context_limits(model, None, 10) == (90, 100)
    assert context_limits(model, 50, 10) == (50, 100)
    with pytest.raises(
        ValueError, match=r"LlamaForCausalLM has 100 positions, too few for 95 tokens of a prompt.* and 10"
    ):
        context_limits(model, 95, 10)
    with pytest.raises(ValueError, match=r"100 positions, too few for 100 of a response"):
        context_limits(model, None, 100)
    endless = MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2))
    assert context_limits(endless, None, 10) == (None, None)
    assert context_limits(endless, 50, 10) == (50, 60)


SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2)),
         r"full attention in every layer, MambaForCausalLM has \['linear_attention'\]\. Use --use_vllm"),
        (lambda: FalconH1ForCausalLM(FalconH1Config(**SMALL, num_key_value_heads=2)),
         r"FalconH1ForCausalLM has \['hybrid'\]"),
        (lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SMALL, num_key_value_heads=2, head_dim=8)),
         r"Gemma3ForCausalLM has \['sliding_attention'\]"),
        (lambda: family_model("mistral", family_tokenizer("mistral"), sliding_window=64),
         r"MistralForCausalLM has a sliding window of 64 tokens"),
        (lambda: GPTNeoForCausalLM(GPTNeoConfig(
            vocab_size=40, hidden_size=16, num_heads=2, num_layers=2, attention_types=[[["global", "local"], 1]]
        )),
         r"GPTNeoForCausalLM has \['full_attention', 'local'\]"),
        (lambda: family_model("llama", family_tokenizer("llama"), attention="flex_attention"),
         r"needs --attn_implementation sdpa or eager, LlamaForCausalLM has 'flex_attention'"),
    ],
    ids=["states", "hybrid", "windows in some layers", "window", "windows by another name", "attention"],
)  # fmt: skip
def test_what_cannot_be_sampled_from_is_refused_by_name(make, match):
    with pytest.raises(ValueError, match=match):
        check_model(make())


def test_contexts_end_where_longrope_would_rotate_all_positions_otherwise():
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.0, 4.0, 8.0, 16.0],
        "original_max_position_embeddings": 64,
    }  # fmt: skip
    model = family_model(
        "phi3",
        family_tokenizer("phi3"),
        max_position_embeddings=256,
        original_max_position_embeddings=64,
        rope_parameters=rope,
    )
    assert context_limits(model, None, 10) == (54, 64)
    with pytest.raises(ValueError, match=r"Phi3ForCausalLM has 64 positions, too few for 100 tokens of a prompt"):
        context_limits(model, 100, 10)
    row = torch.arange(3, 12)[None]
    alone, beside = (model(row, position_ids=torch.arange(9)[None] + shift).logits for shift in (0, 60))
    assert not torch.allclose(alone, beside, atol=1e-2), "otherwise there would be no reason for the limit"


def test_adapters_that_would_not_be_trained_are_refused():
    def adapted(**settings):
        return get_peft_model(family_model("llama", family_tokenizer("llama")), LoraConfig(r=2, **settings))

    with pytest.raises(ValueError, match="Adapters of the output layer would not be trained"):
        check_adapters(adapted(target_modules=["q_proj", "lm_head"]))
    check_adapters(adapted(target_modules=["q_proj"], modules_to_save=["lm_head"]))


@pytest.mark.parametrize(
    ("config", "name", "said"),
    [
        (PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM"), "default", "PromptTuningConfig: prompts of "),
        (LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa"), "default", "'pissa' changes the weig"),
        (LoraConfig(r=2, target_modules=["q_proj"]), "mine", "adapters are called 'mine', under which"),
    ],
    ids=["of prompts", "of residual weights", "by another name"],
)
def test_adapters_that_would_be_lost_are_refused(config, name, said):
    model = family_model("llama", family_tokenizer("llama"))
    with pytest.raises(ValueError, match=said):
        check_adapters(get_peft_model(model, config, adapter_name=name))


def test_the_noise_and_the_words_of_routers_are_switched_off(make_trainer):
    tokenizer = family_tokenizer("qwen2")
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    routers = {"num_local_experts": 4, "router_jitter_noise": 0.3, "output_router_logits": True}
    model = MixtralForCausalLM(MixtralConfig(**SIZES, **ids, **routers))
    # A run begins by comparing what is sampled with what is trained.
    make_trainer(model=model, processing_class=tokenizer, spec=SPECS["append"], **SHORT)
    assert model.model.layers[0].mlp.jitter_noise == 0


def test_a_window_that_no_context_outgrows_is_no_obstacle():
    check_model(family_model("mistral", family_tokenizer("mistral"), sliding_window=2048))


@pytest.mark.parametrize("script", ["steppo", "grpo"])
def test_final_prompts_are_read_by_a_critic_alone(make_trainer, script):
    tokenizer = family_tokenizer("qwen2")
    model = family_model("qwen2", tokenizer)
    trainer = make_trainer(
        script=script, num_generations=2, model=model, processing_class=tokenizer, spec=SPECS["append"], **SHORT
    )
    trainer.train()
    assert any(episode.ended == "truncated" for episode in played(trainer, 1))
    rows = [row for part in trainer._iteration.slices for row in part.rows]
    assert any(row.token_index[-1] == ABSENT for row in rows) == (script == "steppo")


def test_a_token_without_an_embedding_is_named(make_trainer):
    tokenizer = family_tokenizer("qwen2")
    model = family_model("qwen2", tokenizer)
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    with pytest.raises(ValueError, match=r"'\[PAD\]' is token 259, and the model has embeddings for 259"):
        make_trainer(model=model, processing_class=tokenizer, spec=SPECS["append"], **SHORT)


def test_a_damaged_model_is_found_before_it_plays(make_trainer):
    tokenizer = family_tokenizer("qwen2")
    model = family_model("qwen2", tokenizer)
    model.model.layers[1].mlp.up_proj.weight.data[3, 2] = float("nan")
    with pytest.raises(NonFiniteError, match=r"weight model\.layers\.1\.mlp\.up_proj\.weight is not finite"):
        make_trainer(model=model, processing_class=tokenizer, spec=SPECS["append"], **SHORT)


def falcon(tokenizer):
    """It reads a mask of two dimensions, although it takes every argument that sampling needs."""
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2}
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    return FalconForCausalLM(FalconConfig(vocab_size=len(tokenizer), alibi=True, **sizes, **ids))


REFUSED = r"Sampling from FalconForCausalLM fails: too many values to unpack \(expected 2\)\. Use --use_vllm"


def test_a_family_that_cannot_be_sampled_from_after_all_is_refused(make_trainer):
    tokenizer = family_tokenizer("qwen2")
    with pytest.raises(ValueError, match=REFUSED):
        make_trainer(model=falcon(tokenizer), processing_class=tokenizer, spec=SPECS["append"], **SHORT)


def test_such_a_family_is_refused_by_an_evaluation_before_it_plays(tmp_path, capsys):
    tokenizer, folder = family_tokenizer("qwen2"), tmp_path / "falcon"
    falcon(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    assert main(["evaluate", f"--model={folder}", "--env=key_door", "--tasks=1", f"--out={tmp_path / 'out'}"]) == 1
    assert re.search(REFUSED, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
