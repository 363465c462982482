"""Runs the real Ryu application on clusters in memory instead of a folder. Loaded by Ryu (`bench.latency`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.timed import Clock, Spent, Timed, since
from romana_ovs import app
from romana_ovs.config import ControllerOptions
from romana_ovs.controller.folder_reconciler import FolderReconciler
from romana_ovs.controller.reconciler import Reconciler, Source
from romana_ovs.flag import Flag
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.settings import Settings

# After `bench.timed`, which makes Ryu and eventlet fit each other.
import eventlet  # isort: skip
from eventlet.event import Event  # isort: skip

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Given:
    """A cluster in the place of what a folder holds; given at a time of `time.monotonic`."""

    snapshot: ClusterSnapshot
    noticed: float


class GivenSource:
    """Clusters of ours."""

    problems: tuple[str, ...] = ()

    def __init__(self, flag: Flag) -> None:
        self._flag = flag
        self._given: tuple[Given, ...] = ()

    def run(self) -> None:
        """Never returns."""
        Event().wait()

    def give(self, cluster: Cluster) -> None:
        """This is the cluster now."""
        self._given = (*self._given, Given(ClusterSnapshot(cluster), time.monotonic()))
        self._flag.set()

    def receive(self) -> tuple[Given, ...]:
        """The clusters that were not received yet."""
        given, self._given = self._given, ()
        return given

    def send(self, messages: tuple[object, ...]) -> None:
        """Nobody is there."""


class GivenReconciler(FolderReconciler):
    """Takes clusters of ours."""

    def _apply(self, news: tuple[object, ...]) -> None:
        for given in news:
            if isinstance(given, Given):
                self._set_snapshot(given.snapshot, given.noticed)


def given_backend(
    options: ControllerOptions, settings: Settings, state: Mapping[str, Any] | None, flag: Flag
) -> tuple[Source, Reconciler]:
    """In the place of `backend_of`."""
    return GivenSource(flag), GivenReconciler(settings, state, default_nodes=options.nodes)


class Driven(Timed):
    """`change` takes the place of the folder of manifests."""

    scenario: Callable[[Driven], None]
    """Called with this application once its switch is connected; ends the process."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        app.backend_of = given_backend  # type: ignore[attr-defined]
        super().__init__(*args, **kwargs)
        self._connected = Event()

    def play(self) -> None:
        """Waits for the switch."""
        with eventlet.Timeout(PATIENCE_SECONDS):
            self._connected.wait()
        type(self).scenario(self)

    def _take_changes(self, now: float) -> None:
        super()._take_changes(now)
        if self._ready_sessions and not self._connected.ready():
            self._connected.send(None)

    def change(self, cluster: Cluster) -> Spent:
        """Give the application `cluster`, and wait until every switch has confirmed what that means."""
        rung = self.bell.rung = Event()
        spent = Clock.spent = Spent()
        start = time.perf_counter()
        assert isinstance(self._source, GivenSource)
        self._source.give(cluster)
        with eventlet.Timeout(PATIENCE_SECONDS):
            rung.wait()
        spent.total = since(start)
        return spent
