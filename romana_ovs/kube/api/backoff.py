"""Computes exponential back-off with jitter, which respects Retry-After."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 1.0
MOST_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
"""Upper bound on Retry-After; a longer value is treated as a misconfiguration."""
_SPREAD = 0.5
"""Share of every wait that is random, so that clients that failed together do not retry together."""


class Backoff:
    """The back-off of one client. `random` returns fractions from 0 (included) to 1."""

    def __init__(
        self, random: Callable[[], float], *, first: float = FIRST_SECONDS, most: float = MOST_SECONDS
    ) -> None:
        self._random = random
        self._first = first
        self._most = most
        self.failures = 0
        """Failures since the last success."""

    def succeeded(self) -> None:
        """Reset after a success."""
        self.failures = 0

    def failed(self, retry_after: float | None = None) -> float:
        """Seconds to wait after this failure; `retry_after` is from the server."""
        # Bounded, because a larger power would overflow.
        wait = min(self._most, self._first * 2.0 ** min(self.failures, 30))
        self.failures += 1
        # Between half and all of it, and never below Retry-After, so that many clients spread.
        wait *= 1 - _SPREAD * self._random()
        if retry_after is not None:
            requested = min(max(retry_after, 0.0), PATIENCE_SECONDS)
            wait = max(wait, requested * (1 + _SPREAD * self._random()))
        return wait
