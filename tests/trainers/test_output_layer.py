"""Labels are scored alike with and without all logits at once, and only a few positions' logits are ever there."""

from __future__ import annotations

import pytest
import torch
from trainer_runs import relative_difference
from transformers import Qwen3Config, Qwen3ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from steppo_gym.trainers.memory.meter import Meter
from steppo_gym.trainers.policy import output_layer
from steppo_gym.trainers.policy.output_layer import COPIES, IGNORED, SMALL_VOCABULARY, TILE_BYTES, score_few_at_a_time

WORDS, TEMPERATURE = SMALL_VOCABULARY + 1, 0.7


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    model = Qwen3ForCausalLM(config)
    add_fused_lm_head(model, TEMPERATURE, outputs=("log_probs", "entropy"))
    return model


@pytest.fixture
def batch():
    """Two rows, of which some tokens have labels and the second has one."""
    ids = torch.randint(WORDS, (2, 12), generator=torch.Generator().manual_seed(1))
    labels = torch.where(torch.arange(12) % 3 == 0, ids, IGNORED)
    labels[1, :9] = IGNORED
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def scores(model, batch, **settings):
    """Log-probabilities, entropies, and the gradients of a sum of the log-probabilities with weights."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, **settings):
        out = model(**batch, fused_lm_head=True)
    weights = torch.linspace(-1, 1, out.log_probs.numel()).view(out.log_probs.shape)
    (out.log_probs * weights).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"log_probs": out.log_probs.detach(), "entropy": out.entropy.detach(), **gradients}


@pytest.mark.parametrize("autocast", [False, True])
def test_scores_and_gradients_are_those_of_all_logits(model, batch, monkeypatch, autocast):
    theirs = scores(model, batch, enabled=autocast)
    # Three positions, of five that have labels.
    monkeypatch.setattr(output_layer, "TILE_BYTES", 3 * 4 * WORDS)
    score_few_at_a_time(model, TEMPERATURE)
    ours = scores(model, batch, enabled=autocast)
    for name in theirs:
        assert relative_difference(theirs[name], ours[name]) < (0.02 if autocast else 1e-5), name
    logits = model(batch["input_ids"]).logits[:, :-1] / TEMPERATURE
    said = logits.log_softmax(-1)
    expected = said.gather(-1, batch["input_ids"][:, 1:, None])[..., 0].masked_fill(batch["labels"][:, 1:] < 0, 0)
    torch.testing.assert_close(ours["log_probs"], expected, rtol=0, atol=0.05 if autocast else 1e-5)


def test_a_row_without_labels_has_a_gradient_of_nothing(model, batch):
    score_few_at_a_time(model, TEMPERATURE)
    found = scores(model, batch | {"labels": torch.full_like(batch["labels"], IGNORED)}, enabled=False)
    assert not any(value.any() for value in found.values())


def test_logits_of_few_positions_are_there_at_once(model, monkeypatch):
    monkeypatch.setattr(output_layer, "TILE_BYTES", 4 * 4 * WORDS)
    ids = torch.zeros(1, 100, dtype=torch.long)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    peaks = []
    for _ in range(2):
        with Meter([*model.parameters(), *model.buffers(), ids]) as meter:
            scores(model, batch, enabled=False)
        peaks.append(meter.peak)
        score_few_at_a_time(model, TEMPERATURE)
    gradients = sum(p.nbytes for p in model.parameters()) + 2 * WORDS * 16 * 4
    assert peaks[1] < gradients + (COPIES + 1) * 4 * 4 * WORDS
    assert peaks[0] > gradients + 100 * 4 * WORDS


@pytest.mark.parametrize("change", [{"vocab_size": SMALL_VOCABULARY}, {"final_logit_softcapping": 30.0}])
def test_other_output_layers_are_left_to_trl(change):
    config = Qwen3Config(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, head_dim=8)
    config.update({"vocab_size": WORDS} | change)
    model = Qwen3ForCausalLM(config)
    before = model.forward
    score_few_at_a_time(model, TEMPERATURE)
    assert model.forward == before
    assert TILE_BYTES > 100 * SMALL_VOCABULARY
