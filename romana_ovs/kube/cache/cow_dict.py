"""Provides a mutable mapping with read-only views, each a copy that is made only after a change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(slots=True)
class CowDict:
    """A mutable mapping, and its last view."""

    current: dict[Any, Any] = field(default_factory=dict)
    last_view: Mapping[Any, Any] = field(default_factory=lambda: MappingProxyType({}))
    touched: set[Any] = field(default_factory=set)

    def set(self, key: Any, value: Any) -> None:
        """Set (or, with None, remove) one value."""
        self.touched.add(key)
        if value is None:
            self.current.pop(key, None)
        else:
            self.current[key] = value

    def view(self) -> Mapping[Any, Any]:
        """A read-only copy of the mapping; the last one itself when all values equal those in it.

        Of a value and an equal new one the old one stays.
        """
        changed = False
        for key in self.touched:
            before, value = self.last_view.get(key), self.current.get(key)
            if value is not before and value == before:
                self.current[key] = before
            else:
                changed |= value is not before
        self.touched.clear()
        if changed:
            self.last_view = MappingProxyType(dict(self.current))
        return self.last_view
