"""A minimal event loop: sockets and timers in one thread."""

from __future__ import annotations

import heapq
import selectors
import socket
import time
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


class Timer:
    """A call that is due later; `cancel` takes it back."""

    __slots__ = ("when", "order", "action")

    def __init__(self, when: float, order: int, action: Callable[[], None]) -> None:
        self.when = when
        self.order = order
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Never make the call."""
        self.action = None

    def __lt__(self, other: Timer) -> bool:
        return (self.when, self.order) < (other.when, other.order)


class Loop:
    """Calls back when sockets are ready and when timers are due, until `stop`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[Timer] = []
        self._order = 0
        self._stopped = False

    def watch(self, sock: socket.socket, events: int, action: Callable[[], None]) -> None:
        """Call `action` whenever `sock` is ready for `events`; replaces what was watched of it before."""
        try:
            self._selector.modify(sock, events, action)
        except KeyError:
            self._selector.register(sock, events, action)

    def forget(self, sock: socket.socket) -> None:
        """Watch `sock` no more; nothing when it is not watched."""
        try:
            self._selector.unregister(sock)
        except (KeyError, ValueError):
            return

    def later(self, seconds: float, action: Callable[[], None]) -> Timer:
        """The timer that calls `action` once, `seconds` from now."""
        self._order += 1
        timer = Timer(time.monotonic() + seconds, self._order, action)
        heapq.heappush(self._timers, timer)
        return timer

    def stop(self) -> None:
        """Return from `run` after the current call."""
        self._stopped = True

    def run(self) -> None:
        """Serve until `stop`."""
        while not self._stopped:
            for key, _ in self._selector.select(self._pause()):
                key.data()
            self._fire()

    def _pause(self) -> float | None:
        while self._timers and self._timers[0].action is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0].when - time.monotonic()) if self._timers else None

    def _fire(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0].when <= now:
            action = heapq.heappop(self._timers).action
            if action is not None:
                action()
