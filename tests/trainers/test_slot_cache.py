"""The cache of slots, and the rows they move between, against one list of keys for each slot."""

from __future__ import annotations

import resource
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from steppo_gym.trainers.policy.slot_cache import SlotCache, SlotCacheLayer, zeros
from steppo_gym.trainers.policy.slots import SlotRows

SLOTS, HEADS, SIZE = 6, 2, 3


def random_states(rows: int, new: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(rows, HEADS, new, SIZE, generator=generator)


def layer_of(cache: SlotCache) -> SlotCacheLayer:
    (layer,) = cache.layers
    assert isinstance(layer, SlotCacheLayer)
    return layer


# Each call: which slots, in which order, how many new columns, and which of them stop afterwards.
CALLS = st.lists(
    st.tuples(
        st.lists(st.integers(0, SLOTS - 1), min_size=1, max_size=SLOTS, unique=True),
        st.integers(1, 100),
        st.lists(st.booleans(), min_size=SLOTS, max_size=SLOTS),
    ),
    min_size=1,
    max_size=6,
)


@given(CALLS, st.integers(0, 2**16))
@settings(deadline=None)
def test_a_call_gets_what_its_slots_have_been_given(calls, seed):
    generator = torch.Generator().manual_seed(seed)
    cache = SlotCache(1, SLOTS)
    rows = SlotRows(cache)
    kept = [torch.zeros(2, HEADS, 0, SIZE) for _ in range(SLOTS)]

    def run(first: int, number: int, new: int) -> None:
        slots = rows.slot_at[first : first + number]
        lengths = [kept[slot].shape[2] for slot in slots]
        _, mask = cache.address(slice(first, first + number), torch.tensor(lengths), new, max(lengths) + new)
        given_states = torch.stack([random_states(number, new, generator) for _ in range(2)])
        found = torch.stack(layer_of(cache).update(*given_states))
        for row, slot in enumerate(slots):
            kept[slot] = torch.cat([kept[slot], given_states[:, row]], dim=2)
            rows.lengths[slot] += new
            # The last new token may look at all its slot has.
            assert torch.equal(found[:, row, :, mask[row, 0, -1] == 0], kept[slot])

    for slots, new, stopping in calls:
        first = rows.gather(slots)
        assert sorted(rows.slot_at[first : first + len(slots)]) == sorted(slots)
        run(first, len(slots), new)
        before, stopped = rows.slot_at[first : first + len(slots)], stopping[: len(slots)]
        goes_on = rows.drop(first, stopped)
        assert [before[place] for place in goes_on] == rows.slot_at[first : first + len(goes_on)]
        assert sorted(goes_on) == [place for place, stop in enumerate(stopped) if not stop]
        if goes_on:
            run(first, len(goes_on), 1)
        assert sorted(rows.slot_at) == list(range(SLOTS))
        assert all(rows.slot_at[rows.row_of[slot]] == slot for slot in range(SLOTS))


def test_rows_are_not_copied():
    cache = SlotCache(1, SLOTS)
    cache.address(slice(2, 5), torch.zeros(3, dtype=torch.long), 4, 4)
    states = random_states(3, 4, torch.Generator().manual_seed(0))
    found, _ = layer_of(cache).update(states, states)
    keys = layer_of(cache).keys
    assert keys is not None
    assert found.untyped_storage().data_ptr() == keys.untyped_storage().data_ptr()
    assert torch.equal(found, states)


def test_zeros_take_no_memory_until_something_is_written():
    """Not where they are copied either: what a cache that grows leaves behind is given back."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    before = resident()
    cache = zeros((64, 4, 2048, 32), torch.float32, torch.device("cpu"))
    assert cache.nbytes == 2**26 and cache.shape == (64, 4, 2048, 32) and cache.dtype == torch.float32
    assert resident() - before < 2**22
    cache[3] = 1.0
    assert 2**20 <= resident() - before < 2**23
    assert cache[2:5].sum(dim=(1, 2, 3)).tolist() == [0.0, 4 * 2048 * 32, 0.0]
    del cache
    assert resident() - before < 2**20
    assert zeros((2, 3), torch.bfloat16, torch.device("cpu")).tolist() == [[0.0] * 3] * 2


def test_slots_that_lie_together_do_not_move():
    rows = SlotRows(SlotCache(1, SLOTS))
    # Two halves of all slots, in turn, as a rollout asks for them.
    for _ in range(2):
        assert {rows.gather([0, 2, 4]), rows.gather([1, 3, 5])} == {0, 3}
        settled = list(rows.slot_at)
    assert rows.gather([4, 0, 2]) in (0, 3) and rows.slot_at == settled


def test_groups_are_laid_one_after_another():
    rows = SlotRows(SlotCache(1, SLOTS))
    rows.arrange(1, [[3], [5, 1], [4]])
    assert rows.slot_at[1] == 3 and sorted(rows.slot_at[2:4]) == [1, 5] and rows.slot_at[4] == 4
    assert sorted(rows.slot_at) == list(range(SLOTS))


def test_a_mask_is_a_number_that_is_added():
    cache = SlotCache(1, SLOTS, dtype=torch.bfloat16)
    positions, mask = cache.address(slice(0, 2), torch.tensor([0, 3]), 2, 5)
    assert positions.tolist() == [[0, 1], [3, 4]]
    least = torch.finfo(torch.bfloat16).min
    assert mask.dtype == torch.bfloat16 and mask.shape == (2, 1, 2, 5)
    seen = [[[1, 2]], [[4, 5]]]
    assert (mask == 0).sum(-1).tolist() == seen and ((mask == 0) | (mask == least)).all()
