"""The peak of an update on rows of 8,192 tokens with the vocabulary of a real model, against what is computed for it.

    python benchmarks/long_rows.py                  # 151,936 words; 32 numbers to a token, so that the words decide
    python benchmarks/long_rows.py --tokens 2048 --critic head

Without a card. `steppo-gym memory` computes the need from the model's configuration; measured is the most memory that
the process has had above what it had when all was imported, in two iterations on given episodes: log-probabilities,
values, credit, gradients and AdamW. Exits with 1 if it was more than 1.3 times the need.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from gpu_check import TINY, PlayedTrainer, Sizes, needs_of_update, played_trainer, qwen3, random_model, small_policy
from process_memory import MIB, forget_most, give_back_freed_memory, most_resident
from transformers import PreTrainedTokenizerFast

from steppo_gym.trainers.memory.plan import Plan, plan

LARGEST_RATIO = 1.3
MODEL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 40_960,
}


def run(sizes: Sizes, critic: Any, folder: Path) -> tuple[Plan, float]:
    """What is computed, and the MiB that two iterations have taken."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(small_policy(TINY), padding_side="left")
    computed = plan(needs_of_update(sizes, qwen3(sizes, tokenizer), critic))
    begun = forget_most()
    model = random_model(sizes, tokenizer, torch.float32)
    # In the second update the optimizer has its state.
    trainer = played_trainer(PlayedTrainer, sizes, model, tokenizer, folder, critic, iterations=2)
    trainer.train()
    return computed, most_resident() - begun


def main() -> int:
    """Print the figures; 1 if the process has taken too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--critic", choices=["full", "lora", "head"], default="full")
    options = parser.parse_args()
    give_back_freed_memory()
    torch.set_num_threads(1)
    sizes = Sizes({**MODEL, "vocab_size": options.vocabulary}, options.tokens, options.rows)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        computed, measured = run(sizes, options.critic, Path(place))
    ratio = measured / (computed.updating / MIB)
    print(
        f"{options.vocabulary} words, {options.tokens} tokens, {options.critic} critic: computed "
        f"{computed.updating / MIB:.0f} MiB, measured {measured:.0f} MiB, ratio {ratio:.2f}; "
        f"{time.perf_counter() - begun:.0f} s"
    )
    return int(ratio > LARGEST_RATIO)


if __name__ == "__main__":
    sys.exit(main())
