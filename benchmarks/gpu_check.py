"""What a policy of 1.7 billion parameters needs on one card, and whether the trainer runs there at all.

    python benchmarks/gpu_check.py --out gpu.json          # one card of 80 GB, under six minutes
    python benchmarks/gpu_check.py --out tiny.json --tiny  # a tiny model, any machine, seconds

Nothing is downloaded: the models have random weights and the sizes of Qwen3-1.7B; the only environment is KeyDoor,
whose demonstrations give the tokenizer. Sections run one after another, the most telling first. One that fails, for
example for lack of memory, is reported and the rest goes on; the file is written anew after each.

- `job`: the default small policy, trained and evaluated, saved, and resumed. Float32, then under bfloat16 autocast.
- `sampling`: tokens per second of the trainer's own sampler, and how far its log-probabilities are from those of a
  training forward of the same tokens.
- `update`: one whole iteration on given episodes, each a row of 8,192 tokens with an eighth of them responses:
  log-probabilities, values, credit, gradients, optimizer. `peak_gib` is the most memory that tensors took at once, from
  the loading of the model on; `update_seconds` is of gradients and optimizer alone.

"bf16" after a name says that weights, gradients and the optimizer's moments are bfloat16; "float32" that they are
float32 and matrix products bfloat16, which is what `--model_name_or_path` does unless `--dtype` says otherwise.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Models of different sizes come and go in one process.
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback, Qwen3Config

from steppo_gym.credit.rows import build_rows
from steppo_gym.rollouts.episode import Episode, Step
from steppo_gym.rollouts.policies import Request
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.rollouts.rollout import Rollout, RolloutStats
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.evaluation import first_tasks
from steppo_gym.trainers.memory.plan import Needs
from steppo_gym.trainers.policy.sampling_check import sampling_gap
from steppo_gym.trainers.rules import GRPO, StepPO
from steppo_gym.trainers.step_config import CHECKPOINTING, StepConfig
from steppo_gym.trainers.step_trainer import StepTrainer
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, warm_started_policy

SPEC = EnvFactory("steppo/KeyDoor-v0", {"context": "append"})
TASKS = tuple(f"train-{number}" for number in range(200))
ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
GIB = 2**30
TOTAL_SECONDS = 340.0
"""After which no further section begins."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class Sizes:
    """Of models and data."""

    model: dict[str, int]
    row_tokens: int = 8192
    num_rows: int = 4
    steps: int = 8
    num_slots: int = 64
    prompt_tokens: int = 1024
    response_tokens: int = 128
    demonstrations: int = 200
    warm_start_updates: int = 100
    episodes: int = 64
    tests: int = 32
    env_workers: int = 2


QWEN3_1_7B = Sizes(
    {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40_960,
    }
)
TINY = Sizes(
    {
        "vocab_size": 600,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 1024,
    },
    row_tokens=128,
    num_rows=2,
    steps=4,
    num_slots=4,
    prompt_tokens=24,
    response_tokens=6,
    demonstrations=12,
    warm_start_updates=2,
    episodes=4,
    tests=1,
    env_workers=0,
)


class PlayedTrainer(StepTrainer):
    """Its episodes are given: random tokens, so that every row has the same length. Nothing is saved."""

    sizes: Sizes
    log_prob_seconds = 0.0

    def play(self, *_: Any, **__: Any) -> Rollout:
        """The same episodes each time, with the log-probabilities of the policy as it is."""
        episodes = [random_episode(self.sizes, seed) for seed in range(self.sizes.num_rows)]
        steps = [step for episode in episodes for step in episode.steps]
        started = clock()
        number = sum(len(step.response_ids) for step in steps)
        found = iter(self._forward.log_probs(build_rows(episodes), number).tolist())
        self.log_prob_seconds = clock() - started
        known = iter([replace(step, log_probs=tuple(next(found) for _ in step.response_ids)) for step in steps])
        episodes = [replace(episode, steps=tuple(next(known) for _ in episode.steps)) for episode in episodes]
        return Rollout(tuple(episodes), RolloutStats(num_episodes=len(episodes), seconds=1.0))

    def _save_checkpoint(self, *_: Any, **__: Any) -> None:
        """Nothing: weights and moments of a large model take longer to write than all else here."""


