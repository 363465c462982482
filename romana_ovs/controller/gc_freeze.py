"""Keeps long-lived objects from being walked by the garbage collector, while a cluster is loaded and afterwards.

A cluster of 10,000 pods is some hundred thousand objects. The cyclic collector takes 0.1 s to walk them, in the middle
of whichever change happens to start it; while they are made, Python's own threshold starts it 600 times.
"""

from __future__ import annotations

import gc

MIN_PODS = 1_000
"""With fewer pods nothing is frozen."""
YOUNG_OBJECTS = 50_000
"""New objects between two runs of the collector (Python's own: 700); so many are walked in 2 to 5 ms."""
YOUNG_RUNS = 50
"""Runs until the objects that outlived one are walked again (Python's own: 10): after a cluster is loaded."""


class GcFreeze:
    """Freezes the loaded objects, again each time that the cluster has doubled.

    From its creation on, the collector runs after `YOUNG_OBJECTS` new objects only.
    """

    def __init__(self) -> None:
        self._frozen_pods = 0
        *_, oldest = gc.get_threshold()
        gc.set_threshold(YOUNG_OBJECTS, YOUNG_RUNS, oldest)

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
