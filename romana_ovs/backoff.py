"""Computes exponential back-off, with jitter where many clients share a server, which respects Retry-After."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 1.0
MAX_SECONDS = 30.0
MAX_RETRY_AFTER_SECONDS = 300.0
"""Upper bound on Retry-After; a longer value is treated as a misconfiguration."""
_JITTER = 0.5
"""Share of every wait that is random, so that clients that failed together do not retry together."""
_MAX_EXPONENT = 30
"""A larger power would overflow."""


def exponential(failures: int, *, first: float, maximum: float) -> float:
    """Seconds to wait after so many earlier failures: `first` after none, doubled with each, `maximum` at most."""
    return min(maximum, first * 2.0 ** min(failures, _MAX_EXPONENT))


class Backoff:
    """The back-off of one client, or of one switch or computation that is tried again.

    `random` returns fractions from 0 (included) to 1; without it there is no jitter.
    """

    def __init__(
        self,
        random: Callable[[], float] = lambda: 0.0,
        *,
        first: float = FIRST_SECONDS,
        maximum: float = MAX_SECONDS,
    ) -> None:
        self._random = random
        self._first = first
        self._maximum = maximum
        self.failures = 0
        """Failures since the last success."""

    def succeeded(self) -> None:
        """Reset after a success."""
        self.failures = 0

    def failed(self, retry_after: float | None = None) -> float:
        """Seconds to wait after this failure; `retry_after` is from the server."""
        wait = exponential(self.failures, first=self._first, maximum=self._maximum)
        self.failures += 1
        # Between half and all of it, and never below Retry-After, so that many clients spread.
        wait *= 1 - _JITTER * self._random()
        if retry_after is not None:
            requested = min(max(retry_after, 0.0), MAX_RETRY_AFTER_SECONDS)
            wait = max(wait, requested * (1 + _JITTER * self._random()))
        return wait