def random_episode(sizes: Sizes, seed: int) -> Episode:
    """One row of `row_tokens` in the append context, an eighth of which are responses."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, min(sizes.model["vocab_size"], 150_000), sizes.row_tokens).tolist()
    per_step = sizes.row_tokens // sizes.steps
    steps = []
    for number in range(1, sizes.steps + 1):
        end = number * per_step
        begin = end - per_step // 8
        reward = float(number == sizes.steps and seed % 2 == 0)
        steps.append(Step(tuple(ids[:begin]), tuple(ids[begin:end]), None, "", reward, state_key=str(number)))
    return Episode(f"train-{seed}", tuple(steps), "terminated", group=seed)


def clock() -> float:
    """Seconds, when all that was asked of the card is done."""
    if ON_GPU:
        torch.cuda.synchronize()
    return time.perf_counter()


def qwen3(sizes: Sizes, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
    """The configuration of a model with these sizes and this tokenizer's ids."""
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    return Qwen3Config(**sizes.model, tie_word_embeddings=True, **ids)  # type: ignore[arg-type]


def random_model(sizes: Sizes, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype) -> Any:
    """Of Qwen3's architecture, made where it will be used."""
    torch.manual_seed(0)
    with torch.device(DEVICE):
        return AutoModelForCausalLM.from_config(qwen3(sizes, tokenizer), dtype=dtype)


def small_policy(sizes: Sizes) -> Path:
    """The folder of the default small policy after a short warm start, and of its tokenizer."""
    expert = EnvFactory(SPEC.env_id, {**SPEC.kwargs, "expert": "hasty"})
    config = WarmStartConfig(num_demonstrations=sizes.demonstrations, num_updates=sizes.warm_start_updates)
    return warm_started_policy(expert, TASKS, config, seed=0, num_workers=0, progress=False)


def settings(folder: Path, **given: Any) -> dict[str, Any]:
    """Of all runs here."""
    return {
        "output_dir": str(folder),
        "report_to": "none",
        "disable_tqdm": True,
        "evaluate_every": 0,
        "save_every": 0,
        "use_cpu": not ON_GPU,
        "bf16": ON_GPU,
        "iterations": 1,
        "updates_per_iteration": 1,
        **given,
    }


def make_trainer(kind: Any, model: Any, config: StepConfig, tokenizer: Any, **given: Any) -> Any:
    """A trainer on KeyDoor, of StepPO unless a rule is given, that prints nothing."""
    given = {"rule": StepPO(), "processing_class": tokenizer, **given}
    trainer = kind(model, config, spec=SPEC, task_ids=TASKS, **given)
    trainer.remove_callback(PrinterCallback)
    return trainer


def played_trainer(
    kind: type[PlayedTrainer],
    sizes: Sizes,
    model: Any,
    tokenizer: Any,
    folder: Path,
    critic: Any,
    peft_config: Any = None,
    **given: Any,
) -> Any:
    """A trainer with StepPO on given episodes, and further settings of the run."""
    config = StepConfig.for_rule(
        StepPO,
        **settings(
            folder,
            episodes_per_iteration=sizes.num_rows,
            max_completion_length=16,
            max_tokens_per_micro_batch=sizes.row_tokens,
            num_slots=4,
            save_episodes=False,
            **given,
        ),
    )
    of_critic = CriticConfig(critic=critic)
    trainer = make_trainer(kind, model, config, tokenizer, critic_config=of_critic, peft_config=peft_config)
    trainer.sizes = sizes
    return trainer


