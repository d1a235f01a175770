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

# `benchmarks/alfworld.py` would stand in for the package of that name.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
sys.path.append(str(Path(__file__).resolve().parents[1]))

import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    TrainerCallback,
)

from benchmarks.gpu_check import SPEC, TASKS, TINY, PlayedTrainer, Sizes, make_policy, settings  # noqa: E402
from benchmarks.process_memory import MIB, forget_most, give_back_freed_memory, most_resident  # noqa: E402
from steppo_gym.trainers.critic_config import CriticConfig  # noqa: E402
from steppo_gym.trainers.memory.plan import Needs, plan  # noqa: E402
from steppo_gym.trainers.rules import StepPO  # noqa: E402
from steppo_gym.trainers.step_config import StepConfig  # noqa: E402

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
    make_policy(TINY, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = Qwen3Config(**MODEL, tie_word_embeddings=True, **ids)  # type: ignore[arg-type]
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)


def computed(policy: Path, critic: Any, shard: str, processes: int) -> float:
    """MiB of the plan for an update."""
    needs = Needs(
        config=AutoConfig.from_pretrained(policy), dtype=torch.float32, autocast=False, peft_config=None, critic=critic,
        has_critic=True, has_reference=False, optimizer="adamw_torch", checkpointing=False, tokens=SIZES.row_tokens,
        context=SIZES.row_tokens, slots=4, processes=processes, parts=1 if shard == "none" else processes,
        triton=False,
    )  # fmt: skip
    return plan(needs).updating / MIB


def measure(shard: str, critic: Any, policy: Path, folder: Path) -> tuple[int, dict[str, float]]:
    """Two updates: this process's number and its figures in MiB."""
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
    begun = forget_most()
    trainer = Measured(
        str(policy),
        config,
        spec=SPEC,
        task_ids=TASKS,
        rule=StepPO(),
        critic_config=CriticConfig(critic=critic),
        processing_class=PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left"),
    )
    trainer.sizes = SIZES
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
