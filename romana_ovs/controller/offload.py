"""Runs CPU-bound work in a native thread, so that switches' echo requests are answered meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from romana_ovs import runtime

T = TypeVar("T")


class Offload:
    """Runs one function at a time for the green threads of one application, which leave its data alone meanwhile."""

    def __init__(self) -> None:
        self.busy = False

    def run(self, function: Callable[[], T], beside: Callable[[], None] | None = None) -> T:
        """Run `function` in a native thread, and `beside` in another; returns or raises what `function` does."""
        self.busy = True
        try:
            return runtime.aside(function, beside)
        finally:
            self.busy = False
