"""Work that takes long and waits for nothing, and what has to wait for its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from romana_ovs import runtime

T = TypeVar("T")


class Aside:
    """For the green threads of one application: what one of them works out aside, nobody may look at until then."""

    def __init__(self) -> None:
        self.busy = False
        self._held: list[Callable[[], None]] = []

    def work(self, function: Callable[[], T], beside: Callable[[], None] | None = None) -> T:
        """What `function` returns or raises, as `runtime.aside` has it; then does what had to wait."""
        self.busy = True
        try:
            return runtime.aside(function, beside)
        finally:
            self.busy = False
            held, self._held = self._held, []
            for job in held:
                job()

    def when_idle(self, job: Callable[[], None]) -> None:
        """Do `job` now, or when what is worked out aside is done."""
        if self.busy:
            self._held.append(job)
        else:
            job()
