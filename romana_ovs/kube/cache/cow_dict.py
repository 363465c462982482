"""Keeps a mapping that changes one value at a time, and hands out read-only copies of it (copy on write)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(slots=True)
class CowDict:
    """One mapping of the cluster: as it is now, and the read-only copy of it that was given out."""

    now: dict[Any, Any] = field(default_factory=dict)
    given: Mapping[Any, Any] = field(default_factory=lambda: MappingProxyType({}))
    touched: set[Any] = field(default_factory=set)

    def put(self, key: Any, value: Any) -> None:
        """Set (or, with None, remove) one value."""
        self.touched.add(key)
        if value is None:
            self.now.pop(key, None)
        else:
            self.now[key] = value

    def copy(self) -> Mapping[Any, Any]:
        """What is there now, read-only; the same mapping as last time when it holds the same."""
        changed = False
        for key in self.touched:
            before, value = self.given.get(key), self.now.get(key)
            if value is not before and value == before:
                self.now[key] = before
            else:
                changed |= value is not before
        self.touched.clear()
        if changed:
            self.given = MappingProxyType(dict(self.now))
        return self.given
