"""The workers of one run under pytest-xdist: a folder that they share, and an end for all of them when one dies."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

_FOLDER = "romana_folder"
"""Key of `workerinput`, what xdist hands to each worker."""
_DEATH = "death"


class Workers:
    """A plugin of the process that hands out tests. Without xdist its hooks are not called."""

    def __init__(self) -> None:
        self._folder = TemporaryDirectory(prefix="romana-workers-")

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the folder is."""
        node.workerinput[_FOLDER] = self._folder.name

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Leave a note to the others when a worker has died; xdist names the test that it was running."""
        if error:
            Path(self._folder.name, _DEATH).write_text(f"worker {node.gateway.id} has died")

    def pytest_unconfigure(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


def shared_folder(config: pytest.Config) -> Path | None:
    """The same for all workers of a run; None where there are no workers, and in the process that hands out tests."""
    folder = getattr(config, "workerinput", {}).get(_FOLDER)
    return Path(folder) if folder is not None else None


def death_of_another(config: pytest.Config) -> str:
    """Which worker of the run has died, in a few words; empty when none has."""
    folder = shared_folder(config)
    note = folder / _DEATH if folder is not None else None
    return note.read_text() if note is not None and note.exists() else ""
