"""Freezes long-lived objects out of the garbage collector once the cluster is loaded.

A cluster of 10,000 pods is some hundred thousand objects. The cyclic collector takes a tenth of a second to walk them,
in the middle of whichever change happens to start it.
"""

from __future__ import annotations

import gc

FEW = 1_000
"""Pods that are not worth it."""


class GcFreeze:
    """Exempts from collection what has been loaded, again each time that the cluster has doubled."""

    def __init__(self) -> None:
        self._exempted = 0

    def after(self, pods: int) -> bool:
        """To be called when a change of a cluster of `pods` pods is done with; whether anything was exempted.

        What is exempted is freed as ever once nothing refers to it; only circles among it stay, and ours has none.
        """
        if pods < FEW + 2 * self._exempted:
            return False
        self._exempted = pods
        gc.collect()
        gc.freeze()
        return True
