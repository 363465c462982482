"""Caches values that are computed from others until these change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

Value = TypeVar("Value")

MAX_SHARED = 8
"""Values of one slot that `shared` keeps: users that differ in their inputs are few at any moment."""


class Derived:
    """The last value of each slot. An equal new value gives way to the old object, so that `is` tells a change."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[Any, Any]] = {}
        self._shared: dict[str, dict[tuple[int, ...], tuple[Any, Any]]] = {}

    def shared(self, slot: str, inputs: tuple[object, ...], compute: Callable[[], Value]) -> Value:
        """The value of `slot` for just these objects as `inputs`; those of a few other inputs are kept beside it."""
        entries: dict[tuple[int, ...], tuple[Any, Any]] = self._shared.setdefault(slot, {})
        key = tuple(map(id, inputs))
        held = entries.get(key)
        if held is None:
            if len(entries) >= MAX_SHARED:
                del entries[next(iter(entries))]
            # The inputs are kept, so that no other object can come to have the same id.
            held = entries[key] = (inputs, compute())
        found: Value = held[1]
        return found

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
