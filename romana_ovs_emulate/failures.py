"""Remembers what failed in an emulation, until it works or is due for another attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

RETRY_SECONDS = 10.0
"""How long until what failed is tried again, in seconds; the first pause of a kubelet's CrashLoopBackOff."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed, what was tried, and when (of the clock, in seconds)."""

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
        """Whether to try `what`: it has not failed, or more than RETRY_SECONDS ago."""
        last = self._failures.get(subject)
        return last is None or last.tried != what or self._clock() - last.since >= RETRY_SECONDS

    def record(self, subject: Hashable, what: object, reason: str) -> None:
        """Note that `what` was tried, and failed."""
        self._failures = {**self._failures, subject: Failure(reason, what, self._clock())}

    def clear(self, subject: Hashable) -> None:
        """Forget a failure: it works now, or is not wanted any more."""
        if subject in self._failures:
            self._failures = {key: failure for key, failure in self._failures.items() if key != subject}
