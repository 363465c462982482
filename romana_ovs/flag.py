"""Provides a flag that any green thread may raise and one waits for: an event that resets itself."""

from __future__ import annotations

import eventlet
from eventlet.event import Event


class Flag:
    """Lowered at first. Raised several times before it is waited for, it wakes the waiting thread once."""

    def __init__(self) -> None:
        self._raised = False
        self._event = Event()

    def set(self) -> None:
        """Raise it."""
        self._raised = True
        if not self._event.ready():
            self._event.send(None)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is raised, at most `seconds`, and lower it; returns whether it was raised."""
        if not self._raised:
            with eventlet.Timeout(seconds, False):
                self._event.wait()
        raised, self._raised = self._raised, False
        if self._event.ready():
            self._event = Event()
        return raised

    def clear(self) -> None:
        """Lower it without waiting."""
        self._raised = False
        if self._event.ready():
            self._event = Event()
