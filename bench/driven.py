"""The real Ryu application, driven by clusters in memory instead of a folder; every step of the way is timed.

Loaded by Ryu as an application of its own: `python -m bench.latency` starts it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import eventlet
from eventlet.event import Event

from romana_ovs import app, runtime
from romana_ovs.kube.store import Loaded
from romana_ovs.model.cluster import Cluster
from romana_ovs.switch.channel import Channel
from romana_ovs.sync.plan import Plan

PATIENCE_SECONDS = 20.0


@dataclass(slots=True)
class Spent:
    """Where the time of one change went, in milliseconds, and the flow-mods that it took.

    `computing` is the round from the world to the wanted tables, `answering` the wait for Open vSwitch's barriers,
    `total` all from the new cluster to the last confirmed barrier; the rest is comparing, encoding and writing.
    """

    total: float = 0.0
    computing: float = 0.0
    answering: float = 0.0
    flow_mods: int = 0

    @property
    def sending(self) -> float:
        """What is neither computing nor waiting."""
        return self.total - self.computing - self.answering


class TimedChannel(Channel):
    """A channel that knows how long it waited for its switch."""

    spent = Spent()

    def send(self, plan: Plan) -> None:
        """Send, and count."""
        super().send(plan)
        TimedChannel.spent.flow_mods += plan.size

    def _await(self, exchange: Any) -> None:
        start = time.perf_counter()
        super()._await(exchange)
        TimedChannel.spent.answering += _since(start)


def _since(start: float) -> float:
    return (time.perf_counter() - start) * 1000


class Bell:
    """In the place of the status feed: rings when every switch has confirmed a change."""

    def __init__(self) -> None:
        self.rung = Event()

    def listen(self) -> None:
        """Nobody connects."""

    def serve(self) -> None:
        """Never returns."""
        Event().wait()

    publish = serve

    def changed(self) -> None:
        """A state that nobody asks for."""

    def tell(self, event: Mapping[str, Any]) -> None:
        """Ring, when the event is the one that is waited for."""
        if event["event"] == "programmed" and not self.rung.ready():
            self.rung.send(None)


class Driven(app.RomanaOvs):
    """`change` takes the place of the folder of manifests; a scenario runs as a green thread."""

    scenario: Any = None
    """Called with this application once its switch is connected."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ready = Event()
        self._feed: Any = Bell()

    def start(self) -> None:
        """As the application does, and the scenario beside it."""
        super().start()
        runtime.spawn_one(self._play)

    def _play(self) -> None:
        with eventlet.Timeout(PATIENCE_SECONDS):
            self._ready.wait()
        type(self).scenario(self)

    def _loaded(self, loaded: Loaded, noticed: float) -> None:
        """What the (empty) folder holds is nothing to us."""

    def became_ready(self, session: Any) -> None:
        """The switch's flows are known."""
        super().became_ready(session)
        if not self._ready.ready():
            self._ready.send(None)

    def change(self, cluster: Cluster) -> Spent:
        """Give the application `cluster`, and wait until every switch has confirmed what that means."""
        rung = self._feed.rung = Event()
        spent = TimedChannel.spent = Spent()
        start = time.perf_counter()
        super()._loaded(Loaded(cluster, ()), time.monotonic())
        with eventlet.Timeout(PATIENCE_SECONDS):
            rung.wait()
        spent.total = _since(start)
        return spent

    def _round(self, cluster: Cluster) -> None:
        start = time.perf_counter()
        super()._round(cluster)
        TimedChannel.spent.computing += _since(start)
