"""Memory of each of several processes, with whole and with sharded models, on CPUs.

    python benchmarks/sharding.py make /tmp/model
    torchrun --nproc_per_node 2 benchmarks/sharding.py none /tmp/model
    torchrun --nproc_per_node 2 benchmarks/sharding.py full /tmp/model

A policy of 40 million random weights with a full critic makes two updates with AdamW on given episodes. Each process
prints the bytes of weights and of the optimizer's state that it holds, and the most memory it has had, less what it had
when all was imported.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from pathlib import Path
from typing import Any

# `benchmarks/alfworld.py` would stand in for the package of that name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config  # noqa: E402

from benchmarks.gpu_check import SPEC, TASKS, TINY, PlayedTrainer, Sizes, make_policy, settings  # noqa: E402
from steppo_gym.trainers.critic_config import CriticConfig  # noqa: E402
from steppo_gym.trainers.rules import StepPO  # noqa: E402
from steppo_gym.trainers.step_config import StepConfig  # noqa: E402

MODEL = {
    "vocab_size": 20_000,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 9,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
SIZES = Sizes(MODEL, row_tokens=128, num_rows=4, steps=4)
MIB = 2**20


def make(folder: Path) -> None:
    """Save the model with a tokenizer."""
    make_policy(TINY, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = Qwen3Config(**MODEL, tie_word_embeddings=True, **ids)  # type: ignore[arg-type]
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def resident() -> float:
    """The most MiB that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(shard: str, policy: Path, folder: Path) -> None:
    """Two updates."""
    begun = resident()
    config = StepConfig.for_rule(
        StepPO,
        **settings(
            folder,
            iterations=2,
            episodes_per_iteration=SIZES.num_rows,
            max_completion_length=16,
            max_tokens_per_micro_batch=SIZES.row_tokens,
            num_slots=4,
            save_episodes=False,
            shard=shard,
            model_init_kwargs={"dtype": "float32"},
        ),
    )
    trainer = PlayedTrainer(
        str(policy),
        config,
        spec=SPEC,
        task_ids=TASKS,
        rule=StepPO(),
        critic_config=CriticConfig(critic="full"),
        processing_class=PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left"),
    )
    trainer.sizes = SIZES
    trainer.train()
    weights: list[Any] = [p for model in (trainer.model, trainer.critic) for p in model.parameters()]
    optimizer: Any = trainer.optimizer
    state: list[Any] = [t for values in optimizer.state.values() for t in values.values() if torch.is_tensor(t)]
    held = sum((t.to_local() if hasattr(t, "to_local") else t).nbytes for t in (*weights, *state)) / MIB
    rank, most = trainer.accelerator.process_index, resident() - begun
    print(f"{shard}, process {rank}: weights and Adam {held:.0f} MiB, most {most:.0f} MiB", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as place:
            measure(sys.argv[1], Path(sys.argv[2]), Path(place))
