"""The tokenizer whose tokens are words."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym.trainers.policy.small_policy import (
    END,
    STOP,
    USER,
    SmallPolicyConfig,
    build_model,
    make_tokenizer,
    stop_token_ids,
)

TEXTS = [
    "Question: Who is the father of Ada Barlow?\n[1] Ada Barlow: Ada Barlow is a director born in 1931.",
    "<search> Ada Barlow </search>",
    "<answer> Salt Harbour </answer>",
    "Ada [SEP] Barlow [NEW] [ADABARLOW]",
] * 2
SIZE = SmallPolicyConfig(tokenizer="words", hidden_size=16, num_layers=1, num_heads=2)


@pytest.fixture(scope="module")
def words():
    return make_tokenizer([*TEXTS, "Once only."], SIZE)


def tokens(tokenizer, text):
    return [tokenizer.decode([token]) for token in tokenizer.encode(text, add_special_tokens=False)]


@given(
    text=st.lists(
        st.one_of(st.text(), st.sampled_from([" Ada", " Barlow", "</search>", " </answer>", "<|end|>", " 1931", "\n"]))
    ).map("".join)
)
def test_any_text_is_written_and_read_without_loss(words, text):
    assert words.decode(words.encode(text, add_special_tokens=False)) == text


def test_words_and_tags_are_one_token(words):
    assert tokens(words, "<search> Ada Harbour </search>") == ["<search>", " Ada", " Harbour", " </search>"]
    assert tokens(words, " Barlow is born in 1931.") == [" Barlow", " is", " born", " in", " 1931", "."]
    assert tokens(words, f"{USER}Question:{END}") == [USER, "Question", ":", END]


def test_marks_are_one_token(words):
    assert tokens(words, "Ada [SEP] Barlow") == ["Ada", " [SEP]", " Barlow"]
    assert tokens(words, " [ADABARLOW]") == [" [", "ADABARLOW", "]"], "an id is copied without its brackets"


def test_a_word_begins_close_to_the_same_word_behind_a_blank(words):
    embeddings = build_model(words, SIZE, seed=0).get_input_embeddings().weight.detach()

    def cosine(first, second):
        one, other = (embeddings[words.encode(text, add_special_tokens=False)] for text in (first, second))
        assert one.shape == other.shape == (1, 16)
        return float(torch.nn.functional.cosine_similarity(one, other))

    assert cosine("Ada", " Ada") > 0.5
    assert abs(cosine("Ada", " Barlow")) < 0.5


def test_a_capitalised_word_begins_close_to_the_same_word_in_small_letters_where_that_is_asked_for():
    tokenizer = make_tokenizer(["Slim fit, slim Fit: Slim fit, slim Fit"] * 2, SIZE)

    def cosine(model, first, second):
        weights = model.get_input_embeddings().weight.detach()
        one, other = (weights[tokenizer.encode(text, add_special_tokens=False)] for text in (first, second))
        assert one.shape == other.shape == (1, 16)
        return float(torch.nn.functional.cosine_similarity(one, other))

    plain = build_model(tokenizer, SIZE, seed=0)
    joined = build_model(tokenizer, dataclasses.replace(SIZE, joins_cases=True), seed=0)
    assert cosine(joined, " Fit", " fit") > 0.5 > abs(cosine(plain, " Fit", " fit"))
    assert abs(cosine(joined, " Fit", " slim")) < 0.5
    changed = (plain.get_input_embeddings().weight != joined.get_input_embeddings().weight).any(-1).nonzero().flatten()
    assert {tokenizer.decode(token) for token in changed} == {" Fit", " Slim"}, "all else begins as without"


def test_biases_are_there_where_they_are_asked_for(words):
    for wanted in (False, True):
        model = build_model(words, dataclasses.replace(SIZE, attention_bias=wanted), seed=0)
        assert any(name.endswith("q_proj.bias") for name, _ in model.named_parameters()) == wanted


def test_unknown_words_are_spelt(words):
    assert len(tokens(words, " Zed")) == 4
    assert len(tokens(words, " Once")) == 5, "what comes once is no word worth a token"
    # A known word inside an unknown one is used, nothing is lost.
    assert "".join(tokens(words, " Adamant")) == " Adamant"


def test_the_tags_of_the_task_end_a_response(words):
    assert [words.decode([token]) for token in stop_token_ids(words)] == [" </search>", " </answer>"]
    model = build_model(words, SIZE, seed=0)
    assert set(model.generation_config.eos_token_id) == {words.eos_token_id, *stop_token_ids(words)}
    assert model.get_input_embeddings().weight.shape[0] == len(words)
    names = make_tokenizer(["<action>look</action>"] * 3, SmallPolicyConfig(vocab_size=300))
    assert stop_token_ids(names) == [names.convert_tokens_to_ids(STOP)]
