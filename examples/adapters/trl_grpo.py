"""KeyDoor with TRL's own `GRPOTrainer`, one advantage for a whole conversation.

    python examples/adapters/trl_grpo.py --model Qwen/Qwen3-0.6B --env steppo/KeyDoor-v0

For credit to each step train with `python trainers/steppo.py` instead; `benchmarks/trainer.py` compares the two.
"""

import argparse

from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

import steppo_gym  # noqa: F401 - registers the environments
from steppo_gym.adapters.trl import environment_class, rows, score


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True, help="folder or name of a model whose chat template has tools")
    parser.add_argument("--env", default="steppo/KeyDoor-v0")
    parser.add_argument("--max_steps", type=int, default=100)
    parser.add_argument("--num_generations", type=int, default=8)
    parser.add_argument("--max_completion_length", type=int, default=4096, help="of a whole conversation")
    parser.add_argument("--output_dir", default="runs/trl_grpo")
    options = parser.parse_args()
    trainer = GRPOTrainer(
        options.model,
        reward_funcs=[score],  # type: ignore[arg-type]
        environment_factory=environment_class(options.env),
        train_dataset=Dataset.from_list(rows(options.env)),
        args=GRPOConfig(
            output_dir=options.output_dir,
            max_steps=options.max_steps,
            num_generations=options.num_generations,
            per_device_train_batch_size=options.num_generations,
            max_completion_length=options.max_completion_length,
            logging_steps=1,
            report_to="none",
        ),
    )
    trainer.train()


if __name__ == "__main__":
    main()
