"""A few papers and queries as files, and how to play on them."""

from __future__ import annotations

ID = "steppo/PaperSearch-v0"

# A search for "pruning" finds two answers and one other; 2003.00003 and 2004.00004 are found by expansion alone, the
# last one of an answer that only the first expansion brings. 2106.00006 is too late.
PAPERS = [
    {"paper_id": "2001.00001", "title": "Pruning graphs", "abstract": "We prune.", "date": "2020-01-05"},
    {
        "paper_id": "2002.00002",
        "title": "More pruning",
        "abstract": "We prune more.",
        "date": "2020-02-05",
        "references": ["2001.00001", "1909.00009"],
    },
    {
        "paper_id": "2003.00003",
        "title": "Sparse networks",
        "abstract": "Thin.",
        "date": "2020-03-05",
        "references": ["2002.00002"],
    },
    {
        "paper_id": "2004.00004",
        "title": "Lottery tickets",
        "abstract": "Luck.",
        "date": "2020-04-05",
        "references": ["2003.00003"],
    },
    {"paper_id": "1909.00009", "title": "Backpropagation", "abstract": "", "date": "2019-09-05"},
    {
        "paper_id": "2106.00006",
        "title": "Pruning anew",
        "abstract": "Late.",
        "date": "2021-06-05",
        "references": ["2001.00001", "2002.00002"],
    },
    {"paper_id": "1905.00005", "title": "Pruning roses", "abstract": "In spring.", "date": "2019-05-05"},
    {"paper_id": "1805.00005", "title": "Cooking rice", "abstract": "In water.", "date": "2018-05-05"},
]
QUERIES = [
    {
        "question": "Which papers prune networks?",
        "answer": ["Pruning graphs", "More pruning", "Sparse networks", "Lottery tickets"],
        "answer_arxiv_id": ["2001.00001v2", "2002.00002", "2003.00003v1", "2004.00004"],
        "source_meta": {"published_time": "20210101"},
        "qid": "q1",
    },
    {
        "question": "Who cooks?",
        "answer": ["Cooking rice"],
        "answer_arxiv_id": ["1805.00005"],
        "source_meta": {"published_time": "20210101"},
        "qid": "q2",
    },
]

SEARCH, FIRST, SECOND = "<search>pruning</search>", "<expand>2002.00002</expand>", "<expand>2003.00003v2</expand>"


def play(env, *responses, task_id="q1"):
    """The results of the steps, and the info of the last one or of the reset."""
    _, info = env.reset(seed=0, options={"task_id": task_id})
    results = [env.step(response) for response in responses]
    return results, results[-1][4] if results else info
