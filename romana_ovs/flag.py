"""Provides a flag that one green thread waits for and any may set; setting it twice before it is seen counts once."""

from __future__ import annotations

import eventlet
from eventlet.event import Event


class Flag:
    """Starts lowered."""

    def __init__(self) -> None:
        self._raised = False
        self._event = Event()

    def set(self) -> None:
        """Raise it."""
        self._raised = True
        if not self._event.ready():
            self._event.send(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Whether it was raised within `seconds` (None: whenever that is); it is lowered again."""
        if not self._raised:
            with eventlet.Timeout(seconds, False):
                self._event.wait()
        raised, self._raised = self._raised, False
        if self._event.ready():
            self._event = Event()
        return raised

    def clear(self) -> None:
        """Lower it, as what it told of is being done."""
        self._raised = False
        if self._event.ready():
            self._event = Event()
