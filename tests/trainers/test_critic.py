"""The three kinds of critic: what they share with the policy, what they train, and what a checkpoint holds."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from trainer_runs import weights
from transformers import OPTConfig, OPTForCausalLM, Qwen3ForCausalLM

from steppo_gym.trainers.policy.critic import Critic, default_kind

KINDS = ("full", "lora", "head")


@pytest.fixture
def policy(random_folder):
    return Qwen3ForCausalLM.from_pretrained(random_folder)


@pytest.fixture
def adapted(policy):
    """A policy with adapters that are no longer where they started."""
    torch.manual_seed(0)
    adapted = get_peft_model(policy, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    shift(adapted, 0.1, "lora_B")
    return adapted


@torch.no_grad()
def shift(module, size, name_part=""):
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        if name_part in name and parameter.requires_grad:
            parameter += size * torch.randn(parameter.shape, generator=generator)


def batch():
    ids = torch.randint(5, 300, (2, 7), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    return ids, mask


def hidden(model, ids, mask):
    return model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]


@torch.no_grad()
def with_a_head(critic):
    critic.head.weight.copy_(torch.randn(critic.head.weight.shape, generator=torch.Generator().manual_seed(2)))
    critic.head.bias.fill_(0.5)
    return critic


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_starts_at_zero_and_reads_the_policys_hidden_states(policy, kind):
    critic, (ids, mask) = Critic(policy, kind), batch()
    assert critic(ids, mask).shape == (2, 7) and not critic(ids, mask).any()
    with_a_head(critic)
    expected = hidden(policy, ids, mask) @ critic.head.weight[0] + 0.5
    assert torch.allclose(critic(ids, mask), expected, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_not_rounded_to_16_bits(policy, kind):
    critic, (ids, mask) = with_a_head(Critic(policy, kind)), batch()
    states = []
    critic.head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        values = critic(ids, mask)
    assert torch.allclose(values, states[0].float() @ critic.head.weight[0] + 0.5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_critics_own_weights_get_a_gradient(policy, kind):
    before = {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    critic = with_a_head(Critic(policy, kind))
    ids, mask = batch()
    (critic(ids, mask) ** 2).sum().backward()
    assert all(parameter.grad is None for parameter in policy.parameters())
    assert before == {name: parameter.requires_grad for name, parameter in policy.named_parameters()}
    found = {name for name, parameter in critic.named_parameters() if parameter.grad is not None}
    head = {"head.weight", "head.bias"}
    everything = {name for name, _ in critic.named_parameters()}
    adapters = {name for name in everything if "lora_" in name}
    assert found == {"full": everything, "lora": head | adapters, "head": head}[kind]
    assert (everything == head) == (kind == "head") and bool(adapters) == (kind == "lora")
    # Of the head, by hand: the sum over positions of 2 value hidden.
    values, states = critic(ids, mask).detach(), hidden(policy, ids, mask).detach()
    assert torch.allclose(critic.head.weight.grad[0], 2 * (values[..., None] * states).sum((0, 1)), rtol=1e-4)


def test_adapters_of_the_critic_lie_on_the_policys_frozen_weights(adapted):
    critic, (ids, mask) = with_a_head(Critic(adapted, "lora")), batch()
    own = {parameter.data_ptr() for parameter in critic.parameters() if not parameter.requires_grad}
    theirs = {parameter.data_ptr() for parameter in adapted.parameters() if not parameter.requires_grad}
    assert own and own <= theirs
    assert own.isdisjoint(p.data_ptr() for p in adapted.parameters() if p.requires_grad)
    values, logits = critic(ids, mask), adapted(input_ids=ids, attention_mask=mask).logits
    with adapted.disable_adapter():
        expected = hidden(adapted, ids, mask) @ critic.head.weight[0] + 0.5
    assert torch.allclose(values, expected, atol=1e-5)
    # Neither learns what the other does.
    shift(adapted, 0.3, "lora_")
    assert critic(ids, mask).equal(values)
    changed = adapted(input_ids=ids, attention_mask=mask).logits
    assert not torch.allclose(changed, logits, atol=1e-2)
    shift(critic, 0.3, "lora_")
    assert not torch.allclose(critic(ids, mask), values, atol=1e-2)
    assert adapted(input_ids=ids, attention_mask=mask).logits.equal(changed)
    assert {m for m in LINEAR if any(f"{m}.lora_A" in name for name in weights(critic))} == {"q_proj", "down_proj"}


LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def test_a_policy_that_trains_all_of_its_weights_leaves_the_critic_a_frozen_copy(policy):
    critic, (ids, mask) = with_a_head(Critic(policy, "lora")), batch()
    values = critic(ids, mask)
    shift(policy, 0.3)
    assert critic(ids, mask).equal(values)
    assert all(any(f"{module}.lora_A" in name for name in weights(critic)) for module in LINEAR)


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_may_be_narrower_than_the_layers(kind):
    torch.manual_seed(0)
    narrow = {"hidden_size": 16, "word_embed_proj_dim": 8, "ffn_dim": 16}
    model = OPTForCausalLM(OPTConfig(vocab_size=300, num_hidden_layers=1, num_attention_heads=2, **narrow)).eval()
    critic, (ids, mask) = with_a_head(Critic(model, kind)), batch()
    found = model.model.decoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.allclose(critic.eval()(ids, mask), found @ critic.head.weight[0] + 0.5, atol=1e-5)


def test_a_head_follows_the_policy(adapted):
    critic, (ids, mask) = with_a_head(Critic(adapted, "head")), batch()
    shift(adapted, 0.3, "lora_")
    assert torch.allclose(critic(ids, mask), hidden(adapted, ids, mask) @ critic.head.weight[0] + 0.5, atol=1e-5)
    adapted.train()
    critic(ids, mask)
    assert all(module.training for module in adapted.modules())


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_layers_run_again_for_the_gradient_and_change_nothing(policy, kind):
    torch.manual_seed(0)
    critic, (ids, mask) = with_a_head(Critic(policy, kind)), batch()
    runs = []
    critic.backbone.layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))

    def gradients():
        runs.clear()
        critic.zero_grad()
        values = critic(ids, mask)
        (values**2).sum().backward()
        return values.detach(), {n: p.grad.clone() for n, p in critic.named_parameters() if p.grad is not None}

    values, plain = gradients()
    assert len(runs) == 1
    critic.checkpoint_activations()
    again, found = gradients()
    assert len(runs) == 2
    assert again.equal(values) and found.keys() == plain.keys()
    assert all(found[name].equal(plain[name]) for name in plain)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_what_is_trained(adapted, kind):
    critic = Critic(adapted, kind)
    shift(critic, 0.2)
    state = {name: weight.clone() for name, weight in critic.trained_state().items()}
    assert state.keys() == {name for name, p in critic.named_parameters() if p.requires_grad}
    other = Critic(adapted, kind)
    other.load_trained_state(state)
    assert other(*batch()).equal(critic(*batch()))
    wrong = Critic(adapted, next(k for k in KINDS if k != kind))
    with pytest.raises(ValueError, match=r"not of the kind .*Resume with the --critic that the run began with"):
        wrong.load_trained_state(state)


def test_runs_with_adapters_get_adapters(policy):
    assert default_kind(policy) == "full"
    assert default_kind(get_peft_model(policy, LoraConfig(target_modules=["q_proj"]))) == "lora"


def test_an_unknown_kind_is_refused(policy):
    with pytest.raises(ValueError, match="critic must be full, lora or head, got 'tiny'"):
        Critic(policy, "tiny")


def test_the_trainer_checkpoints_both_models(make_trainer):
    logs = []
    for on in (False, True):
        trainer = make_trainer(activation_checkpointing=on, iterations=2)
        trainer.train()
        layers = [trainer.model.model.layers[0], trainer.critic.backbone.layers[0]]
        assert [layer.gradient_checkpointing for layer in layers] == [on, on]
        logs.append([entry["value_loss"] for entry in trainer.state.log_history[:2]])
    assert logs[0] == logs[1]
