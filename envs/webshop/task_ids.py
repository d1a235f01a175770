"""The ids of a split's tasks, "human/17": a goal by its kind and its number in the shuffled order."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import overload


class TaskIds(Sequence[str]):
    """Ids made when asked for, since a full shop has hundreds of thousands of goals.

    Args:
        kind: of the goals.
        numbers: of the goals, ascending.
    """

    def __init__(self, kind: str, numbers: Sequence[int]) -> None:
        self.kind, self.numbers = kind, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [f"{self.kind}/{number}" for number in self.numbers[index]]
        return f"{self.kind}/{self.numbers[index]}"

    def __contains__(self, task_id: object) -> bool:
        if not isinstance(task_id, str):
            return False
        kind, _, digits = task_id.partition("/")
        # Longer numbers than any shop has are not even read, and "human/007" is no second name of "human/7".
        if kind != self.kind or len(digits) > 12 or not (digits.isascii() and digits.isdigit()):
            return False
        number = int(digits)
        position = bisect_left(self.numbers, number)
        found = position < len(self.numbers) and self.numbers[position] == number
        return found and digits == str(number)


def goal_number(task_id: str) -> int:
    """The number in an id of `TaskIds`."""
    return int(task_id.partition("/")[2])
