"""Aligned power-of-two runs of segment indexes, and which of them are still free."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple


class Run(NamedTuple):
    """The segment indexes `base` to `base + size - 1`; `size` is a power of two that divides `base`."""

    base: int
    size: int

    @property
    def indexes(self) -> range:
        """Its segment indexes."""
        return range(self.base, self.base + self.size)

    @property
    def buddy(self) -> Run:
        """The only run of the same size that makes an aligned run of twice the size with this one."""
        return Run(self.base ^ self.size, self.size)

    def with_buddy(self) -> Run:
        """The run of twice the size that holds this one."""
        return Run(self.base & ~self.size, self.size * 2)


class FreeRuns:
    """The largest aligned free runs of a space of indexes. What was taken is never given back.

    The content is a function of what is taken alone, so it need not be saved.
    """

    def __init__(self, bits: int, taken: Iterable[Run]) -> None:
        """All of `2**bits` indexes but those of the `taken` runs, which must not overlap."""
        self._free: list[list[int]] = [[] for _ in range(bits + 1)]
        self._add(Run(0, 1 << bits), sorted(taken))

    def _add(self, whole: Run, taken: list[Run]) -> None:
        if not taken:
            self._free[whole.size.bit_length() - 1].append(whole.base)
        elif whole not in taken:
            middle = whole.base + whole.size // 2
            self._add(Run(whole.base, whole.size // 2), [run for run in taken if run.base < middle])
            self._add(Run(middle, whole.size // 2), [run for run in taken if run.base >= middle])

    def take(self, size: int) -> Run | None:
        """The lowest run of `size` out of the smallest free run that has room, or None."""
        for level in range(size.bit_length() - 1, len(self._free)):
            if self._free[level]:
                found = Run(self._free[level].pop(0), 1 << level)
                while found.size > size:
                    found = Run(found.base, found.size // 2)
                    insort(self._free[found.size.bit_length() - 1], found.buddy.base)
                return found
        return None

    def take_exactly(self, run: Run) -> bool:
        """Whether `run` was free as it is; it is taken now."""
        level = run.size.bit_length() - 1
        if level >= len(self._free):
            return False
        bases = self._free[level]
        place = bisect_left(bases, run.base)
        if place == len(bases) or bases[place] != run.base:
            return False
        del bases[place]
        return True
