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
from romana_ovs.controller.kubernetes import Kubernetes
from romana_ovs.controller.reconciler import Inputs, Outcome
from romana_ovs.controller.session import Session
from romana_ovs.kube.api.desired import Leadership
from romana_ovs.kube.api.messages import ObjectsObserved
from romana_ovs.kube.decode.objects import ObjectId
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
        self._received: list[tuple[ObjectId, float, float]] = []
        self._taken: list[tuple[ObjectId, float, float]] = []
        """Events that came, and those that are part of the step: the object, when it came to the process and to us."""
        if isinstance(self._source, Kubernetes):
            self._receive = self._source._on_messages
            self._source._on_messages = self._receiving  # type: ignore[method-assign]

    def play(self) -> None:
        """Never returns: it is told when to end."""
        self._note("application")
        Event().wait()

    def _note(self, what: str) -> None:
        """The first time that something happens."""
        self._moments.setdefault(what, time.monotonic())

    def _receiving(self, messages: tuple[object, ...]) -> None:
        self._note("first message")
        came = time.monotonic()
        self._received += [
            (update.id, message.at, came)
            for message in messages
            if "programmed" in self._moments and isinstance(message, ObjectsObserved)
            for update in message.updates
            if update.id.kind in KINDS
        ]
        if any(isinstance(message, Leadership) and message.leads for message in messages):
            self._note("leads")
        self._receive(messages)

    def _inputs(self, now: float) -> Inputs:
        self._taken, self._received = self._received, []
        return super()._inputs(now)

    def _note_snapshot(self) -> None:
        super()._note_snapshot()
        if self.cluster is not None:
            self._note("listed")
        generation = self.progress.generation
        self._waiting += [
            Change(key.kind, f"{key.namespace}/{key.name}", at, came, generation) for key, at, came in self._taken
        ]

    def _step(self, now: float) -> tuple[Outcome, Callable[[], None] | None]:
        start = time.monotonic()
        outcome, save = super()._step(now)
        self._computed += (time.monotonic() - start) * outcome.views_changed
        return outcome, save

    def _program(self, save: Callable[[], None] | None) -> None:
        start = time.monotonic()
        super()._program(save)
        self._computed += time.monotonic() - start
        if any(session._desired is not None for session in self.sessions.values()):
            self._note("tables")

    def _process_confirmations(self, session: Session) -> None:
        """A switch has something: the changes that it is about are done, policies only when nothing waits."""
        confirmations = tuple(session._confirmations)
        super()._process_confirmations(session)
        now = time.monotonic()
        if "programmed" not in self._moments:
            return
        for desired in (each.desired for each in confirmations):
            whole = desired.ack is None or bool(desired.ack.policies_digest)
            done = [one for one in self._waiting if one.generation <= desired.generation and (one.kind == POD or whole)]
            self._waiting = [one for one in self._waiting if one not in done]
            for one in done:
                pipe = _ms(one.taken - one.at)
                self._write({"kind": one.kind, "name": one.name, "ms": _ms(now - one.at), "pipe": pipe})

    def programmed(self) -> None:
        """Everything that was known is in the switch; the first time, tell of the start."""
        if "programmed" in self._moments or not self.sessions or not self._classed():
            return
        self._note("programmed")
        started = float(os.environ[STARTED])
        moments = {name: _ms(moment - started) for name, moment in self._moments.items()}
        flows = [s.confirmed.program.counts()["total"] for s in self.sessions.values() if s.confirmed is not None]
        self._write({"start": moments, "computing": _ms(self._computed), "rounds": self.progress.round, "flows": flows})

    def _classed(self) -> bool:
        """Whether all pods of ours have a class: until then nothing is opened to them by selectors."""
        agents = self.agents._agents.values()
        identities = [assigned.identity for agent in agents for assigned in agent._identities.assigned.values()]
        return bool(identities) and all(identity & CLASS_MASK != UNKNOWN_CLASS for identity in identities)

    def _write(self, line: Mapping[str, Any]) -> None:
        self._report.write(json.dumps(line) + "\n")


def _ms(seconds: float) -> float:
    return seconds * 1000