def needs_of_update(sizes: Sizes, model: Any, critic: Any, processes: int = 1, parts: int = 1) -> Needs:
    """What `played_trainer` should need for a model's configuration, in float32 and with all activations kept."""
    return Needs(
        config=model, dtype=torch.float32, autocast=False, peft_config=None, critic=critic, has_critic=True,
        has_reference=False, optimizer="adamw_torch", checkpointing=False, tokens=sizes.row_tokens,
        context=sizes.row_tokens, slots=4, processes=processes, parts=parts, triton=ON_GPU,
    )  # fmt: skip


def lora() -> Any:
    """Adapters in all linear layers."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


# Sections


def job(sizes: Sizes, policy: Path, folder: Path, *, bf16: bool) -> Figures:
    """The default small policy from its warm start to the evaluation after training."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left")
    config = StepConfig.for_rule(
        StepPO,
        **settings(
            folder,
            bf16=bf16,
            iterations=2,
            episodes_per_iteration=sizes.episodes,
            updates_per_iteration=2,
            max_completion_length=min(12, sizes.response_tokens),
            learning_rate=5e-4,
            num_slots=min(sizes.episodes, 32),
            num_env_workers=sizes.env_workers,
            save_every=1,
            model_init_kwargs={"dtype": "float32"},
        ),
    )
    held_out = first_tasks("held_out", EnvFactory(SPEC.env_id, {**SPEC.kwargs, "split": "validation"}), sizes.tests)

    def make() -> StepTrainer:
        return make_trainer(
            StepTrainer,
            str(policy),
            config,
            tokenizer,
            critic_config=CriticConfig(critic_learning_rate=2e-3),
            evaluation_sets=[held_out],
        )

    trainer = make()
    try:
        before = trainer.evaluate()["eval_held_out_success"]
        started = clock()
        trainer.train()
        seconds = clock() - started
        after = trainer.evaluate()["eval_held_out_success"]
        trainer.save_model(str(folder / "final"))
    finally:
        trainer.close()
    resumed = make()
    try:
        resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    finally:
        resumed.close()
    AutoModelForCausalLM.from_pretrained(folder / "final")
    own, other = (dict(run.model.named_parameters()) for run in (trainer, resumed))
    logged = [entry for entry in trainer.state.log_history if "sampling_gap" in entry]
    return {
        "device": str(trainer.accelerator.device),
        "success_before": before,
        "success_after": after,
        "train_seconds": seconds,
        "sampling_gap": logged[-1]["sampling_gap"],
        "tokens_per_second": logged[-1]["generated_tokens_per_second"],
        "resume_difference": max(float((own[name] - other[name]).detach().abs().max()) for name in own),
    }


