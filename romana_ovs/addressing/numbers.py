"""A space of numbers that are handed out as late as possible after they were given back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable


class Numbers:
    """Hands out numbers from 0: first those never used, then the one that has waited longest.

    So a number that was given back is used again only after every other free one. The space may grow.
    """

    def __init__(self, unused: int = 0, waiting: Iterable[int] = ()) -> None:
        """`unused` is the lowest number never looked at, `waiting` those below it that are free, longest first."""
        self._unused = unused
        self._waiting = deque(waiting)

    def take(self, capacity: int, usable: Callable[[int], bool]) -> int | None:
        """The next number below `capacity` that is `usable`, or None. Numbers that are not now stay in line."""
        while self._unused < capacity:
            number = self._unused
            self._unused += 1
            if usable(number):
                return number
            self._waiting.append(number)
        for place, number in enumerate(self._waiting):
            if usable(number):
                del self._waiting[place]
                return number
        return None

    def give_back(self, number: int) -> None:
        """Puts a number that `take` returned at the end of the line."""
        self._waiting.append(number)

    def to_json(self) -> list[int]:
        """The two arguments of the constructor in one list."""
        return [self._unused, *self._waiting]
