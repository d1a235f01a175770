"""A small policy on KeyDoor, trained on what another distribution has sampled: a wrong sampler, or older weights.

    python benchmarks/off_policy.py --seeds 5
    python benchmarks/off_policy.py --seeds 5 --rows "right sampler" "right sampler, overlap_updates" --engine-ms 4

**The wrong sampler** draws every token from the policy's distribution with probability 1 - slip and uniformly from the
vocabulary otherwise, as an engine with a fault in its kernels might, and reports the log-probabilities of what it
samples from. The policy begins with a habit: it imitates an expert that mostly reads the note again where it should
take a key. Why this fault and this start, and what was expected before they were tried, stands in docs/off_policy.md.

**Older weights** (`overlap_updates`): with `--engine-ms` every forward pass of the sampler takes at least so long,
asleep, as an engine on other processors would, so that there is time to be saved. Only seconds of one run on an idle
machine can be compared.

Success is that of greedy episodes on held-out tasks, played by the policy itself, without the fault. With `--lines`
every run is a line of JSON in a file, and what is there already is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from steppo_gym.rollouts.policies import Policy
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.evaluation import EvaluationSet
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.policy.small_policy import SmallPolicyConfig
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.step_config import StepConfig
from steppo_gym.trainers.step_trainer import StepTrainer
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, warm_started_policy

KWARGS = {"context": "append", "invalid_action_reward": -0.3}
SPEC, TEST_SPEC = (EnvFactory("steppo/KeyDoor-v0", {**KWARGS, "split": split}) for split in ("train", "test"))
HASTY = EnvFactory("steppo/KeyDoor-v0", {**KWARGS, "expert": "hasty"})
TASKS = tuple(f"train-{number}" for number in range(200))
HELD_OUT = EvaluationSet("test", TEST_SPEC, tuple(f"test-{number}" for number in range(100)))
STEP = {"off_policy_correction": "step_truncate"}
OVERLAPPED = "right sampler, overlap_updates"
ROWS: dict[str, tuple[bool, dict[str, Any]]] = {
    "right sampler": (False, {}),
    "wrong sampler, none": (True, {}),
    "wrong sampler, token_truncate": (True, {"off_policy_correction": "token_truncate"}),
    "wrong sampler, step_truncate": (True, STEP),
    "wrong sampler, sequence_mask": (True, {"off_policy_correction": "sequence_mask"}),
    OVERLAPPED: (False, {**STEP, "overlap_updates": True}),
}
"""By name: whether the sampler is wrong, and what is set."""


class TestedPolicy(ModelPolicy):
    """Slips now and then, and is as slow as it is told to be."""

    slip = 0.0
    engine_seconds = 0.0

    def _forward(self, *args: Any, **kwargs: Any) -> Tensor:
        started = time.perf_counter()
        logits = super()._forward(*args, **kwargs).float()
        if self.slip:
            logits = torch.log((1.0 - self.slip) * torch.softmax(logits, dim=-1) + self.slip / logits.shape[-1])
        time.sleep(max(0.0, self.engine_seconds - (time.perf_counter() - started)))
        return logits


class TestedTrainer(StepTrainer):
    """Samples from such a policy in training, and knows when it is another than it trains."""

    slip = 0.0
    engine_seconds = 0.0

    def _policy(self, temperature: float, seed: int, *, model: Any) -> Policy:
        policy = super()._policy(temperature, seed, model=model)
        if temperature:
            assert isinstance(policy, ModelPolicy)
            policy.__class__ = TestedPolicy
            vars(policy).update(slip=self.slip, engine_seconds=self.engine_seconds)
        return policy

    @property
    def samples_elsewhere(self) -> bool:
        """With a fault it does."""
        return self.slip > 0.0 or super().samples_elsewhere

    def check_sampling_gap(self, gap: float) -> None:
        """It would end a run with a fault, as it should."""
        if not self.slip:
            super().check_sampling_gap(gap)


def make_start(updates: int) -> Path:
    """The folder of a policy that has taken over the hasty expert's habit."""
    sizes = SmallPolicyConfig(hidden_size=64, num_heads=2, vocab_size=340)
    config = WarmStartConfig(num_updates=updates, policy=sizes)
    return warm_started_policy(HASTY, TASKS, config, seed=0, num_workers=0, progress=False)


