import copy
import json
import pickle

import gymnasium
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steppo_gym import FreeText


@given(st.text())
def test_any_valid_unicode_is_contained(text):
    assert text in FreeText()


@pytest.mark.parametrize("other", ["\ud800", "a\udfffb", 3, None, b"text", ["text"], np.array("text")])
def test_what_is_no_text_is_not_contained(other):
    assert other not in FreeText()


def test_length_is_counted_in_code_points():
    space = FreeText(max_length=3)
    assert "äö🗝" in space
    assert "abcd" not in space


def test_samples_are_contained_and_repeat_with_the_seed():
    space, again = FreeText(seed=5), FreeText(seed=5)
    samples = [space.sample() for _ in range(500)]
    assert samples == [again.sample() for _ in range(500)]
    assert all(sample in space for sample in samples)
    assert len(set(samples)) > 400
    assert {len(sample) for sample in samples} == set(range(65))
    # From all of Unicode: below and above the gap of the surrogates, and beyond the first plane.
    codes = [ord(character) for sample in samples for character in sample]
    assert min(codes) < 0xD800 < 0xE000 <= max(codes) and max(codes) > 0xFFFF


def test_a_short_space_samples_short_texts():
    space = FreeText(max_length=2, seed=0)
    assert {len(space.sample()) for _ in range(100)} == {0, 1, 2}


def test_equal_by_value():
    assert FreeText(10) == FreeText(10, seed=3)
    assert FreeText(10) != FreeText(11)
    assert FreeText(10) != gymnasium.spaces.Text(10)
    assert len({FreeText(10), FreeText(10), FreeText(11)}) == 2
    assert repr(FreeText(10)) == "FreeText(max_length=10)"


def test_copies_go_on_with_the_same_samples():
    space = FreeText(seed=1)
    space.sample()
    copies = [copy.deepcopy(space), pickle.loads(pickle.dumps(space))]
    expected = space.sample()
    assert [twin.sample() for twin in copies] == [expected, expected]


def test_json_round_trip():
    space = FreeText(seed=2)
    samples = [space.sample() for _ in range(20)]
    assert space.from_jsonable(json.loads(json.dumps(space.to_jsonable(samples)))) == samples


def test_batch_of_spaces_for_vector_environments():
    batch = gymnasium.vector.utils.batch_space(FreeText(seed=0), 3)
    samples = batch.sample()
    assert samples in batch
    assert len(set(samples)) == 3


@pytest.mark.parametrize("arguments", [{"mask": ()}, {"probability": ()}])
def test_masks_are_not_supported(arguments):
    with pytest.raises(ValueError, match="neither mask nor probability"):
        FreeText().sample(**arguments)


def test_length_must_be_positive():
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        FreeText(0)
