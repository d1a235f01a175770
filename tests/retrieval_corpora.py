"""Small corpora and a slow BM25 written from its definition, for the tests of retrieval."""

from __future__ import annotations

import math
import random
from collections import Counter

from steppo_gym.retrieval.analysis import passage_terms, query_terms
from steppo_gym.retrieval.retriever import Passage

WORDS = ["moon", "rocket", "crew", "orbit", "lander", "apollo", "saturn", "dust", "crater", "the", "of", "x", "8"]


def make_passages(size, *, seed=0, words=WORDS):
    rng = random.Random(seed)
    return [
        Passage(f"p{i}", " ".join(rng.choices(words, k=2)), " ".join(rng.choices(words, k=rng.randint(0, 12))))
        for i in range(size)
    ]


def bm25_slow(passages, query, *, k1, b):
    """Scores of all passages, 0.0 where no term is shared, from the definition of Lucene's BM25, in float64."""
    documents = [Counter(passage_terms(passage)) for passage in passages]
    lengths = [sum(document.values()) for document in documents]
    average = sum(lengths) / len(lengths)
    scores = []
    for document, length in zip(documents, lengths, strict=True):
        score = 0.0
        for term in query_terms(query):
            if term in document:
                having = sum(term in other for other in documents)
                idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
                score += idf * document[term] / (document[term] + k1 * (1 - b + b * length / average))
        scores.append(score)
    return scores
