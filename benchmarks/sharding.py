"""Memory of each of several processes, with whole and with sharded models, on CPUs.

    python benchmarks/sharding.py                  # 2 and 4 processes, each with whole (DDP) and with sharded models
    python benchmarks/sharding.py --processes 2 --critic lora

A policy of 62 million random float32 weights, read from its files, with its critic makes two updates with AdamW on
given episodes. Every process counts its tensors and what the system says it had at most, above what it had when all was
imported: until policy and critic were there, until the sampler was checked, and in the updates. Printed is the process
with the most. Pages of the file that is read count where they were in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from gpu_check import TINY, PlayedTrainer, Sizes, needs_of_update, played_trainer, random_model, small_policy
from process_memory import MIB, forget_most, give_back_freed_memory, most_resident
from transformers import AutoConfig, PreTrainedTokenizerFast, TrainerCallback

from steppo_gym.trainers.memory.plan import plan

MODEL = {
    "vocab_size": 20_000,
    "hidden_size": 640,
    "intermediate_size": 1920,
    "num_hidden_layers": 10,
    "num_attention_heads": 10,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "max_position_embeddings": 1024,
}
SIZES = Sizes(MODEL, row_tokens=128, num_rows=4, steps=4)
COLUMNS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "Adam",
    "built": "peak: models built",
    "checked": "peak: sampler checked",
    "updates": "peak: updates",
    "computed": "computed for an update",
}
"""Figures of a process, in the order of the table."""


class Measured(PlayedTrainer):
    """Says how far the process was when models were there."""

    def set_up_sampling(self) -> None:
        """Comes when policy and critic are there, before anything is sampled."""
        self.built = most_resident()
        forget_most()
        super().set_up_sampling()


class Gradients(TrainerCallback):
    """Counts them when they are all there."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Of all parameters of the optimizer."""
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        self.found = own_mib(grads)


def own_mib(tensors: Any) -> float:
    """MiB of tensors, of which this process may have a part."""
    return sum((t.to_local() if hasattr(t, "to_local") else t).nbytes for t in tensors) / MIB


def make(folder: Path) -> None:
    """Save the model with a tokenizer."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(small_policy(TINY))
    tokenizer.save_pretrained(folder)
    random_model(SIZES, tokenizer, torch.float32).save_pretrained(folder)


def computed(policy: Path, critic: Any, shard: str, processes: int) -> float:
    """MiB of the plan for an update."""
    parts = 1 if shard == "none" else processes
    return plan(needs_of_update(SIZES, AutoConfig.from_pretrained(policy), critic, processes, parts)).updating / MIB


def measure(shard: str, critic: Any, policy: Path, folder: Path) -> tuple[int, dict[str, float]]:
    """Two updates: this process's number and its figures in MiB."""
    begun = forget_most()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left")
    dtype = {"dtype": "float32"}
    trainer = played_trainer(
        Measured, SIZES, str(policy), tokenizer, folder, critic, iterations=2, shard=shard, model_init_kwargs=dtype
    )
    checked, gradients = most_resident(), Gradients()
    trainer.add_callback(gradients)
    forget_most()
    trainer.train()
    weights: list[Any] = list({id(p): p for m in (trainer.model, trainer.critic) for p in m.parameters()}.values())
    optimizer: Any = trainer.optimizer
    state = [t for values in optimizer.state.values() for t in values.values() if torch.is_tensor(t)]
    peaks = {"built": trainer.built - begun, "checked": checked - begun, "updates": most_resident() - begun}
    held = {"weights": own_mib(weights), "gradients": gradients.found, "optimizer": own_mib(state)}
    processes = trainer.accelerator.num_processes
    told = {**held, **peaks, "computed": computed(policy, critic, shard, processes)}
    return trainer.accelerator.process_index, told


def start(processes: int, shard: str, critic: str, policy: Path, out: Path) -> dict[str, float]:
    """Run so many processes; the most of each figure."""
    out.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += [__file__, "--worker", shard, "--critic", critic, "--policy", str(policy), "--out", str(out)]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found = [json.loads(path.read_text()) for path in out.glob("*.json")]
    return {name: max(figures[name] for figures in found) for name in COLUMNS}


def main() -> None:
    """Print the table, or be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--critic", choices=["full", "lora", "head"], default="full")
    for internal in ("--worker", "--policy", "--out"):
        parser.add_argument(internal, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        if options.worker:
            give_back_freed_memory()
            rank, found = measure(options.worker, options.critic, Path(options.policy), Path(place))
            Path(options.out, f"{rank}.json").write_text(json.dumps(found))
            return
        policy = Path(place, "policy")
        make(policy)
        print(f"{options.critic} critic, MiB of a process\n| processes | --shard | {' | '.join(COLUMNS.values())} |")
        print("|---" * (len(COLUMNS) + 2) + "|")
        for processes in options.processes:
            for shard in ("none", "full"):
                found = start(processes, shard, options.critic, policy, Path(place, f"{processes}-{shard}"))
                figures = " | ".join(f"{found[name]:.0f}" for name in COLUMNS)
                print(f"| {processes} | {shard} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
