"""Splits port ranges into masked matches."""

from __future__ import annotations

from collections.abc import Iterator

from romana_ovs.model.errors import PipelineError

PORT_WIDTH = 16
MAX_PORT = (1 << PORT_WIDTH) - 1


def masks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """(value, mask) pairs that together match exactly the ports `low` to `high`; 30 at most.

    Raises PipelineError when the range is empty or not of 16-bit numbers.
    """
    if not 0 <= low <= high <= MAX_PORT:
        raise PipelineError(f"{low} to {high} is not a range of ports")
    while low <= high:
        size = low & -low or 1 << PORT_WIDTH
        while low + size - 1 > high:
            size >>= 1
        yield low, MAX_PORT & ~(size - 1)
        low += size
