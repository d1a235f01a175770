"""Between text and token ids: how observations become prompts and responses become text.

`Codec` is what a rollout needs of a tokenizer and its chat template. `ByteCodec` is a complete one without a vocabulary
file, for scripted policies and tests; the trainer has one for real chat templates.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from typing import Any, Protocol


class Codec(Protocol):
    """Text to token ids and back, without ever tokenizing sampled text again."""

    def first_prompt(self, system_prompt: str, tools: Sequence[dict[str, Any]], observation: str) -> tuple[int, ...]:
        """Token ids of system prompt, tools and one observation, up to where the response begins."""
        ...

    def next_prompt(self, context: tuple[int, ...], observation: str) -> tuple[int, ...]:
        """Token ids of a conversation that goes on.

        Args:
            context: prompt and sampled response ids so far; the result starts with exactly these.
            observation: what the environment answered.
        """
        ...

    def encode_response(self, text: str) -> tuple[int, ...]:
        """Token ids of a response written by a script, with the end-of-response token."""
        ...

    def decode_response(self, token_ids: Sequence[int]) -> str:
        """The text of a response, without end-of-response tokens. Never raises, whatever was sampled."""
        ...


class ByteCodec:
    """UTF-8 bytes as tokens 0..255, and 256 to end a message."""

    END = 256
    vocab_size = 257

    def first_prompt(self, system_prompt: str, tools: Sequence[dict[str, Any]], observation: str) -> tuple[int, ...]:
        """System prompt and observation as messages; tools are not shown."""
        del tools
        return (*system_prompt.encode(errors="replace"), self.END, *observation.encode(errors="replace"), self.END)

    def next_prompt(self, context: tuple[int, ...], observation: str) -> tuple[int, ...]:
        """The context, its last message ended if it was cut off, and the observation."""
        ending = () if context and context[-1] == self.END else (self.END,)
        return (*context, *ending, *observation.encode(errors="replace"), self.END)

    def encode_response(self, text: str) -> tuple[int, ...]:
        """The bytes of the text and the end token."""
        return (*text.encode(errors="replace"), self.END)

    def decode_response(self, token_ids: Sequence[int]) -> str:
        """The text up to the end token; bytes that are not UTF-8 become U+FFFD."""
        written = itertools.takewhile(lambda token: token != self.END, token_ids)
        return bytes(token for token in written if 0 <= token < self.END).decode(errors="replace")


def byte_tokenizer(marks: Sequence[str]) -> str:
    """A `tokenizer.json` whose first 256 ids are bytes, so that records made without one can be read like others.

    Args:
        marks: what the ids from 256 on are in the text.
    """
    # Bytes are written as in GPT-2's vocabulary: printable ones as themselves, the others from U+0100 on.
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = itertools.count(0x100)
    vocab = {chr(byte if byte in printable else next(others)): byte for byte in range(256)}
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": 256 + i, "content": mark, **plain} for i, mark in enumerate(marks)],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }
    )