def sampling(sizes: Sizes, policy: Path, folder: Path, *, dtype: torch.dtype) -> Figures:
    """Read a prompt in every slot, answer, read on, answer; then the same tokens through the training forward."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left")
    config = StepConfig.for_rule(
        GRPO,
        **settings(
            folder,
            episodes_per_iteration=2,
            num_generations=2,
            max_completion_length=sizes.response_tokens,
            num_slots=sizes.num_slots,
        ),
    )
    trainer = make_trainer(StepTrainer, random_model(sizes, tokenizer, dtype), config, tokenizer, rule=GRPO())
    sampler: Any = trainer._policy(1.0, 0, model=trainer.accelerator.unwrap_model(trainer.model))
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, min(sizes.model["vocab_size"], 150_000), (sizes.num_slots, sizes.prompt_tokens)).tolist()
    half = sizes.prompt_tokens // 2
    prompts = [tuple(row[:half]) for row in tokens]
    reading = respond(sampler, prompts, 1)
    prompts = [tuple(row) for row in tokens]
    first = respond(sampler, prompts, sizes.response_tokens)
    prompts = [prompt + ids for prompt, (ids, _) in zip(prompts, first.responses, strict=True)]
    prompts = [prompt + tuple(row[:32]) for prompt, row in zip(prompts, tokens, strict=True)]
    second = respond(sampler, prompts, sizes.response_tokens)
    episodes = [
        Episode("train-0", (Step(prompt, ids, log_probs, "", 0.0, state_key=""),), "terminated", group=slot)
        for slot, (prompt, (ids, log_probs)) in enumerate(zip(prompts, second.responses, strict=True))
    ][:8]
    sampled = np.concatenate([episode.steps[0].log_probs for episode in episodes])  # type: ignore[arg-type]
    trained = trainer._forward.log_probs(build_rows(episodes), len(sampled))
    return {
        "slots": sizes.num_slots,
        "context_tokens": len(prompts[0]) + sizes.response_tokens,
        "read_tokens_per_second": sizes.num_slots * half / reading.seconds,
        "first_tokens_per_second": first.tokens / first.seconds,
        "next_tokens_per_second": second.tokens / second.seconds,
        "sampling_gap": sampling_gap(sampled, trained),
        "largest_gap": float(np.abs(sampled - trained).max()),
        "mean_ratio": float(np.exp(trained - sampled).mean()),
        "cache_gib": sum(t.nbytes for layer in sampler._cache.layers for t in layer.tensors()) / GIB,
    }


@dataclass(frozen=True)
class Answers:
    """Of one call of the sampler."""

    responses: list[tuple[tuple[int, ...], tuple[float, ...]]]
    seconds: float

    @property
    def tokens(self) -> int:
        """Sampled ones."""
        return sum(len(ids) for ids, _ in self.responses)


def respond(sampler: Any, prompts: Sequence[tuple[int, ...]], most: int) -> Answers:
    """One call, with responses of at most so many tokens."""
    sampler.max_response_tokens = most
    # What it keeps of responses under way is as wide as that.
    sampler.drop()
    started = clock()
    answers = sampler.respond([Request(slot, prompt) for slot, prompt in enumerate(prompts)])
    return Answers([(answer.token_ids, answer.log_probs) for answer in answers], clock() - started)


def update(
    sizes: Sizes,
    policy: Path,
    folder: Path,
    *,
    critic: Any,
    dtype: torch.dtype,
    adapters: bool = False,
    checkpointing: bool = True,
) -> Figures:
    """One iteration of StepPO on given episodes."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(policy, padding_side="left")
    model, peft_config = random_model(sizes, tokenizer, dtype), lora() if adapters else None
    trainer = played_trainer(
        PlayedTrainer, sizes, model, tokenizer, folder, critic, peft_config, **{CHECKPOINTING: checkpointing}
    )
    loaded = torch.cuda.memory_allocated() / GIB if ON_GPU else None
    started = clock()
    trainer.train()
    seconds = clock() - started
    (logged,) = [entry for entry in trainer.state.log_history if "update_seconds" in entry]
    tokens = sizes.num_rows * sizes.row_tokens
    return {
        "policy_trained_m": trained_millions(trainer.model),
        "critic_trained_m": trained_millions(trainer.critic),
        "loaded_gib": loaded,
        "after_gib": torch.cuda.memory_allocated() / GIB if ON_GPU else None,
        "iteration_seconds": seconds,
        "log_prob_seconds": trainer.log_prob_seconds,
        "credit_seconds": logged["credit_seconds"],
        "update_seconds": logged["update_seconds"],
        "update_tokens_per_second": tokens / logged["update_seconds"],
        **{name: logged[name] for name in ("loss", "value_loss", "grad_norm", "critic_grad_norm")},
    }