def make_trainer(start: Path, out: Path, name: str, options: argparse.Namespace, seed: int) -> TestedTrainer:
    """The trainer of a row."""
    is_wrong, settings = ROWS[name]
    config = StepConfig.for_rule(
        StepPO,
        output_dir=str(out),
        iterations=options.iterations,
        episodes_per_iteration=options.episodes,
        updates_per_iteration=8,
        max_completion_length=10,
        learning_rate=options.learning_rate,
        num_slots=options.episodes,
        num_env_workers=0,
        evaluate_every=0,
        save_every=0,
        save_episodes=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=seed,
        **settings,
    )
    trainer = TestedTrainer(
        AutoModelForCausalLM.from_pretrained(start),
        config,
        spec=SPEC,
        task_ids=TASKS,
        rule=StepPO(),
        critic_config=CriticConfig(critic_learning_rate=2e-3),
        processing_class=PreTrainedTokenizerFast.from_pretrained(start, padding_side="left"),
    )
    trainer.slip = options.slip if is_wrong else 0.0
    trainer.engine_seconds = options.engine_ms / 1000
    return trainer


def train(start: Path, name: str, options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What one run came to."""
    with tempfile.TemporaryDirectory() as out:
        trainer = make_trainer(start, Path(out), name, options, seed)
        try:
            before = _success(trainer)
            started = time.perf_counter()
            trainer.train()
            seconds = time.perf_counter() - started
            after, log = _success(trainer), [entry for entry in trainer.state.log_history if "success" in entry]
        finally:
            trainer.close()
    means = {key: sum(e.get(key, 0.0) for e in log) / len(log) for key in ("sampler_kl", "correction_sample_size")}
    sampled = sum(entry["success"] for entry in log[-3:]) / len(log[-3:])
    found = {"before": before, "after": after, "sampled": sampled, **means}
    return {"row": name, "seed": seed, **found, "entropy": log[-1]["entropy"], "seconds": seconds}


def _success(trainer: StepTrainer) -> float:
    episodes = trainer.play_evaluation_set(HELD_OUT, temperature=0.0)
    return sum(episode.success for episode in episodes) / len(episodes)


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """The runs that are asked for, as far as they are not recorded; with those that are."""
    settings = {key: getattr(options, key) for key in ("iterations", "episodes", "learning_rate", "slip", "engine_ms")}
    lines: list[dict[str, Any]] = []
    if options.lines is not None and options.lines.exists():
        lines = [json.loads(line) for line in options.lines.read_text().splitlines()]
        lines = [line for line in lines if line["settings"] == settings]
    known = {(line["row"], line["seed"]) for line in lines}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for name in options.rows:
            if (name, seed) in known:
                continue
            line = {**train(make_start(options.start_updates), name, options, seed), "settings": settings}
            print(_cells(line), flush=True)
            lines.append(line)
            if options.lines is not None:
                with options.lines.open("a") as file:
                    file.write(json.dumps(line) + "\n")
    return lines


def _cells(line: dict[str, Any]) -> str:
    keys = ("before", "after", "sampled", "sampler_kl", "correction_sample_size", "entropy")
    figures = " | ".join(f"{line[key]:.2f}" for key in keys)
    return f"| {line['row']} | {line['seed']} | {figures} | {line['seconds']:.0f} |"


def print_means(lines: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """A line for each row over its seeds, and the time that overlapping took of that in turns."""
    print("\n| | seeds | success after (all) | mean | sd | sampled | median seconds |\n|---|---|---|---|---|---|---|")
    median: dict[str, float] = {}
    for name in names:
        own = sorted((line for line in lines if line["row"] == name), key=lambda line: line["seed"])
        after = [line["after"] for line in own]
        if not own:
            continue
        median[name] = statistics.median(line["seconds"] for line in own)
        spread = statistics.stdev(after) if len(after) > 1 else 0.0
        sampled = statistics.mean(line["sampled"] for line in own)
        print(
            f"| {name} | {len(own)} | {', '.join(f'{value:.2f}' for value in after)} | {statistics.mean(after):.2f} | "
            f"{spread:.2f} | {sampled:.2f} | {median[name]:.0f} |"
        )
    if OVERLAPPED in median and "right sampler" in median:
        print(f"\noverlap_updates / in turns, seconds: {median[OVERLAPPED] / median['right sampler']:.2f}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=14)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--start-updates", type=int, default=150, help="of the imitation")
    parser.add_argument("--slip", type=float, default=0.02, help="share of the tokens drawn uniformly")
    parser.add_argument("--engine-ms", type=float, default=0.0, help="least time of the sampler's forward passes")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    parser.add_argument("--lines", type=Path, help="file of the runs, one line of JSON each")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| | seed | success before | after | sampled, last 3 | sampler KL | sample size | entropy | seconds |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    print_means(run_all(options), options.rows)


if __name__ == "__main__":
    main()
