"""KeyDoor trained on what a wrong sampler has sampled, with and without importance weights.

    python benchmarks/off_policy.py none /tmp/none --iterations 15
    python benchmarks/off_policy.py step_truncate /tmp/step --iterations 15

The sampler draws every token from the policy's distribution with probability 1 - SLIP, and uniformly from the whole
vocabulary otherwise, as an engine with a fault in its kernels might. It reports the log-probabilities of what it
samples from. Evaluation is greedy and by the policy itself. Further arguments are those of trainers/steppo.py.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from steppo_gym.rollouts.policies import Policy
from steppo_gym.trainers.policy.generation import ModelPolicy
from steppo_gym.trainers.rules import StepPO
from steppo_gym.trainers.run import launch
from steppo_gym.trainers.step_trainer import StepTrainer

SLIP = 0.1


class WrongPolicy(ModelPolicy):
    """Slips now and then."""

    def _sample(self, logits: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
        if self.temperature == 0:
            return super()._sample(logits, draws)
        right = torch.softmax(logits / self.temperature, dim=-1)
        wrong = torch.log((1.0 - SLIP) * right + SLIP / logits.shape[-1])
        return super()._sample(wrong * self.temperature, draws)


class WronglySampledTrainer(StepTrainer):
    """Samples wrongly in training, and knows that its sampler is another one."""

    def _policy(self, temperature: float, seed: int, num_slots: int | None = None, model: Any = None) -> Policy:
        policy = super()._policy(temperature, seed, num_slots, model)
        if num_slots is None and self.model.training:
            policy.__class__ = WrongPolicy
        return policy

    @property
    def samples_elsewhere(self) -> bool:
        """It does."""
        return True

    def check_first_gap(self, gap: float) -> None:
        """It would end the run, as it should."""


def main() -> None:
    """Train and print the summary."""
    correction, folder, *others = sys.argv[1:]
    launch.StepTrainer = WronglySampledTrainer
    flags = ["--env", "key_door", "--output_dir", folder, "--off_policy_correction", correction]
    launch.launch(StepPO, [*flags, *others])


if __name__ == "__main__":
    main()
