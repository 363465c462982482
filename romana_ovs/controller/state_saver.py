"""Saves the numbers that must be durable before any flow uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from romana_ovs.state import StateFile


class Durable(Protocol):
    """Has numbers that must be durable."""

    @property
    def state_version(self) -> int:
        """Grows with every change of `to_save`."""

    def to_save(self) -> dict[str, Any]:
        """All numbers that must survive a restart; values may be Encoded."""


class StateSaver:
    """Saves numbers to a state file when they have changed; without a `path` nothing is saved."""

    def __init__(self, path: Path | None) -> None:
        self._file = StateFile(path) if path is not None else None
        self._saved = 0

    def load(self) -> Mapping[str, Any] | None:
        """The last saved state, None when there is none. Raises InputError when it is invalid."""
        return self._file.load() if self._file is not None else None

    def pending_save(self, numbers: Durable) -> Callable[[], None] | None:
        """A function that saves the present `numbers`, in any thread; None when they are saved already.

        It raises InputError when they cannot be saved.
        """
        file, version = self._file, numbers.state_version
        if file is None or version == self._saved:
            return None
        state = numbers.to_save()

        def save() -> None:
            file.save(state)
            self._saved = version

        return save
