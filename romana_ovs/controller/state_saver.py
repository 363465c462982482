"""Saves the numbers that must be durable before any flow uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from romana_ovs.state import StateFile


class Durable(Protocol):
    """What has numbers to save."""

    @property
    def revision(self) -> int:
        """Counts the changes of what `to_save` gives."""

    def to_save(self) -> dict[str, Any]:
        """All numbers that must survive a restart; values may be Encoded."""


class StateSaver:
    """Saves what changed since the last time to a state file; nothing is saved without a `path`."""

    def __init__(self, path: Path | None) -> None:
        self._file = StateFile(path) if path is not None else None
        self._saved = 0

    def load(self) -> Mapping[str, Any] | None:
        """What was saved last, None when nothing was. Raises InputError when it cannot be used."""
        return self._file.load() if self._file is not None else None

    def unsaved(self, numbers: Durable) -> Callable[[], None] | None:
        """What saves the present `numbers` when called, from any thread; None when nothing is new.

        It raises InputError when they cannot be saved.
        """
        file, revision = self._file, numbers.revision
        if file is None or revision == self._saved:
            return None
        state = numbers.to_save()

        def save() -> None:
            file.save(state)
            self._saved = revision

        return save
