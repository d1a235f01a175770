"""A tokenizer in which every word of the task's own text is one token.

For tasks whose texts are sentences of a few hundred words: names are copied word by word, and a word that is one token
is copied in one go. A word begins with the blank before it. What is no known word is spelt in bytes, so any text can be
written.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

TAG = re.compile(r" ?(?:</?[a-z_]+>|\[[A-Z]{2,4}\])")
"""Tags, and marks such as WebShop's "[SEP]", are one token each, with the blank before them."""

BLANK = "Ġ"
"""How a blank is written in the vocabulary."""

_PIECE = r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]|\s"
_BYTE_SCORE = -100.0
"""Log-probability of a byte, far below any word's, so that known words are never spelt."""


def build_word_tokenizer(texts: Sequence[str], special_tokens: Sequence[str]) -> Tokenizer:
    """A tokenizer that knows the words of some texts. Lossless for any text.

    Args:
        texts: observations and responses of the task.
        special_tokens: get the first ids.
    """
    pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECE), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    counts: Counter[str] = Counter()
    for text in texts:
        for passage in TAG.split(text):
            counts.update(piece for piece, _ in pre_tokenizer.pre_tokenize_str(passage))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = sorted(word for word, count in counts.items() if count > 1 and len(word) > 1)
    vocabulary = [(token, 0.0) for token in special_tokens] + [(byte, _BYTE_SCORE) for byte in alphabet]
    # The longer the better: one word beats two that make it up.
    vocabulary += [(word, -1.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=None, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizer  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special_tokens])
    tags = sorted({tag for text in texts for tag in TAG.findall(text)})
    tokenizer.add_tokens([AddedToken(tag, normalized=False, special=False) for tag in tags])
    return tokenizer
