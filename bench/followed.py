"""Runs the real Ryu application on an API server and takes times. Loaded by Ryu (`bench.kubernetes`).

It writes a line of JSON about its start once its first tables are programmed, and one about each change after that.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bench.timed import Bell, Timed
from romana_ovs.controller.backend import ApiBackend
from romana_ovs.controller.session import Session
from romana_ovs.kube.api.desired import Leadership
from romana_ovs.kube.api.messages import ObjectsObserved
from romana_ovs.kube.snapshot import ClusterSnapshot
from romana_ovs.model.cluster import Cluster
from romana_ovs.model.identity import CLASS_MASK, UNKNOWN_CLASS

# After `bench.timed`, which makes Ryu and eventlet fit each other.
from eventlet.event import Event  # isort: skip

STARTED, REPORT = "BENCH_STARTED", "BENCH_REPORT"
"""Environment of the controller: when its process was made (seconds, monotonic), and where its figures go."""
POD = "Pod"
KINDS = (POD, "NetworkPolicy")


@dataclass(frozen=True, slots=True)
class Change:
    """One event: what it is about, when it came to the Kubernetes process and to us (seconds, monotonic)."""

    kind: str
    name: str
    at: float
    taken: float
    generation: int


class Teller(Bell):
    """A bell that rings whenever all that is known is in the switch."""

    def __init__(self, ring: Callable[[], None]) -> None:
        super().__init__()
        self._ring = ring

    def broadcast(self, event: Mapping[str, Any]) -> None:
        """Ring, when the event is the one that is waited for."""
        if event["event"] == "programmed":
            self._ring()


class Followed(Timed):
    """Takes note of every event until the switch has confirmed what it means."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._status_server = Teller(self.programmed)
        self._moments: dict[str, float] = {}
        self._computed = 0.0
        self._waiting: list[Change] = []
        self._report = open(os.environ[REPORT], "w", buffering=1)  # noqa: SIM115  # it lasts as long as the process
        if isinstance(self._backend, ApiBackend):
            source = self._backend._kubernetes
            self._take = source._dispatch
            source._dispatch = self._taking  # type: ignore[method-assign]

    def play(self) -> None:
        """Never returns: it is told when to end."""
        self._note("application")
        Event().wait()

    def _note(self, what: str) -> None:
        """The first time that something happens."""
        self._moments.setdefault(what, time.monotonic())

    def _taking(self, messages: list[object]) -> None:
        self._note("first message")
        came = time.monotonic()
        seen = [
            (update.id, message.at)
            for message in messages
            if "programmed" in self._moments and isinstance(message, ObjectsObserved)
            for update in message.updates
            if update.id.kind in KINDS
        ]
        if any(isinstance(message, Leadership) and message.leads for message in messages):
            self._note("leads")
        self._take(messages)
        generation = self.progress.generation
        self._waiting += [Change(key.kind, f"{key.namespace}/{key.name}", at, came, generation) for key, at in seen]

    def on_cluster(self, loaded: ClusterSnapshot, noticed: float) -> None:
        self._note("listed")
        super().on_cluster(loaded, noticed)

    def _round(self, cluster: Cluster) -> None:
        start = time.monotonic()
        super()._round(cluster)
        self._computed += time.monotonic() - start
        if any(session._wanted is not None for session in self.sessions.values()):
            self._note("tables")

    def on_programmed(self, session: Session, sent: int) -> None:
        """The switch has something: the changes that it is about are done, policies only when nothing waits."""
        super().on_programmed(session, sent)
        synced, now = session.synced, time.monotonic()
        if synced is None or "programmed" not in self._moments:
            return
        whole = synced.pledge is None or bool(synced.pledge.policies)
        done = [each for each in self._waiting if each.generation <= synced.generation and (each.kind == POD or whole)]
        self._waiting = [each for each in self._waiting if each not in done]
        for each in done:
            pipe = _ms(each.taken - each.at)
            self._write({"kind": each.kind, "name": each.name, "ms": _ms(now - each.at), "pipe": pipe})

    def programmed(self) -> None:
        """Everything that was known is in the switch; the first time, tell of the start."""
        if "programmed" in self._moments or not self.sessions or not self._classed():
            return
        self._note("programmed")
        started = float(os.environ[STARTED])
        moments = {name: _ms(moment - started) for name, moment in self._moments.items()}
        flows = [s.synced.program.counts()["total"] for s in self.sessions.values() if s.synced is not None]
        self._write({"start": moments, "computing": _ms(self._computed), "rounds": self.progress.round, "flows": flows})

    def _classed(self) -> bool:
        """Whether all pods of ours wear a class: until then nothing is opened to them by selectors."""
        parts = self.agents._agents.values()
        worn = [worn.identity for part in parts for worn in part._identities.worn.values()]
        return bool(worn) and all(identity & CLASS_MASK != UNKNOWN_CLASS for identity in worn)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._report.write(json.dumps(line) + "\n")


def _ms(seconds: float) -> float:
    return seconds * 1000
