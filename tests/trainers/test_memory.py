"""The memory that is computed before a run against the bytes of tensors in real updates of small models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import MambaConfig, Qwen3Config, Qwen3ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from steppo_gym.cli import main
from steppo_gym.trainers.memory.command import changes
from steppo_gym.trainers.memory.meter import Meter
from steppo_gym.trainers.memory.plan import GIB, Needs, capacity, plan
from steppo_gym.trainers.policy.critic import Critic
from steppo_gym.trainers.policy.output_layer import score_few_at_a_time
from steppo_gym.trainers.policy.slot_cache import SlotCache, grown

LORA = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
SMALL = Qwen3Config(
    vocab_size=64,
    hidden_size=128,
    intermediate_size=320,
    num_hidden_layers=5,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=32,
    tie_word_embeddings=True,
)
NEEDS = Needs(
    config=SMALL,
    dtype=torch.float32,
    autocast=False,
    peft_config=None,
    critic="full",
    has_critic=True,
    has_reference=False,
    optimizer="adamw_torch",
    checkpointing=False,
    tokens=768,
    context=768,
    slots=4,
    processes=1,
    parts=1,
)


def measured(needs):
    """Bytes of weights, and the most of everything at once in the second of two updates."""
    policy = Qwen3ForCausalLM(SMALL).to(needs.dtype)
    base = policy
    if needs.peft_config is not None:
        policy = get_peft_model(policy, needs.peft_config)
    critic = Critic(policy, needs.critic)
    if needs.checkpointing:
        policy.train()
        base.activation_checkpointing_enable({"use_reentrant": False})
        base.enable_input_require_grads()
        critic.checkpoint_activations()
    models = torch.nn.ModuleList([policy, critic])
    trained = [p for p in models.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)

    def micro_batch(ids):
        with torch.autocast("cpu", torch.bfloat16, enabled=needs.autocast):
            hidden = base.base_model(input_ids=ids, use_cache=False).last_hidden_state
            values = critic(ids, torch.ones_like(ids))
        loss = hidden.float().sum() + values.sum()
        del hidden, values
        loss.backward()

    # What is there before the row that is measured does not depend on the length of others.
    ids = torch.zeros(1, needs.tokens, dtype=torch.long)
    micro_batch(ids[:, :2])
    optimizer.step()
    optimizer.zero_grad()
    before = sum(t.nbytes for state in optimizer.state.values() for t in state.values())
    with Meter([*models.parameters(), *models.buffers(), ids]) as meter:
        # Gradients of the first micro-batch are there in the second.
        micro_batch(ids[:, :2])
        micro_batch(ids)
    return sum(p.nbytes for p in models.parameters()), before + meter.peak


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"checkpointing": True},
        {"critic": "head"},
        {"critic": "lora", "peft_config": LORA},
        {"critic": "lora", "peft_config": LORA, "checkpointing": True},
        {"dtype": torch.bfloat16, "checkpointing": True},
        {"autocast": True},
    ],
    ids=str,
)
def test_the_computed_peak_is_that_of_a_real_update(changed):
    needs = replace(NEEDS, **changed)
    computed = plan(needs)
    weights, beside = measured(needs)
    assert computed.weights == weights
    assert computed.updating == pytest.approx(weights + beside, rel=0.15)


def test_the_computed_peak_of_a_large_vocabulary_is_that_of_a_real_update():
    config = Qwen3Config.from_dict(
        {**SMALL.to_dict(), "vocab_size": 20_000, "hidden_size": 16, "intermediate_size": 32}
    )
    needs = replace(NEEDS, config=config, tokens=512, triton=False)
    policy = Qwen3ForCausalLM(config)
    add_fused_lm_head(policy, outputs=("log_probs", "entropy"))
    score_few_at_a_time(policy, 1.0)
    critic = Critic(policy)
    parameters = [*policy.parameters(), *critic.parameters()]
    ids = torch.zeros(1, needs.tokens, dtype=torch.long)
    with Meter([*parameters, *policy.buffers(), *critic.buffers(), ids]) as meter:
        # Gradients of the first micro-batch are there in the second.
        for row in (ids[:, :2], ids):
            scored = policy(input_ids=row, labels=row, fused_lm_head=True).log_probs
            (scored.sum() + critic(row, None).sum()).backward()
    computed = plan(needs)
    # There was no optimizer.
    assert sum(p.nbytes for p in parameters) + meter.peak == pytest.approx(
        computed.updating - computed.optimizer, rel=0.15
    )


def test_sharding_divides_what_is_held():
    whole, parts = plan(NEEDS), plan(replace(NEEDS, processes=4, parts=4))
    for name in ("weights", "gradients", "optimizer"):
        assert getattr(parts, name) == pytest.approx(getattr(whole, name) / 4)


def test_what_several_processes_exchange_gradients_in_stays():
    alone, several = plan(NEEDS), plan(replace(NEEDS, processes=4))
    assert several.gradients == alone.gradients and several.buckets == several.gradients and not alone.buckets
    assert several.updating == alone.updating + several.buckets
    assert several.rollout == alone.rollout + several.buckets


def test_keys_take_what_the_cache_allocates():
    config = Qwen3Config.from_dict({**SMALL.to_dict(), "num_hidden_layers": 1, "layer_types": None})
    cache = SlotCache(config.num_hidden_layers, 4)
    # That of a card.
    cache.capacity = 256
    model = Qwen3ForCausalLM(config)
    # A prompt, and then a token at a time.
    for known, new in ((0, 250), *((length, 1) for length in range(250, 700))):
        lengths = torch.full((4,), known)
        columns, mask = cache.address(slice(0, 4), lengths, new, known + new)
        ids = torch.zeros(4, new, dtype=torch.long)
        with torch.no_grad():
            model(input_ids=ids, attention_mask=mask, position_ids=columns, past_key_values=cache, logits_to_keep=1)
    taken = sum(tensor.nbytes for layer in cache.layers for tensor in layer.tensors())
    assert plan(replace(NEEDS, config=config, has_critic=False, context=700)).keys == taken


def test_a_cache_does_not_double_for_ever():
    assert capacity(16_384) < 1.1 * 16_384
    width, steps = 256, 0
    while width < 16_384:
        width, steps = grown(width, width + 1), steps + 1
    assert steps < 16


def test_every_change_that_is_offered_makes_a_run_smaller():
    needs = replace(NEEDS, processes=2, tokens=1536)
    offered = dict(changes(needs))
    assert {"--shard full", "--dtype bfloat16", "--critic head", "--use_peft", "--activation_checkpointing"} <= set(
        offered
    )
    before = plan(needs)
    for flag, changed in offered.items():
        after = plan(changed)
        smaller = after.rollout < before.rollout if "slots" in flag else after.updating < before.updating
        assert smaller, flag


def test_the_command_says_whether_it_fits(tmp_path, capsys):
    SMALL.save_pretrained(tmp_path)
    command = ["memory", "--model", str(tmp_path), "--env", "key_door", "--card"]
    flags = ["--", "--max_prompt_tokens", "500", "--max_completion_length", "12", "--num_slots", "4"]
    assert main([*command, "24", *flags]) == 0
    assert "It fits." in capsys.readouterr().out
    # Fewer changes are possible without a critic.
    assert main([*command, "0.5", "--algorithm", "grpo", *flags]) == 1
    said = capsys.readouterr().out
    assert "It does not fit into 0.5 GB" in said
    assert "--dtype bfloat16" in said


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--algorithm", "foo"], "--algorithm must be one of steppo, "),
        (["--nodes", "0"], "--gpus must be at least --nodes, and that at least 1, got 1 and 0"),
        (["--gpus", "2", "--nodes", "3"], "got 2 and 3"),
        (["--card", "nan"], "--card must be above 0, got nan"),
        (["--model", "/no/such"], "There is no folder /no/such"),
        (
            ["--", "--max_completion_length", "40000"],
            "positions are too few for a prompt and 40000 tokens of a response",
        ),
    ],
)
def test_numbers_that_mean_nothing_are_refused(flags, said, tmp_path, capsys):
    SMALL.save_pretrained(tmp_path)
    assert main(["memory", "--model", str(tmp_path), "--env", "key_door", *flags]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_family_without_layers_of_attention_is_named(tmp_path, capsys):
    MambaConfig(hidden_size=16, num_hidden_layers=2).save_pretrained(tmp_path)
    assert main(["memory", "--model", str(tmp_path), "--env", "key_door"]) == 1
    assert "The memory of a mamba cannot be computed here." in capsys.readouterr().err


# Of one H200, with torch 2.11 and four micro-batches of 8,192 tokens: benchmarks/gpu_check.py.
QWEN3_1_7B = Qwen3Config(
    vocab_size=151_936,
    hidden_size=2048,
    intermediate_size=6144,
    num_hidden_layers=28,
    num_attention_heads=16,
    num_key_value_heads=8,
    head_dim=128,
    tie_word_embeddings=True,
)


@pytest.mark.parametrize(
    ("dtype", "critic", "gib"),
    [(torch.bfloat16, "full", 25.70), (torch.float32, "head", 25.70), (torch.bfloat16, "head", 12.88)],
)
def test_a_large_model_needs_what_a_card_has_measured(dtype, critic, gib):
    """There the first update was measured, whose most is at the optimizer's step, when no activations are left."""
    needs = replace(NEEDS, config=QWEN3_1_7B, dtype=dtype, critic=critic)
    found = plan(needs)
    assert (found.weights + found.gradients + found.optimizer) / GIB == pytest.approx(gib, rel=0.02)


def test_a_machine_without_a_card_plans_for_what_a_card_computes_in(tmp_path, capsys):
    SMALL.save_pretrained(tmp_path)
    (tmp_path / "own.yaml").write_text("bf16: false\n")

    def said(*flags):
        main(["memory", "--model", str(tmp_path), "--env", "key_door", "--algorithm", "grpo", "--", *flags])
        return capsys.readouterr().out

    assert said() == said("--bf16", "True") != said("--bf16", "False") == said("--config", str(tmp_path / "own.yaml"))
