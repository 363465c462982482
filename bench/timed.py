"""Runs the real Ryu application and takes times inside its process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from romana_ovs import app, runtime
from romana_ovs.controller.reconciler import Outcome
from romana_ovs.switch.channel import Channel, ReadBack
from romana_ovs.sync.diff import FlowDiff

# After `runtime`, which makes Ryu and eventlet fit each other.
from eventlet.event import Event  # isort: skip


@dataclass(slots=True)
class Spent:
    """Where the time of one change went, in milliseconds, and the flow-mods that it took.

    `computing` is the step and the tables that follow from it, `answering` the wait for Open vSwitch's barriers,
    `total` all from the new cluster to the last confirmed barrier; the rest is comparing, encoding and writing.
    """

    total: float = 0.0
    computing: float = 0.0
    answering: float = 0.0
    reading: float = 0.0
    flow_mods: int = 0

    @property
    def sending(self) -> float:
        """What is neither computing nor waiting."""
        return self.total - self.computing - self.answering


class Clock:
    """What the change that is under way has taken so far."""

    spent = Spent()


class TimedChannel(Channel):
    """A channel that knows how long it waited for its switch."""

    def read(self) -> ReadBack:
        """Read the switch's flows, and take the time."""
        start = time.perf_counter()
        found = super().read()
        Clock.spent.reading += since(start)
        return found

    def send(self, plan: FlowDiff) -> None:
        """Send, and count."""
        super().send(plan)
        Clock.spent.flow_mods += plan.size

    def _await(self, exchange: Any) -> None:
        start = time.perf_counter()
        super()._await(exchange)
        Clock.spent.answering += since(start)


def since(start: float) -> float:
    """Milliseconds from `start` of `time.perf_counter` until now."""
    return (time.perf_counter() - start) * 1000


class Bell:
    """In place of the status server: rings when every switch has confirmed a change."""

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

    def broadcast(self, event: Mapping[str, Any]) -> None:
        """Ring, when the event is the one that is waited for."""
        if event["event"] == "programmed" and not self.rung.ready():
            self.rung.send(None)


class Timed(app.RomanaOvs):
    """The application, with a bell for its feed, a timed channel, and `play` as one more green thread."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bell = Bell()
        self._status_server: Any = self.bell

    def start(self) -> None:
        """As the application does, and the scenario beside it."""
        super().start()
        runtime.spawn_essential(self.play)

    def play(self) -> None:
        """What a measurement does; the process ends in it."""
        raise NotImplementedError

    def _step(self, now: float) -> tuple[Outcome, Callable[[], None] | None]:
        start = time.perf_counter()
        outcome, save = super()._step(now)
        if outcome.views_changed:
            Clock.spent.computing += since(start)
        return outcome, save

    def _program(self, save: Callable[[], None] | None) -> None:
        start = time.perf_counter()
        super()._program(save)
        Clock.spent.computing += since(start)


def serve(module: str, config: Path, listen: Path) -> None:
    """Run the application of a module by Ryu; returns only when it has failed."""
    from ryu.cmd import manager

    app.Channel = TimedChannel  # type: ignore[attr-defined]
    manager.main(args=["--config-file", str(config), "--ofp-listen-host", str(listen), module])


def configuration(ovsdb: str, manifests: Path, *more: str) -> str:
    """A configuration file of the controller for the clusters that are measured."""
    plan = ("segment_bits = 11", "host_bits = 8", "endpoint_bits = 5")
    return "\n".join(("[romana]", *plan, f"ovsdb = {ovsdb}", f"manifests = {manifests}", *more, ""))
