"""How well policies do on the built-in questions about papers: shortcuts, the hasty expert and the expert.

python benchmarks/paper_search_controls.py --queries 240
"""

from __future__ import annotations

import argparse

from steppo_gym.envs.paper_search.controls import control_scores

COLUMNS = ("recall", "precision", "f1", "episode_return", "papers")


def main() -> None:
    """Print a markdown table of all policies, and one of their recall by kind of question."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test")
    parser.add_argument("--queries", type=int, default=240, help="the first ones of the split")
    options = parser.parse_args()
    scores = control_scores(options.split, num_queries=options.queries)
    every = scores["all"]
    print(f"| {options.split}, {options.queries} queries | {' | '.join(COLUMNS).replace('episode_', '')} |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for name, row in every.items():
        print(f"| {name} | {' | '.join(f'{getattr(row, column):.3f}' for column in COLUMNS)} |")
    kinds = [kind for kind in scores if kind != "all"]
    print(f"\n| recall / return | {' | '.join(kinds)} |")
    print("|---" * (len(kinds) + 1) + "|")
    for name in every:
        cells = [f"{scores[kind][name].recall:.3f} / {scores[kind][name].episode_return:.2f}" for kind in kinds]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
