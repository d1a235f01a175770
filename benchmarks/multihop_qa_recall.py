"""How much of what official questions need is found when the question itself is the query.

python benchmarks/multihop_qa_recall.py hotpotqa=hotpot_dev_distractor_v1.json musique=musique_ans_v1.0_dev.jsonl

The pool is the paragraphs of all the files together (or --corpus). R@k is the mean share of a question's supporting
passages among the first k, all@k the share of questions with every one of them there. A pool of some thousand passages
is far easier than Wikipedia.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from steppo_gym.envs.multihop_qa.files import read_aliases, read_rows
from steppo_gym.envs.multihop_qa.questions import Paragraph, Question, read_row
from steppo_gym.envs.multihop_qa.search_state import SearchState
from steppo_gym.retrieval import Passage, Retriever, open_retriever, open_retriever_for


def main() -> None:
    """Print a markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="NAME=FILE", help="rows of one name are counted together")
    parser.add_argument("--corpus", help="corpus file or address of a search server, instead of the files' paragraphs")
    parser.add_argument("--top-k", type=int, nargs="+", default=[5, 10, 20])
    options = parser.parse_args()
    questions: dict[str, list[Question]] = {}
    for argument in options.files:
        name, _, file = argument.partition("=")
        questions.setdefault(name, []).extend(_read(Path(file)))
    retriever = open_retriever(options.corpus) if options.corpus else _pool(questions)
    columns = [f"{measure}@{k}" for k in options.top_k for measure in ("R", "all")]
    print(f"| data | questions | {' | '.join(columns)} |")
    print("|---" * (len(columns) + 2) + "|")
    for name, rows in questions.items():
        shares = [
            share for k in options.top_k for share in recall_at(rows, retriever, k, same_texts=not options.corpus)
        ]
        print(f"| {name} | {len(rows)} | {' | '.join(f'{share:.3f}' for share in shares)} |")


def recall_at(questions: list[Question], retriever: Retriever, k: int, *, same_texts: bool) -> tuple[float, float]:
    """R@k and all@k; see the module."""
    shares = []
    for question, hits in zip(questions, retriever.search([q.text for q in questions], k), strict=True):
        state = SearchState(same_texts=same_texts)
        state.find([hit.passage for hit in hits])
        found = [state.has(paragraph) for paragraph in question.supporting]
        shares.append(sum(found) / len(found))
    return sum(shares) / len(shares), sum(share == 1.0 for share in shares) / len(shares)


def _read(file: Path) -> list[Question]:
    aliases = read_aliases(file.parent)
    read = (read_row(row, aliases) for row in read_rows(file))
    return [question for question in read if question is not None and question.supporting]


def _pool(questions: dict[str, list[Question]]) -> Retriever:
    pool: dict[Paragraph, None] = {}
    for rows in questions.values():
        for question in rows:
            pool.update(dict.fromkeys(question.paragraphs))
    print(f"{len(pool)} passages\n")
    return open_retriever_for([Passage(str(i), p.title, p.text) for i, p in enumerate(pool)])


if __name__ == "__main__":
    main()
