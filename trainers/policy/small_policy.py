"""The default policy: a small Qwen3-architecture model and a tokenizer made from the task's own text.

A small model learns to copy "mug 2" from an observation into an action in minutes if it is one token, and not at all if
it is two (copying two tokens needs induction heads). So every name with a number is a token of its own, whose embedding
starts as the sum of the noun's and the number's; everything else is byte-level BPE over whole phrases. Any text can be
written, nothing is unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from steppo_gym.trainers.policy.chat import NO_SYSTEM_PROMPT
from steppo_gym.trainers.policy.word_tokenizer import BLANK, build_word_tokenizer

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
STOP = "</action>"
"""Ends a response as the end of a message does; saves the small policy a token per step."""
STOPS = tuple(blank + tag for tag in (STOP, "</search>", "</expand>", "</answer>") for blank in ("", " "))
"""The same for all tasks; a tokenizer has those of its own task."""

CHAT_TEMPLATE = (
    # A model trained from scratch on one task has no use for instructions.
    NO_SYSTEM_PROMPT + "{%- for message in messages -%}"
    "{%- if message.role == 'user' -%}{{- '<|user|>' + message.content -}}{%- endif -%}"
    "{%- if message.role == 'assistant' -%}{{- '<|assistant|>' + message.content + '<|end|>' -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
_NAME = re.compile(r" ([a-z]+) (\d{1,2})(?!\d)")
_CAPITALISED = re.compile(rf"({BLANK}?)([A-Z][a-z]+)")


@dataclass(frozen=True)
class SmallPolicyConfig:
    """Size of the default policy."""

    tokenizer: Literal["names", "words"] = "names"
    """"names": see above. "words": every word is a token, for tasks whose texts are sentences."""
    hidden_size: int = 96
    num_layers: int = 2
    num_heads: int = 4
    vocab_size: int = 512
    """Size of the BPE part; names with numbers come on top. With "words" the texts decide."""
    joins_cases: bool = False
    """With "words": a capitalised word begins close to the same word in small letters, as a title's to a sentence's."""
    attention_bias: bool = False
    """With biases a head can look at a position whatever stands there, which copying several tokens in a row needs."""
    initializer_range: float = 0.1
    """Transformers' usual 0.02 is too small for so narrow a model."""


def make_tokenizer(texts: Sequence[str], config: SmallPolicyConfig) -> PreTrainedTokenizerFast:
    """The tokenizer of the default policy for the task `texts` were taken from. Lossless for any text."""
    if config.tokenizer == "names":
        return train_tokenizer(texts, config.vocab_size)
    return _with_template(build_word_tokenizer(texts, [PAD, END, USER, ASSISTANT]))


def stop_token_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The tokens of `STOPS` that the tokenizer has."""
    ids = tokenizer.get_vocab()
    return [ids[text] for text in STOPS if text in ids]


def train_tokenizer(texts: Sequence[str], vocab_size: int = 512) -> PreTrainedTokenizerFast:
    """A tokenizer for the task `texts` were taken from. Lossless for any text.

    Args:
        texts: observations and responses of the task.
        vocab_size: of the BPE part.
    """
    names = sorted({(noun, int(number)) for text in texts for noun, number in _NAME.findall(text)})
    highest: dict[str, int] = {}
    for noun, number in names:
        highest[noun] = max(highest.get(noun, 4), number)
    # Higher numbers than those seen turn up in rooms that were not.
    added = [f" {noun}" for noun in highest]
    added += [f" {noun} {number}" for noun, most in highest.items() for number in range(1, most + 3)]

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[PAD, END, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    # Phrases are what stands between two names, so that "a mug 2, a pen 1" teaches ", a" and not "2, a p".
    split = re.compile("(" + "|".join(map(re.escape, sorted([STOP, *added], key=len, reverse=True))) + ")")
    phrases = [phrase for text in texts for phrase in split.split(text)[::2]]
    tokenizer.train_from_iterator(phrases, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in [STOP, *added]])
    return _with_template(tokenizer)


def build_model(tokenizer: PreTrainedTokenizerFast, config: SmallPolicyConfig, *, seed: int) -> Qwen3ForCausalLM:
    """A randomly initialised model whose name embeddings are composed of noun and number.

    With the "words" tokenizer, a word with a blank before it begins close to the same word without one, so that it is
    copied as easily into brackets as into a sentence. With `joins_cases` a capitalised word begins close to the same
    word in small letters instead, where there is one.

    Args:
        tokenizer: from `train_tokenizer`.
        config: sizes.
        seed: of the initialisation; the global generator is left as it was.
    """
    ids = tokenizer.get_vocab()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(
            Qwen3Config(
                vocab_size=len(tokenizer),
                hidden_size=config.hidden_size,
                intermediate_size=8 * config.hidden_size // 3,
                num_hidden_layers=config.num_layers,
                num_attention_heads=config.num_heads,
                num_key_value_heads=config.num_heads,
                head_dim=config.hidden_size // config.num_heads,
                max_position_embeddings=4096,
                tie_word_embeddings=True,
                attention_bias=config.attention_bias,
                initializer_range=config.initializer_range,
                pad_token_id=ids[PAD],
                eos_token_id=ids[END],
                bos_token_id=None,
            )
        )
        numbers = config.initializer_range * torch.randn(100, config.hidden_size)
        blank = config.initializer_range * torch.randn(config.hidden_size)
        capital = config.initializer_range * torch.randn(config.hidden_size)
    model.generation_config.eos_token_id = [ids[END], *stop_token_ids(tokenizer)]  # type: ignore[union-attr]
    embeddings: torch.Tensor = model.get_input_embeddings().weight.data  # type: ignore[assignment]
    for text, token in ids.items():
        if config.tokenizer == "words" and text[0] == BLANK and text[1:] in ids:
            embeddings[token] = (embeddings[ids[text[1:]]] + blank) / 2**0.5
        name = _NAME.fullmatch(text)
        if name is not None and f" {name[1]}" in ids:
            embeddings[token] = (embeddings[ids[f" {name[1]}"]] + numbers[int(name[2])]) / 2**0.5
    if config.joins_cases:
        for text, token in ids.items():
            word = _CAPITALISED.fullmatch(text)
            if word is not None and (small := ids.get(word[1] + word[2].lower())) is not None:
                embeddings[token] = (embeddings[small] + capital) / 2**0.5
    return model


def _with_template(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
