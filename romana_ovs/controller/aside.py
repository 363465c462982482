"""Work that takes long and waits for nothing, and what has to wait for its end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from romana_ovs import runtime

LOG = logging.getLogger("romana_ovs")

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
                _do(job)

    def when_idle(self, job: Callable[[], None]) -> None:
        """Do `job` now, or when what is worked out aside is done."""
        if self.busy:
            self._held.append(job)
        else:
            job()


def _do(job: Callable[[], None]) -> None:
    """Do what had to wait, or end the process, as it ends when this fails without waiting.

    Nobody tells again of what such a job was about; a process that starts anew is told of everything.
    """
    try:
        job()
    except Exception:
        LOG.critical("what had to wait failed, and would be lost: giving up", exc_info=True)
        runtime.fail()
