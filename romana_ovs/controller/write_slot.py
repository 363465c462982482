"""Holds one write request at a time back from the API server: until the last one is answered, and after failures."""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_

from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.published import Write

TROUBLE_SECONDS = 2.0
"""Until writes that were refused, or could not be made, are tried again."""
LATE_SECONDS = 1.0
"""Until writes that met a conflict are tried again although nothing newer was read: the watch may be away."""


class WriteSlot:
    """The requests of one writer. `numbers` gives each request of the process a number of its own."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._in_flight: int | None = None
        self._retry_at: float | None = None
        self._conflict = False
        self._stored: tuple[object, ...] = ()
        self.error = ""
        """Why the last request failed; empty when it did not."""

    def free(self, stored: tuple[object, ...], now: float) -> bool:
        """Whether a request may be sent, with `stored` as last read.

        After a conflict anything newer that was read (another object in `stored`) ends the pause.
        """
        if self._in_flight is not None:
            return False
        newer = self._conflict and not all(map(is_, stored, self._stored))
        return newer or self._retry_at is None or now >= self._retry_at

    def request(self, writes: tuple[Write, ...], stored: tuple[object, ...], *, leading: bool = False) -> WriteRequest:
        """A request of `writes`, which were planned over `stored`: it is in flight from now on."""
        self._in_flight, self._stored = next(self._numbers), stored
        return WriteRequest(self._in_flight, writes, leading=leading)

    def on_result(self, result: WriteResult, now: float) -> bool:
        """Take note of a result; returns whether it is that of the request in flight."""
        if result.number != self._in_flight:
            return False
        self._in_flight, self.error, self._conflict = None, result.error, result.conflict
        pause = TROUBLE_SECONDS if result.error else LATE_SECONDS
        self._retry_at = now + pause if result.error or result.conflict else None
        return True

    def retry_at(self, now: float) -> float | None:
        """When the pause after a failure ends; None when there is none at the time `now`."""
        return self._retry_at if self._retry_at is not None and self._retry_at > now else None

    def reset(self) -> None:
        """What is in flight will not be answered."""
        self._in_flight = None
