"""Runs computations in a native thread, so that echo requests of switches are answered meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from romana_ovs import runtime

T = TypeVar("T")


class Offload:
    """Runs one function at a time; while `busy`, green threads must not touch the data that it uses."""

    def __init__(self) -> None:
        self.busy = False

    def run(self, function: Callable[[], T], alongside: Callable[[], None] | None = None) -> T:
        """Run `function` in a native thread, and `alongside` in another; returns or raises what `function` does."""
        self.busy = True
        try:
            return runtime.run_in_thread(function, alongside)
        finally:
            self.busy = False
