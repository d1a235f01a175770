"""Which row of the cache each slot's context lies in, and the moves that bring slots together."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from steppo_gym.trainers.policy.slot_cache import SlotCache


class SlotRows:
    """Rows of a cache that belong to slots, in an order that changes.

    Args:
        cache: has as many rows as there are slots.
    """

    def __init__(self, cache: SlotCache) -> None:
        self.cache = cache
        self.slot_at = list(range(cache.num_rows))
        """By row."""
        self.row_of = list(range(cache.num_rows))
        """By slot."""
        self.lengths = [0] * cache.num_rows
        """By slot, the columns that are valid."""

    def gather(self, slots: Sequence[int]) -> int:
        """Bring slots into adjacent rows with the fewest moves, and return the first of these rows."""
        rows = sorted(self.row_of[slot] for slot in slots)
        # The window that holds most of them already; it begins at one of them, or ends with the last row.
        starts = sorted({min(row, len(self.slot_at) - len(rows)) for row in rows})
        first = max(starts, key=lambda start: bisect_left(rows, start + len(rows)) - bisect_left(rows, start))
        self.arrange(first, [slots])
        return first

    def arrange(self, first: int, groups: Iterable[Sequence[int]]) -> None:
        """Lay groups of slots one after another from row `first` on; within a group any order is as good."""
        for group in groups:
            members, end = set(group), first + len(group)
            holes = [row for row in range(first, end) if self.slot_at[row] not in members]
            outside = [row for slot in group if not first <= (row := self.row_of[slot]) < end]
            self.swap(list(zip(holes, outside, strict=True)))
            first = end

    def drop(self, first: int, stopped: Sequence[bool]) -> list[int]:
        """Move what has stopped, of the rows from `first` on, behind what goes on.

        Returns:
            For each row that goes on, in the new order, its place among the old.
        """
        number = len(stopped) - sum(stopped)
        holes = [place for place in range(number) if stopped[place]]
        late = [place for place in range(number, len(stopped)) if not stopped[place]]
        self.swap([(first + hole, first + place) for hole, place in zip(holes, late, strict=True)])
        kept = list(range(number))
        for hole, place in zip(holes, late, strict=True):
            kept[hole] = place
        return kept

    def swap(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Exchange the contents of pairs of rows, no row being in two pairs."""
        by_size: dict[int, list[tuple[int, int, int]]] = {}
        for first, second in pairs:
            width = max(self.lengths[self.slot_at[first]], self.lengths[self.slot_at[second]])
            by_size.setdefault(width.bit_length(), []).append((first, second, width))
        by_size.pop(0, None)
        # Short contexts apart from long ones: all of one move are as wide as its widest.
        for moved in by_size.values():
            firsts, seconds, widths = (list(column) for column in zip(*moved, strict=True))
            self.cache.move(firsts + seconds, seconds + firsts, max(widths))
        for first, second in pairs:
            one, other = self.slot_at[first], self.slot_at[second]
            self.slot_at[first], self.slot_at[second] = other, one
            self.row_of[one], self.row_of[other] = second, first
