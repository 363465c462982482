"""Records failed attempts of an emulation, and when they are due for a retry."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

RETRY_SECONDS = 10.0
"""How long until a failed attempt is retried, in seconds; the first pause of a kubelet's CrashLoopBackOff."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed attempt: the reason, what was tried, and when (in seconds of the clock)."""

    reason: str
    tried: object
    since: float


class Failures:
    """Failures by subject; `clock` is in seconds. One thread may change it, any may read it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: Mapping[Hashable, Failure] = {}

    @property
    def reasons(self) -> Mapping[Hashable, str]:
        """The reason of each failure."""
        return {subject: failure.reason for subject, failure in self._failures.items()}

    def due(self, subject: Hashable, what: object) -> bool:
        """Whether to try `what`: it has not failed, or at least RETRY_SECONDS ago."""
        last = self._failures.get(subject)
        return last is None or last.tried != what or self._clock() - last.since >= RETRY_SECONDS

    def record(self, subject: Hashable, what: object, reason: str) -> None:
        """Record that `what` was tried and failed."""
        self._failures = {**self._failures, subject: Failure(reason, what, self._clock())}

    def clear(self, subject: Hashable) -> None:
        """Remove a failure: the attempt succeeded, or is no longer needed."""
        if subject in self._failures:
            self._failures = {key: failure for key, failure in self._failures.items() if key != subject}
