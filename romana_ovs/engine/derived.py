"""Caches values that are computed from others until these change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")


class Derived:
    """The last value of each slot. An equal new value gives way to the old object, so that `is` tells a change."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, Any]] = {}

    def value(self, slot: str, depends_on: Any, work_out: Callable[[], Value]) -> Value:
        """The value of `slot`; `work_out` is called unless `depends_on` equals what it was the last time."""
        held = self._held.get(slot)
        if held is None:
            result = work_out()
        elif held[0] == depends_on:
            before: Value = held[1]
            return before
        else:
            result = work_out()
            if held[1] == result:
                result = held[1]
        self._held[slot] = (depends_on, result)
        return result
