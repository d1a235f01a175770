"""How well policies do on the built-in questions that do not search step by step.

python benchmarks/multihop_qa_controls.py --top-k 5 --questions 400
"""

from __future__ import annotations

import argparse

from steppo_gym.envs.multihop_qa.controls import CONTROLS, control_scores
from steppo_gym.envs.multihop_qa.scoring import DATASETS


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", default="test")
    parser.add_argument("--questions", type=int, default=400, help="the first ones of the split")
    parser.add_argument("--top-k", type=int, default=5, help="passages per search")
    options = parser.parse_args()
    print(f"| exact match, {options.split}, top {options.top_k} | {' | '.join(CONTROLS)} |")
    print("|---" * (len(CONTROLS) + 1) + "|")
    for dataset in DATASETS:
        scores = control_scores(dataset, options.split, num_questions=options.questions, top_k=options.top_k)
        for kind, row in scores.items():
            print(f"| {dataset}: {kind} | {' | '.join(f'{row[control]:.3f}' for control in CONTROLS)} |")


if __name__ == "__main__":
    main()
