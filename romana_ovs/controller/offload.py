"""Runs CPU-bound work in a native thread, and defers callbacks until it has finished."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from romana_ovs import runtime

LOG = logging.getLogger("romana_ovs")

T = TypeVar("T")


class Offload:
    """Runs one function at a time for the green threads of one application, which leave its data alone meanwhile."""

    def __init__(self) -> None:
        self.busy = False
        self._held: list[Callable[[], None]] = []

    def run(self, function: Callable[[], T], beside: Callable[[], None] | None = None) -> T:
        """Run `function` in a native thread, then the deferred callbacks; returns or raises what `function` does."""
        self.busy = True
        try:
            return runtime.aside(function, beside)
        finally:
            self.busy = False
            held, self._held = self._held, []
            for job in held:
                _do(job)

    def defer(self, job: Callable[[], None]) -> None:
        """Call `job` now, or when the running function has finished."""
        if self.busy:
            self._held.append(job)
        else:
            job()


def _do(job: Callable[[], None]) -> None:
    """Call a deferred job; end the process when it fails, as it would end without waiting.

    The event that the job handles will not come again; a new process lists everything.
    """
    try:
        job()
    except Exception:
        LOG.critical("a deferred callback failed, and its event would be lost: giving up", exc_info=True)
        runtime.fail()
