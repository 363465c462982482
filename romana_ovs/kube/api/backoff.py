"""How long to wait after a failure: longer each time, up to a limit; not all clients alike; not less than asked."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 1.0
MOST_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
"""Longest wait that a Retry-After is obeyed for: a server that asks for hours has not met a controller."""
_SPREAD = 0.5
"""Share of every wait that chance may add, so that what failed together does not come back together."""


class Backoff:
    """The waits of one client. `random` gives fractions from 0 (included) to 1."""

    def __init__(
        self, random: Callable[[], float], *, first: float = FIRST_SECONDS, most: float = MOST_SECONDS
    ) -> None:
        self._random = random
        self._first = first
        self._most = most
        self.failures = 0
        """How many there were since the last success."""

    def succeeded(self) -> None:
        """The next failure is the first."""
        self.failures = 0

    def failed(self, retry_after: float | None = None) -> float:
        """Seconds to wait after this failure; `retry_after` is what the server asked for."""
        # Far beyond the limit the power would be no number any more.
        wait = min(self._most, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        # Between half of it and all of it, so that a fleet spreads; above what is asked, for the same reason.
        wait *= 1 - _SPREAD * self._random()
        if retry_after is not None:
            asked = min(max(retry_after, 0.0), PATIENCE_SECONDS)
            wait = max(wait, asked * (1 + _SPREAD * self._random()))
        return wait
