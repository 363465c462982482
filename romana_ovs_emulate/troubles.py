"""What of an emulation fails at the moment: told once, tried again after a while, and nobody else's trouble."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

RETRY_SECONDS = 10.0
"""Until what failed is tried again; a kubelet waits as long for a container that fails (CrashLoopBackOff)."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something failed, what was tried, and when (of the clock, in seconds)."""

    reason: str
    tried: object
    since: float


class Troubles:
    """By subject; `clock` is in seconds. One thread may change it, any may read it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: Mapping[Hashable, Trouble] = {}

    @property
    def reasons(self) -> Mapping[Hashable, str]:
        """What fails, and why."""
        return {subject: trouble.reason for subject, trouble in self._held.items()}

    def due(self, subject: Hashable, what: object) -> bool:
        """Whether `what` is to be tried: it did not fail, or that was a while ago."""
        held = self._held.get(subject)
        return held is None or held.tried != what or self._clock() - held.since >= RETRY_SECONDS

    def failed(self, subject: Hashable, what: object, reason: str) -> None:
        """`what` was tried, and failed."""
        self._held = {**self._held, subject: Trouble(reason, what, self._clock())}

    def over(self, subject: Hashable) -> None:
        """It works now, or is not wanted any more."""
        if subject in self._held:
            self._held = {key: held for key, held in self._held.items() if key != subject}
