"""Runs the real Ryu application on clusters in memory instead of a folder. Loaded by Ryu (`bench.latency`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bench.timed import Clock, Spent, Timed, since
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster

# After `bench.timed`, which makes Ryu and eventlet fit each other.
import eventlet  # isort: skip
from eventlet.event import Event  # isort: skip

PATIENCE_SECONDS = 30.0


class Driven(Timed):
    """`change` takes the place of the folder of manifests."""

    scenario: Callable[[Driven], None]
    """Called with this application once its switch is connected; ends the process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ready = Event()

    def play(self) -> None:
        """Waits for the switch."""
        with eventlet.Timeout(PATIENCE_SECONDS):
            self._ready.wait()
        type(self).scenario(self)

    def on_cluster(self, loaded: ClusterSnapshot, noticed: float) -> None:
        """What the (empty) folder holds is nothing to us."""

    def on_session_ready(self, session: Any) -> None:
        """The switch's flows are known."""
        super().on_session_ready(session)
        if not self._ready.ready():
            self._ready.send(None)

    def change(self, cluster: Cluster) -> Spent:
        """Give the application `cluster`, and wait until every switch has confirmed what that means."""
        rung = self.bell.rung = Event()
        spent = Clock.spent = Spent()
        start = time.perf_counter()
        super().on_cluster(ClusterSnapshot(cluster), time.monotonic())
        with eventlet.Timeout(PATIENCE_SECONDS):
            rung.wait()
        spent.total = since(start)
        return spent
