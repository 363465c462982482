"""Limits a writer to one request in flight, and to a pause after a failed one."""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_

from romana_ovs.kube.api.write_executor import WriteRequest, WriteResult
from romana_ovs.kube.published import Write

ERROR_RETRY_SECONDS = 2.0
"""Before writes that were refused, or could not be made, are tried again."""
CONFLICT_RETRY_SECONDS = 1.0
"""Before writes that met a conflict are tried again although nothing newer was read: the watch may lag."""


class WriteSlot:
    """The requests of one writer. `request_numbers` yields a unique number for each request of the process."""

    def __init__(self, request_numbers: Iterator[int]) -> None:
        self._request_numbers = request_numbers
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
        self._in_flight, self._stored = next(self._request_numbers), stored
        return WriteRequest(self._in_flight, writes, leading=leading)

    def on_result(self, result: WriteResult, now: float) -> bool:
        """Handle a result; returns whether it is that of the request in flight."""
        if result.number != self._in_flight:
            return False
        self._in_flight, self.error, self._conflict = None, result.error, result.conflict
        pause = ERROR_RETRY_SECONDS if result.error else CONFLICT_RETRY_SECONDS
        self._retry_at = now + pause if result.error or result.conflict else None
        return True

    def retry_at(self, now: float) -> float | None:
        """When the pause after a failure ends; None when there is none at the time `now`."""
        return self._retry_at if self._retry_at is not None and self._retry_at > now else None

    def reset(self) -> None:
        """Forget the request in flight: it will not be answered."""
        self._in_flight = None
