"""Allocates numbers with least-recently-freed reuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable


class NumberAllocator:
    """Allocates numbers from 0: first those never used, then the one that was freed first.

    So a freed number is reused as late as possible. The capacity may grow. There may be one for each pod, with few
    numbers: an empty list takes a tenth of the memory of a deque.
    """

    __slots__ = ("_freed", "_unused")

    def __init__(self, unused: int = 0, freed: Iterable[int] = ()) -> None:
        """`unused` is the lowest number never tried, `freed` those below it that are free, the first freed first."""
        self._unused = unused
        self._freed = list(freed)

    def allocate(self, capacity: int, usable: Callable[[int], bool]) -> int | None:
        """The next number below `capacity` that is `usable`, or None. Others stay in the queue."""
        while self._unused < capacity:
            number = self._unused
            self._unused += 1
            if usable(number):
                return number
            self._freed.append(number)
        for place, number in enumerate(self._freed):
            if usable(number):
                del self._freed[place]
                return number
        return None

    def free(self, number: int) -> None:
        """Frees a number that `allocate` returned: appends it to the queue."""
        self._freed.append(number)

    def to_json(self) -> list[int]:
        """The arguments of the constructor as one list."""
        return [self._unused, *self._freed]
