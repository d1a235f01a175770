"""Answer scores are those of the official scripts."""

from __future__ import annotations

import json

import pytest

from steppo_gym.envs.multihop_qa.scoring import DATASETS, normalize, scores

# Prediction, gold answer, exact match, F1 of HotpotQA and 2WikiMultihopQA, F1 of MuSiQue: worked out by hand from the
# rules of the official scripts.
CASES = [
    ("Baudot code", "Baudot code", 1, 1.0, 1.0),
    ("the Baudot Code.", "baudot code", 1, 1.0, 1.0),
    ("Baudot", "Baudot code", 0, 2 / 3, 2 / 3),
    ("code code", "code", 0, 2 / 3, 2 / 3),
    ("yes, they were", "yes", 0, 0.0, 0.5),
    ("no", "no", 1, 1.0, 1.0),
    ("noanswer here", "noanswer", 0, 0.0, 2 / 3),
    ("the", "", 1, 0.0, 1.0),
    ("", "1931", 0, 0.0, 0.0),
    ("3,677", "3677", 1, 1.0, 1.0),
    ("1931\u20131940", "19311940", 0, 0.0, 0.0),  # only ASCII punctuation is dropped
    ("theatre an", "theatre", 1, 1.0, 1.0),
]


@pytest.mark.parametrize(("prediction", "gold", "em", "hotpot_f1", "musique_f1"), CASES)
def test_scores(prediction, gold, em, hotpot_f1, musique_f1):
    for dataset, f1 in (("hotpotqa", hotpot_f1), ("2wikimultihopqa", hotpot_f1), ("musique", musique_f1)):
        found = scores(prediction, [gold], dataset)
        assert (found.em, found.f1) == pytest.approx((em, f1)), dataset


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_best_of_the_gold_answers_counts(dataset):
    found = scores("Big Apple", ["New York", "the Big Apple", "Big Apple City"], dataset)
    assert (found.em, found.f1) == (1.0, 1.0)
    # Not necessarily from one and the same.
    found = scores("New York City", ["York", "New York City Hall"], dataset)
    assert found.em == 0.0
    assert found.f1 == pytest.approx(6 / 7)


@pytest.mark.data
def test_recorded_scores_of_the_official_scripts(shared_data):
    lines = (shared_data / "hotpotqa" / "scoring_vectors.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines
    for vector in map(json.loads, lines):
        assert normalize(vector["prediction"]) == vector["normalized_prediction"]
        assert normalize(vector["gold"]) == vector["normalized_gold"]
        for dataset, name in zip(DATASETS, ("hotpot", "twowiki", "musique"), strict=True):
            found = scores(vector["prediction"], [vector["gold"]], dataset)
            assert (found.em, found.f1) == (vector[f"{name}_em"], vector[f"{name}_f1"]), (dataset, vector)
