"""The numbers that must be durable before any flow uses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from romana_ovs.controller.following import Following
from romana_ovs.state import StateFile


class StateSaver:
    """What was saved of a `Following`, in a state file; nothing is without a `path`."""

    def __init__(self, path: Path | None) -> None:
        self._file = StateFile(path) if path is not None else None
        self._saved = 0

    def load(self) -> Mapping[str, Any] | None:
        """What was saved last, None when nothing was. Raises InputError when it cannot be used."""
        return self._file.load() if self._file is not None else None

    def unsaved(self, world: Following) -> Mapping[str, Any] | None:
        """What `saving` has to save, None when nothing is new."""
        return world.to_save() if self._file is not None and world.revision != self._saved else None

    def saving(self, world: Following, numbers: Mapping[str, Any] | None) -> Callable[[], None] | None:
        """What makes `numbers`, all that `world` has now, durable, from any thread; it raises InputError."""
        file, revision = self._file, world.revision
        if file is None or numbers is None:
            return None

        def save() -> None:
            file.save(numbers)
            self._saved = revision

        return save
