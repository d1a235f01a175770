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

# `benchmarks/alfworld.py` would stand in for the package of that name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config  # noqa: E402

from benchmarks.gpu_check import ON_GPU, SPEC, TASKS, TINY, PlayedTrainer, Sizes, make_policy, settings  # noqa: E402
from benchmarks.process_memory import MIB, forget_most, give_back_freed_memory, most_resident  # noqa: E402
from steppo_gym.trainers.critic_config import CriticConfig  # noqa: E402
from steppo_gym.trainers.memory.plan import Needs, Plan, plan  # noqa: E402
from steppo_gym.trainers.rules import StepPO  # noqa: E402
from steppo_gym.trainers.step_config import StepConfig  # noqa: E402

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
    make_policy(TINY, folder / "policy")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "policy", padding_side="left")
    ids: dict[str, Any] = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = Qwen3Config(**sizes.model, tie_word_embeddings=True, **ids)  # type: ignore[arg-type]
    config = StepConfig.for_rule(
        StepPO,
        **settings(
            folder / "run",
            # In the second update the optimizer has its state.
            iterations=2,
            episodes_per_iteration=sizes.num_rows,
            max_completion_length=16,
            max_tokens_per_micro_batch=sizes.row_tokens,
            num_slots=4,
            save_episodes=False,
        ),
    )
    needs = Needs(
        config=model, dtype=torch.float32, autocast=False, peft_config=None, critic=critic, has_critic=True,
        has_reference=False, optimizer="adamw_torch", checkpointing=False, tokens=sizes.row_tokens,
        context=sizes.row_tokens, slots=4, processes=1, parts=1, triton=ON_GPU,
    )  # fmt: skip
    computed = plan(needs)
    begun = forget_most()
    torch.manual_seed(0)
    trainer = PlayedTrainer(
        AutoModelForCausalLM.from_config(model, dtype=torch.float32),
        config,
        spec=SPEC,
        task_ids=TASKS,
        rule=StepPO(),
        critic_config=CriticConfig(critic=critic),
        processing_class=tokenizer,
    )
    trainer.sizes = sizes
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
