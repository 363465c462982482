"""Freezes long-lived objects out of the garbage collector once the cluster is loaded.

A cluster of 10,000 pods is some hundred thousand objects. The cyclic collector takes 0.1 s to walk them, in the middle
of whichever change happens to start it.
"""

from __future__ import annotations

import gc

MIN_PODS = 1_000
"""With fewer pods nothing is frozen."""


class GcFreeze:
    """Freezes the loaded objects, again each time that the cluster has doubled."""

    def __init__(self) -> None:
        self._frozen_pods = 0

    def update(self, pods: int) -> bool:
        """To be called after each change of a cluster of `pods` pods; returns whether objects were frozen.

        A frozen object is freed when its last reference goes, as usual; only reference cycles are not: there are none.
        """
        if pods < MIN_PODS + 2 * self._frozen_pods:
            return False
        self._frozen_pods = pods
        gc.collect()
        gc.freeze()
        return True