def trained_millions(model: Any) -> float:
    """Parameters that an optimizer changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / 1e6


BF16, FLOAT32 = torch.bfloat16, torch.float32
SECTIONS: tuple[tuple[str, float, Callable[..., Figures]], ...] = (
    ("job float32", 90, partial(job, bf16=False)),
    ("sampling bf16", 60, partial(sampling, dtype=BF16)),
    ("update LoRA, lora critic, bf16", 60, partial(update, critic="lora", dtype=BF16, adapters=True)),
    ("update full critic, bf16", 60, partial(update, critic="full", dtype=BF16)),
    ("update head critic, bf16", 60, partial(update, critic="head", dtype=BF16)),
    ("update lora critic, bf16", 60, partial(update, critic="lora", dtype=BF16)),
    ("update LoRA, lora critic, float32", 60, partial(update, critic="lora", dtype=FLOAT32, adapters=True)),
    ("update head critic, float32", 60, partial(update, critic="head", dtype=FLOAT32)),
    ("update full critic, float32", 60, partial(update, critic="full", dtype=FLOAT32)),
    ("job bf16 autocast", 60, partial(job, bf16=True)),
    ("sampling float32", 60, partial(sampling, dtype=FLOAT32)),
    ("update LoRA, full critic, bf16", 60, partial(update, critic="full", dtype=BF16, adapters=True)),
    (
        "update LoRA, lora critic, bf16, all activations kept",
        60,
        partial(update, critic="lora", dtype=BF16, adapters=True, checkpointing=False),
    ),
)
"""Name, most seconds, and what to run; the most telling first."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise a TimeoutError in the code below after so many seconds; a call into the card ends first."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_section(section: Callable[..., Figures], seconds: float, *arguments: Any) -> Figures:
    """Figures of a section or why there are none, with its time and peak memory."""
    if ON_GPU:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    try:
        with limited(seconds):
            found: Figures = {"status": "ok", **section(*arguments)}
    except Exception as error:
        kind = "out of memory" if isinstance(error, torch.cuda.OutOfMemoryError) else type(error).__name__
        last = "".join(traceback.format_exception(error)[-4:])
        found = {"status": "failed", "error": f"{kind}: {str(error)[:300]}", "traceback": last[-1500:]}
    found["seconds"] = time.perf_counter() - started
    if ON_GPU:
        found["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        found["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
    # Trainers refer to themselves in circles.
    gc.collect()
    if ON_GPU:
        found["left_gib"] = torch.cuda.memory_allocated() / GIB
    return found


def machine() -> dict[str, Any]:
    """What it ran on."""
    card = torch.cuda.get_device_properties(0) if ON_GPU else None
    return {
        "device": card.name if card else "cpu",
        "memory_gib": card.total_memory / GIB if card else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        # With a compiler, Triton's kernels score response tokens alone.
        "compiler": shutil.which("gcc") or shutil.which("cc") or shutil.which("clang"),
    }


def print_section(name: str, found: Figures) -> None:
    """One row of the table."""
    shown = {key: value for key, value in found.items() if key not in ("status", "seconds", "peak_gib", "traceback")}
    figures = ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in shown.items()
        if value is not None
    )
    peak = f"{found['peak_gib']:.1f}" if "peak_gib" in found else "-"
    print(f"| {name} | {found['status']} | {found['seconds']:.1f} | {peak} | {figures} |", flush=True)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run all sections and write the figures; returns what was written."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, written anew after each section")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to see that the script runs")
    parser.add_argument("--only", nargs="+", help="sections whose name contains one of these")
    parser.add_argument("--seconds", type=float, default=TOTAL_SECONDS, help="after which no further section begins")
    options = parser.parse_args(argv)
    sizes = TINY if options.tiny else QWEN3_1_7B
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    started = time.perf_counter()
    result: dict[str, Any] = {"machine": machine(), "tiny": options.tiny, "sections": {}}
    print(", ".join(f"{key} {value}" for key, value in result["machine"].items()), flush=True)
    print("| section | status | seconds | peak, GiB | figures |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        policy = small_policy(sizes)
        for number, (name, seconds, section) in enumerate(SECTIONS):
            left = options.seconds - (time.perf_counter() - started)
            if options.only and not any(part in name for part in options.only):
                continue
            if left <= 0:
                found: Figures = {"status": "skipped", "error": "no time left", "seconds": 0.0}
            else:
                found = run_section(section, min(seconds, left), sizes, policy, Path(folder, f"run-{number}"))
            print_section(name, found)
            result["sections"][name] = found
            options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")
    result["seconds"] = time.perf_counter() - started
    options.out.write_text(json.dumps(result, indent=2, default=str) + "\n")
    return result


if __name__ == "__main__":
    main()
