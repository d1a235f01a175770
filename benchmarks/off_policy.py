"""A small policy on KeyDoor, trained on what another distribution has sampled: a wrong sampler, or older weights.

    python benchmarks/off_policy.py
    python benchmarks/off_policy.py --rows "right sampler" "right sampler, overlap_updates" --seeds 5

The wrong sampler draws every token from the policy's distribution with probability 1 - slip, and uniformly from the
whole vocabulary otherwise, as an engine with a fault in its kernels might. It reports the log-probabilities of what it
samples from. The policy is a random model of 2 layers that imitates a hasty expert for a moment. Success is that of
greedy episodes on held-out tasks, played by the policy itself; seconds are of the clock, and only rows of one run on an
idle machine can be compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from steppo_gym.rollouts.demonstrations import MessageCodec, demonstrate
from steppo_gym.rollouts.policies import Policy
from steppo_gym.rollouts.pool import EnvFactory
from steppo_gym.trainers.critic_config import CriticConfig
from steppo_gym.trainers.evaluation import EvaluationSet
from steppo_gym.trainers.policy.chat import ChatCodec
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.policy.small_policy import STOP, SmallPolicyConfig, build_model, train_tokenizer
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.step_config import StepConfig
from steppo_gym.trainers.step_trainer import StepTrainer
from steppo_gym.trainers.warm_start.warm_start import WarmStartConfig, demonstration_rows, imitate

KWARGS = {"context": "append", "invalid_action_reward": -0.1}
SPEC, TEST_SPEC = (EnvFactory("steppo/KeyDoor-v0", {**KWARGS, "split": split}) for split in ("train", "test"))
TASKS = tuple(f"train-{number}" for number in range(200))
HELD_OUT = EvaluationSet("test", TEST_SPEC, tuple(f"test-{number}" for number in range(60)))
STEP = {"off_policy_correction": "step_truncate"}
ROWS: dict[str, tuple[bool, dict[str, Any]]] = {
    "right sampler": (False, {}),
    "wrong sampler, none": (True, {}),
    "wrong sampler, token_truncate": (True, {"off_policy_correction": "token_truncate"}),
    "wrong sampler, step_truncate": (True, STEP),
    "wrong sampler, sequence_mask": (True, {"off_policy_correction": "sequence_mask"}),
    "right sampler, overlap_updates": (False, {**STEP, "overlap_updates": True}),
}
"""By name: whether the sampler is wrong, and what is set."""


class WrongPolicy(ModelPolicy):
    """Slips now and then."""

    slip = 0.03

    def _sample(self, logits: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        right = torch.softmax(logits, dim=-1)
        return super()._sample(torch.log((1.0 - self.slip) * right + self.slip / logits.shape[-1]), draws)


class WronglySampledTrainer(StepTrainer):
    """Samples wrongly in training, and knows that its sampler is another one."""

    def _policy(self, temperature: float, seed: int, *, model: Any, num_slots: int | None = None) -> Policy:
        policy = super()._policy(temperature, seed, model=model, num_slots=num_slots)
        if temperature and num_slots is None:
            policy.__class__ = WrongPolicy
        return policy

    @property
    def samples_elsewhere(self) -> bool:
        """It does."""
        return True

    def check_first_gap(self, gap: float) -> None:
        """It would end the run, as it should."""


def make_start(folder: Path, updates: int) -> None:
    """A policy that opens the door now and then."""
    messages = MessageCodec()
    shown = list(demonstrate(SPEC, TASKS, messages, seed=0))
    steps = [step for episode in shown for step in episode.steps]
    texts = [text for step in steps for text in (messages.text(step.prompt_ids[-1]), step.response)]
    tokenizer = train_tokenizer(texts, vocab_size=340)
    stop: Any = tokenizer.convert_tokens_to_ids(STOP)
    codec = ChatCodec(tokenizer, stop_token_ids=[stop])
    model = build_model(tokenizer, SmallPolicyConfig(hidden_size=32, num_layers=2, num_heads=2), seed=0)
    rows = [row for episode in shown for row in demonstration_rows(episode, messages, codec, observation_weight=0.3)]
    config = WarmStartConfig(num_updates=updates)
    padding: Any = tokenizer.pad_token_id
    imitate(model, rows, config, pad_token_id=padding, seed=0, progress=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def train(start: Path, out: Path, name: str, options: argparse.Namespace, seed: int) -> str:
    """One run, as a row of the table."""
    is_wrong, settings = ROWS[name]
    config = StepConfig.for_rule(
        StepPO,
        output_dir=str(out),
        iterations=options.iterations,
        episodes_per_iteration=options.episodes,
        updates_per_iteration=4,
        max_completion_length=12,
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
    trainer = (WronglySampledTrainer if is_wrong else StepTrainer)(
        AutoModelForCausalLM.from_pretrained(start),
        config,
        spec=SPEC,
        task_ids=TASKS,
        rule=StepPO(),
        critic_config=CriticConfig(critic_learning_rate=2e-3),
        processing_class=PreTrainedTokenizerFast.from_pretrained(start, padding_side="left"),
    )
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
    return (
        f"| {name} | {seed} | {before:.2f} | {after:.2f} | {sampled:.2f} | {means['sampler_kl']:.3f} | "
        f"{means['correction_sample_size']:.2f} | {log[-1]['entropy']:.2f} | {seconds:.0f} |"
    )


def _success(trainer: StepTrainer) -> float:
    episodes = trainer.play_evaluation_set(HELD_OUT, temperature=0.0)
    return sum(episode.success for episode in episodes) / len(episodes)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start-updates", type=int, default=160, help="of the imitation")
    parser.add_argument("--slip", type=float, default=WrongPolicy.slip)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=list(ROWS))
    options = parser.parse_args()
    WrongPolicy.slip = options.slip
    torch.set_num_threads(1)
    print("| | seed | success before | after | sampled, last 3 | sampler KL | sample size | entropy | seconds |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        make_start(Path(folder, "start"), options.start_updates)
        for seed in range(options.seeds):
            for number, name in enumerate(options.rows):
                print(train(Path(folder, "start"), Path(folder, f"{seed}-{number}"), name, options, seed), flush=True)


if __name__ == "__main__":
    main()
